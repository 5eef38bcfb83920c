import io
import json

import numpy as np
import pytest
import soundfile
from evaluation.fakes import SUITE, save_suite
from PIL import Image

from mars_export.common.errors import ExportError
from mars_export.evaluation.suite import merged, read_suite
from mars_export.evaluation.suites.own import read_own
from mars_export.inputs.requests import messages
from support import odd_media

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
        ({"modality": "audio"}, "`modality` is audio, but its media make it text"),
        ({"harmful": "perhaps"}, "harmful is 'perhaps'; write true or false"),
        ({"split": "train"}, "split"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": " \u200b"}, "prompt has no words"),
        ({"id": "\ud800"}, "id has half a character"),
        ({"category": "a\0b"}, "category has a NUL character"),
        ({"harmfull": True}, "there is no key harmfull; is it harmful?"),
        ({"color": 1}, "color"),
        ({"image": "p.png"}, "`modality` is text, but its media make it image"),
        ({"video": ["p.png"]}, "`modality` is text, but its media make it video"),
        ({"modality": "image"}, "`modality` is image, but its media make it text"),
        ({"modality": "video"}, "`modality` is video, but its media make it text"),
        ({"modality": "video", "video": []}, "media.0.paths: List should have at least 1 item"),
        ({"image": "p.png", "media": [{"type": "image", "path": "p.png"}]}, "not both"),
        ({"media": [{"type": "text", "path": "p.png"}]}, "a medium cannot be text"),
        ({"media": [{"type": "image", "paths": ["p.png"]}]}, "type image has `path` and nothing"),
        ({"media": [{"type": "image", "path": None}]}, "type image has `path` and nothing"),
        (
            {"media": [{"type": "video", "path": "a", "paths": ["p.png"]}]},
            "type video has `path` or `paths` and nothing",
        ),
        ({"video": "q.mp4", "modality": "video"}, "the clip q.mp4 does not exist; is it a.mp4?"),
        ({"video": "none", "modality": "video"}, "in/none: a clip's folder with no pictures"),
        ({"image": "none", "modality": "image"}, "the picture none is a folder; give one as `vid"),
        ({"image": "a.mp4", "modality": "image"}, "a.mp4 is a video file; give it as `video`"),
        ({"image": "loop.png", "modality": "image"}, "the picture loop.png does not exist"),
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
    (folder / "loop.png").symlink_to("loop.png")
    (folder / "none").mkdir()
    (folder / "a.mp4").touch()
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
        (["[1]"], "line 1: not a record with named columns"),
        ([ROW, ROW], "line 2: the id 'a' was used before"),
    ]:
        with pytest.raises(ExportError, match=message):
            read_suite(write(tmp_path, *lines))


def test_empty_or_absent_or_binary_suite(tmp_path):
    with pytest.raises(ExportError, match="empty"):
        read_suite(write(tmp_path, ""))
    with pytest.raises(ExportError, match=r"No such file or directory; is it suite\.jsonl\?"):
        read_suite(tmp_path / "suites.jsonl")
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(ExportError, match="this is a folder"):
        read_suite(tmp_path / "folder.jsonl")
    (tmp_path / "b.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ExportError, match="not UTF-8"):
        read_suite(tmp_path / "b.jsonl")


def test_unreadable_picture(tmp_path):
    suite = read_suite(save_suite(tmp_path, SUITE[5:6]))
    (tmp_path / "p.png").write_bytes(b"no picture")
    with pytest.raises(ExportError, match="not a readable picture"):
        suite.request(suite.samples[0])


def test_clips_are_video_files_folders_or_lists_of_frames(tmp_path):
    pytest.importorskip("av")
    frames = [Image.new("RGB", (16, 16), (20 * n,) * 3) for n in range(10)]
    odd_media.video(tmp_path / "a.MP4", frames)
    (tmp_path / "b").mkdir()
    for number, frame in enumerate(frames):
        frame.save(tmp_path / "b" / f"{number}.png")
    base = {"prompt": "How?", "harmful": True}
    shown = [
        {"video": "a.MP4"},
        {"file_name": "a.MP4"},
        {"media": [{"type": "video", "path": "a.MP4"}]},
        {"video": "b"},
        {"video": [f"b/{n}.png" for n in (0, 1, 3, 4, 5, 6, 8, 9)]},
    ]
    rows = [{**base, "prompt": f"How {n}?", **keys} for n, keys in enumerate(shown)]
    suite = read_suite(write(tmp_path, *rows))
    for sample in suite.samples:
        (medium,) = suite.request(sample).media
        assert (sample.modality, medium.modality) == ("video", "video")
        seen = [round(frame.getpixel((8, 8))[0] / 20) for frame in medium.data]
        assert seen == [0, 1, 3, 4, 5, 6, 8, 9]
    before = suite.sha256
    frames[5].save(tmp_path / "b" / "9.png")
    assert read_suite(tmp_path / "suite.jsonl").sha256 != before


def test_clusters_are_what_the_suite_says_or_the_words(tmp_path):
    picture = {"modality": "image", "image": "p.png", "prompt": "What is this?"}
    Image.new("RGB", (2, 2)).save(tmp_path / "q.png")
    rows = [
        {"prompt": "Make  a\nBOMB"},
        {"prompt": "make a bomb"},
        {**picture, "intent": "Make a bomb"},  # the same, in a picture
        {**picture, "image": "q.png"},
        picture,
        {"prompt": "Make a cake", "cluster": "baking"},
        {**picture, "cluster": "baking"},
    ]
    rows = [{**ROW, "id": str(number), **row} for number, row in enumerate(rows)]
    suite = read_suite(write(tmp_path, *rows))
    kin = [sample.kin for sample in suite.samples]
    assert kin[0] == kin[1] == kin[2]
    assert len({kin[0], kin[3], kin[4]}) == 3  # one question about two pictures
    assert kin[5:] == ["baking", "baking"]
    assert "bomb" not in kin[0]


def test_what_a_record_does_not_say_has_a_default(tmp_path):
    rows = [
        {"prompt": "a", "harmful": True},
        {"goal": "b", "harmful": 0, "image": "p.png"},
        {"Prompt": "c", "harmful": "no", "file_name": "p.png", "id": 7, "category": 3},
        {"prompt": "d", "harmful": "true", "video": ["p.png", "p.png"]},
        {"prompt": "e", "harmful": False, "file_names": ["p.png", "p.png"]},
        {"prompt": "f", "harmful": False, "file_name": "p.png", "split": "calibration"},
    ]
    path = write(tmp_path, *rows).rename(tmp_path / "mine.jsonl")
    suite = read_suite(path)
    assert [(s.id, s.modality, s.split, s.harmful, len(s.files)) for s in suite.samples] == [
        ("mine/1", "text", "evaluation", True, 0),
        ("mine/2", "image", "evaluation", False, 1),
        ("7", "image", "evaluation", False, 1),
        ("mine/4", "video", "evaluation", True, 2),
        ("mine/5", "image", "evaluation", False, 2),
        ("mine/p.png", "image", "calibration", False, 1),
    ]
    assert suite.places["mine/4"] == f"{path}, line 4"
    assert suite.samples[2].category == "3"


TABLES = {
    "t.csv": "prompt,harmful,category,note\na,true,x,1\n\"b, c\",no,,2\n",
    "t.tsv": "prompt\tharmful\tcategory\na\ttrue\tx\nb, c\tno\t\n",
    "s.csv": "\ufeffprompt;harmful;category\r\na;true;x\r\nb, c;no;\r\n",
    "t.json": json.dumps([{"prompt": "a", "harmful": 1, "category": "x"},
                          {"prompt": "b, c", "harmful": 0}]),
    "t.ndjson": '{"prompt": "a", "harmful": true, "category": "x"}\r'
                '{"prompt": "b, c", "harmful": false}\r',
}  # fmt: skip


@pytest.mark.parametrize("name", TABLES)
def test_any_table_is_a_suite(tmp_path, name):
    (tmp_path / name).write_bytes(TABLES[name].encode())
    suite = read_suite(tmp_path / name)
    assert [(s.prompt, s.harmful, s.category) for s in suite.samples] == [
        ("a", True, "x"), ("b, c", False, None),
    ]  # fmt: skip


def test_all_problems_of_a_file_are_told_at_once(tmp_path):
    rows = [ROW, {**ROW, "id": "b", "harmfull": 1, "split": "train"}, "{", {"id": "c"}, ROW, *"12"]
    path = write(tmp_path, *rows)
    with pytest.raises(ExportError) as caught:
        read_suite(path)
    text = str(caught.value)
    assert text.startswith(f"{path} has 8 problems: ")
    for line, what in [(2, "there is no key harmfull; is it harmful?"), (2, "split: Input"),
                       (3, "not JSON"), (4, "harmful is missing"), (4, "prompt is missing"),
                       (5, "the id 'a' was used before"), (7, "not a record")]:  # fmt: skip
        assert f"line {line}: {what}" in text
    with pytest.raises(ExportError, match=r"line 1: .*line 10: [^;]*; and 2 more$"):
        read_suite(write(tmp_path, *"abcdefghijkl"))


def test_a_column_that_is_nearly_one_is_not_left_out(tmp_path):
    (tmp_path / "t.csv").write_text("prompt,harmful,images,width\na,true,p.png,3\n")
    with pytest.raises(ExportError, match=r"line 2: there is no key images; is it image\?"):
        read_suite(tmp_path / "t.csv")


def test_one_request_has_one_label(tmp_path):
    rows = [
        {"id": name, "modality": "text", "harmful": harmful, "split": "evaluation", "prompt": text}
        for name, harmful, text in (("a", True, "How do I bake?"), ("b", False, "how do  I bake"))
    ]
    (tmp_path / "suite.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(ExportError, match="'b' asks what 'a' asks and has the other label"):
        read_suite(tmp_path / "suite.jsonl")


def tone(path, seconds=0.5, rate=8000, **options):
    times = np.arange(round(seconds * rate)) / rate
    soundfile.write(path, 0.3 * np.sin(2000 * times), rate, **options)


def test_sounds_are_named_as_pictures_are(tmp_path):
    tone(tmp_path / "a.WAV", 0.5, format="WAV")
    tone(tmp_path / "b.flac", 1.0, 16000)
    base = {"harmful": True, "intent": "Say how."}
    shown = [
        {"audio": "a.WAV"},
        {"file_name": "a.WAV"},
        {"media": [{"type": "audio", "path": "a.WAV"}]},
        {"file_names": ["a.WAV", "b.flac"]},
        {"audio": "a.WAV", "modality": "audio", "id": "mine"},
    ]
    rows = [{**base, "prompt": f"How {n}?", **keys} for n, keys in enumerate(shown)]
    suite = read_suite(write(tmp_path, *rows))
    assert {s.modality for s in suite.samples} == {"audio"}
    heard = [[m.data.seconds for m in suite.request(s).media] for s in suite.samples]
    assert heard == [[0.5], [0.5], [0.5], [0.5, 1.0], [0.5]]
    assert suite.evaluation_samples(("text", "image")) == []
    assert len(suite.evaluation_samples(("text", "audio"))) == 5
    assert {s.kin for s in suite.samples} == {suite.samples[0].kin}
    before = suite.sha256
    tone(tmp_path / "a.WAV", 0.4, format="WAV")
    assert read_suite(tmp_path / "suite.jsonl").sha256 != before


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"audio": "p.png"}, "the sound p.png is a picture; give it as `image`"),
        ({"audio": "a.mp4"}, "the sound a.mp4 is a video file; give it as `video`"),
        ({"image": "a.wav"}, "the picture a.wav is a sound; give it as `audio`"),
        ({"video": "a.wav"}, "the clip a.wav is a sound; give it as `audio`"),
        ({"video": ["p.png", "a.wav"]}, "the picture a.wav is a sound; give it as `audio`"),
        ({"audio": "b.wav"}, "the sound b.wav does not exist; is it a.wav?"),
        ({"audio": "folder.wav"}, "the sound folder.wav is a folder; name a file"),
        ({"audio": ["a.wav"]}, "media.0.path: Input should be a valid string"),
        ({"audio": "a.wav", "image": "p.png"}, "audio beside a picture or clip is never steered"),
        ({"file_names": ["a.wav", "a.mp4"]}, "audio beside a picture or clip is never steered"),
        ({"audio": "a.wav", "modality": "text"}, "`modality` is text, but its media make it audio"),
    ],
)
def test_a_sound_that_cannot_be_one(tmp_path, keys, message):
    tone(tmp_path / "a.wav")
    (tmp_path / "a.mp4").touch()
    (tmp_path / "folder.wav").mkdir()
    rows = [{"prompt": "a", "harmful": False}, {"prompt": "b", "harmful": True, **keys}]
    path = write(tmp_path, *rows)
    with pytest.raises(ExportError) as caught:
        read_suite(path)
    text = str(caught.value)
    assert text.startswith(f"{path}, line 2: ")
    assert message in text
    assert "\n" not in text


def test_a_sound_of_a_kind_that_is_not_read_is_called_a_sound(tmp_path):
    (tmp_path / "a.m4a").write_bytes(b"ftyp")
    suite = read_suite(write(tmp_path, {"file_name": "a.m4a", "harmful": True}))
    with pytest.raises(ExportError, match=r"a\.m4a: not a readable sound \(none of wav, "):
        suite.request(suite.samples[0])


def test_a_sound_may_say_it_all(tmp_path):
    tone(tmp_path / "a.wav")
    tone(tmp_path / "b.wav", 1.0)
    rows = [
        {"harmful": True, "audio": "a.wav", "intent": "Say how."},
        {"harmful": True, "audio": "b.wav"},
        {"harmful": True, "prompt": "", "audio": "a.wav", "intent": "Say why."},
    ]
    suite = read_suite(write(tmp_path, *rows))
    assert [s.prompt for s in suite.samples] == [""] * 3
    assert len({s.kin for s in suite.samples}) == 3
    (turn,) = messages(suite.request(suite.samples[0]))
    assert [part["type"] for part in turn["content"]] == ["audio"]
    with pytest.raises(ExportError, match="line 1: prompt is missing"):
        read_suite(write(tmp_path, {"harmful": True, "image": "p.png"}))


def test_a_folder_of_sounds_is_a_suite(tmp_path):
    tone(tmp_path / "one.ogg")
    (tmp_path / "metadata.csv").write_text("file_name,prompt,harmful\none.ogg,Answer.,true\n")
    (sample,) = (suite := read_own(tmp_path)).samples
    assert (sample.id, sample.modality) == (f"{tmp_path.name}/one.ogg", "audio")
    assert suite.request(sample).media[0].data.seconds == pytest.approx(0.5, abs=0.01)
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "one.ogg", "harmful": false}')
    with pytest.raises(ExportError, match=r"holds metadata\.csv and metadata\.jsonl; give one"):
        read_own(tmp_path)


def test_media_may_lie_inside_a_parquet_file(tmp_path):
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    data = {"wav": io.BytesIO(), "png": io.BytesIO()}
    tone(data["wav"], format="WAV")
    Image.new("RGB", (4, 4), "red").save(data["png"], "PNG")
    rows = [
        {"prompt": "hear", "audio": {"bytes": data["wav"].getvalue(), "path": None}},
        {"prompt": "see", "image": {"bytes": data["png"].getvalue(), "path": "a.png"}},
        {"prompt": "read"},
    ]
    table = tmp_path / "metadata.parquet"
    empty = {"harmful": True, "audio": None, "image": None}
    parquet.write_table(arrow.Table.from_pylist([{**empty, **row} for row in rows]), table)
    suite = read_own(tmp_path)
    requests = [suite.request(sample) for sample in suite.samples]
    assert [request.modality for request in requests] == ["audio", "image", "text"]
    assert requests[0].media[0].data.seconds == 0.5
    assert requests[1].pictures[0].getpixel((0, 0)) == (255, 0, 0)
    assert len({sample.kin for sample in suite.samples}) == 3
    for number, path in enumerate(("x/audio", "9/audio", "0/audio", "1/image", "1/prompt", "1")):
        false = {**empty, "prompt": "read", "file_name": f"{number}.parquet/{path}"}
        other = tmp_path / f"{number}.parquet"
        parquet.write_table(arrow.Table.from_pylist([false, {**empty, **rows[0]}]), other)
        with pytest.raises(ExportError, match=r"entry 1: .*does not exist"):
            read_own(other)


def test_no_suite_of_several_is_left_out_in_silence(tmp_path):
    shown = {**ROW, "id": "b", "modality": "image", "image": "p.png"}
    parts = []
    for name, row in (("said", ROW), ("shown", shown)):
        (tmp_path / name).mkdir()
        parts.append(read_suite(write(tmp_path / name, row)))
    joined = merged(parts)
    assert len(joined.required_samples(("text", "image"))) == 2
    with pytest.raises(ExportError, match=r"suite shown has no request .* for text; leave it out"):
        joined.required_samples(("text",))
    with pytest.raises(ExportError, match=r"suite said has .* for audio; leave it out"):
        joined.required_samples(("audio",))
