import json

import pytest
from evaluation.fakes import SUITE, save_suite
from PIL import Image

from mars_export.common.errors import ExportError
from mars_export.evaluation.suite import read_suite

ROW = {"id": "a", "modality": "text", "harmful": True, "split": "evaluation", "prompt": "x",
       "image": None, "video": None}  # fmt: skip


def write(folder, *lines):
    Image.new("RGB", (4, 4)).save(folder / "p.png")
    path = folder / "suite.jsonl"
    path.write_text("\n".join(x if isinstance(x, str) else json.dumps(x) for x in lines))
    return path


def test_reads_requests_with_their_pictures(tmp_path):
    rows = [
        *SUITE[:1],
        {**SUITE[5], "split": "calibration"},
        {**SUITE[6]},
        {**SUITE[7], "id": "clip", "modality": "video"},
    ]
    suite = read_suite(save_suite(tmp_path / "mine", rows))
    assert suite.name == "mine"
    assert [s.id for s in suite.evaluation_samples(("text", "image", "video"))] == [
        rows[0]["id"], rows[2]["id"], "clip",
    ]  # fmt: skip
    assert [s.id for s in suite.evaluation_samples(("text",))] == [rows[0]["id"]]
    requests = [suite.request(sample) for sample in suite.samples]
    assert [request.modality for request in requests] == ["text", "image", "image", "video"]
    assert requests[1].pictures[0].mode == "RGB"
    assert len(requests[3].pictures) == 2


def test_digest_covers_records_and_pictures(tmp_path):
    path = save_suite(tmp_path, SUITE)
    first = read_suite(path).sha256
    assert read_suite(path).sha256 == first
    Image.new("L", (4, 4), 0).save(tmp_path / "p.png")
    second = read_suite(path).sha256
    path.write_text(path.read_text().replace("bad", "worse"))
    assert len({first, second, read_suite(path).sha256}) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"modality": "audio"}, "modality"),
        ({"harmful": "yes"}, "harmful"),
        ({"split": "train"}, "split"),
        ({"prompt": ""}, "prompt"),
        ({"id": ""}, "id"),
        ({"color": 1}, "color"),
        ({"image": "p.png"}, "`modality` is text, but its media make it image"),
        ({"video": ["p.png"]}, "`modality` is text, but its media make it video"),
        ({"modality": "image"}, "`modality` is image, but its media make it text"),
        ({"modality": "video"}, "`modality` is video, but its media make it text"),
        ({"modality": "video", "video": []}, "media.0.paths: List should have at least 1 item"),
        ({"image": "p.png", "media": [{"type": "image", "path": "p.png"}]}, "not both"),
        ({"media": [{"type": "text", "path": "p.png"}]}, "a medium cannot be text"),
        ({"media": [{"type": "image", "paths": ["p.png"]}]}, "type image has `path` and nothing"),
        ({"media": [{"type": "video", "path": "p.png"}]}, "type video has `paths` and nothing"),
        ({"variant": "prefill"}, "there is no key variant"),
        ({"modality": "image", "image": "q.png"}, "the picture q.png does not exist"),
        ({"modality": "image", "image": "/etc/passwd"}, "inside the folder of this file"),
        ({"modality": "image", "image": "a/../../p.png"}, "inside the folder of this file"),
        ({"modality": "image", "image": "link.png"}, "leads out of the suite's folder"),
        ({"modality": "image", "image": "."}, "inside the folder of this file"),
    ],
)
def test_names_file_line_and_fault(tmp_path, change, message):
    folder = tmp_path / "in"
    folder.mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "out.png")
    (folder / "link.png").symlink_to(tmp_path / "out.png")
    path = write(folder, {**ROW, "id": "first"}, "", {**ROW, **change})
    with pytest.raises(ExportError) as caught:
        read_suite(path)
    text = str(caught.value)
    assert text.startswith(f"{path}, line 3: ")
    assert message in text
    assert "\n" not in text


def test_missing_key_broken_json_and_repeated_id(tmp_path):
    short = {k: v for k, v in ROW.items() if k != "prompt"}
    for lines, message in [
        ([short], "line 1: prompt"),
        (["{"], "line 1: not JSON"),
        (["[1]"], "line 1: Input should be a valid dictionary"),
        ([ROW, ROW], "line 2: the id 'a' was used before"),
    ]:
        with pytest.raises(ExportError, match=message):
            read_suite(write(tmp_path, *lines))


def test_empty_or_absent_or_binary_suite(tmp_path):
    with pytest.raises(ExportError, match="empty"):
        read_suite(write(tmp_path, ""))
    with pytest.raises(ExportError, match="cannot be read"):
        read_suite(tmp_path / "none.jsonl")
    with pytest.raises(ExportError, match="cannot be read"):
        read_suite(tmp_path)
    (tmp_path / "b.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ExportError, match="cannot be read"):
        read_suite(tmp_path / "b.jsonl")


def test_unreadable_picture(tmp_path):
    suite = read_suite(save_suite(tmp_path, SUITE[5:6]))
    (tmp_path / "p.png").write_bytes(b"no picture")
    with pytest.raises(ExportError, match="not a readable picture"):
        suite.request(suite.samples[0])
