"""Benchmarks: their records, the copies that ship, and reading the formats they come in."""

import csv
import hashlib
import io
import json
import os
import shutil
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import soundfile
from evaluation.fakes import SUITE, save_suite
from PIL import Image, ImageChops

from mars_export.common.errors import ExportError
from mars_export.evaluation.suites import sources
from mars_export.evaluation.suites.catalog import open_suites
from mars_export.evaluation.suites.record import known_suites
from mars_export.inputs.media import VIDEO_FRAMES

DATA = Path(os.environ.get("MARS_TEST_DATA", "tests/data/originals"))
OFFLINE = [name for name, record in known_suites().items() if record.offline]
PACKAGED = files("mars_export.evaluation.suites") / "data"


def png(color):
    stream = io.BytesIO()
    Image.new("RGB", (4, 4), color).save(stream, "PNG")
    return stream.getvalue()


def table(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.mark.parametrize("name", OFFLINE)
def test_what_ships_is_complete_and_can_be_shown(name):
    suite = open_suites([name])
    record = known_suites()[name]
    assert len(suite.samples) == record.samples
    assert {(s.modality, s.harmful, s.suite) for s in suite.samples} == {
        (record.modality, record.harmful, name)
    }
    assert all(s.category and s.id.startswith(f"{name}/") for s in suite.samples)
    assert suite.request(suite.samples[-1]).modality == record.modality
    assert open_suites([name]).sha256 == suite.sha256


def test_every_shipped_file_has_its_license_and_digest():
    provenance = json.loads((PACKAGED / "provenance.json").read_text("utf-8"))
    used = {file for name in OFFLINE for file in known_suites()[name].files}
    assert used == set(provenance)
    for name, entry in provenance.items():
        assert hashlib.sha256((PACKAGED / name).read_bytes()).hexdigest() == entry["sha256"]
        assert entry["license"] in {"MIT", "CC-BY-4.0", "Apache-2.0"}
        assert entry["citation"]


def test_what_does_not_ship_names_repository_and_license():
    for name in set(known_suites()) - set(OFFLINE):
        record = known_suites()[name]
        assert record.license
        if record.by_hand:
            assert record.hub is None
            continue
        assert record.hub is not None
        assert "/" in record.hub.repo
        assert record.hub.revision is None or len(record.hub.revision) == 40


def test_every_picture_of_figstep_holds_its_text():
    white = Image.new("RGB", (512, 512), "white")
    suite = open_suites(["figstep"])
    longest = sorted(suite.samples, key=lambda s: -len(s.intent))[:12]
    for sample in longest:
        (picture,) = suite.request(sample).pictures
        box = ImageChops.difference(picture, white).getbbox()
        assert min(box[0], box[1], 512 - box[2], 512 - box[3]) >= 20, sample.id
        assert sample.intent not in sample.prompt


def test_several_suites_are_one_with_their_own_pictures(tmp_path):
    mine = save_suite(tmp_path / "mine", SUITE)
    suite = open_suites(["figstep-benign", str(mine), "xstest"])
    assert [part.name for part in suite.parts] == ["figstep-benign", "mine", "xstest"]
    assert len(suite.samples) == 50 + len(SUITE) + 250
    sizes = {s.suite: suite.request(s).pictures[0].size for s in suite.samples if s.media}
    assert sizes == {"figstep-benign": (512, 512), "mine": (4, 4)}
    assert suite.sha256 != open_suites(["xstest", str(mine), "figstep-benign"]).sha256


def test_suites_that_share_a_name_or_an_id(tmp_path):
    first, second = (save_suite(tmp_path / name / "mine", SUITE) for name in "ab")
    with pytest.raises(ExportError, match="two suites are called mine"):
        open_suites([str(first), str(second)])
    with pytest.raises(ExportError, match=r"suite other: the id .* was used before"):
        open_suites([str(first), f"other={second}"])


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("figsteq", "neither a known suite nor a file; is it figstep?"),
        ("no/file", "neither a known suite nor a file; see mars-export suites"),
        ("harmbench=none.csv", "there is no such file or folder"),
        ("xstest@main", "ships with the package"),
        ("vlsbench", "unpack imgs.tar into the same folder and give --suite vlsbench=FOLDER"),
    ],
)
def test_what_cannot_be_opened_says_what_to_do(asked, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ExportError) as caught:
        open_suites([asked])
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Behavior,BehaviorID\nx,1\n,2\n", "line 3: Behavior is not a text"),
        ("Behavior,BehaviorID\nx,1\ny,1\n", "line 3: the id 'harmbench/1' was used before"),
        ("Behavior,BehaviorID\nx,1\ny\n", "line 3: not as many columns as the header"),
        ("prompts\nx\n", "line 2: no column Behavior, which harmbench needs; there are prompts"),
        ("Behavior\n", "the suite harmbench is empty"),
    ],
)
def test_a_bad_table_is_named_with_its_line(tmp_path, text, message):
    path = tmp_path / "copy.csv"
    path.write_text(text)
    with pytest.raises(ExportError) as caught:
        open_suites([f"harmbench={path}"])
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_values_are_taken_as_they_are_written(tmp_path):
    path = tmp_path / "copy.csv"
    path.write_text("Behavior,BehaviorID\nNA,007\n1,null\n")
    samples = open_suites([f"harmbench={path}"]).samples
    assert [(s.id, s.prompt) for s in samples] == [("harmbench/007", "NA"), ("harmbench/null", "1")]


def test_json_lines_and_json_are_read_too(tmp_path):
    rows = [{"Goal": "a", "Index": 0, "Category": "c"}, {"Goal": "b", "Index": 1}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "a.json").write_text(json.dumps(rows))
    for name in ("a.jsonl", "a.json"):
        suite = open_suites([f"jailbreakbench={tmp_path / name}"])
        assert [(s.id, s.prompt, s.category) for s in suite.samples] == [
            ("jailbreakbench/0", "a", "c"), ("jailbreakbench/1", "b", None),
        ]  # fmt: skip
    (tmp_path / "a.jsonl").write_text('{"Goal": "a"}\n{"Goal"')
    with pytest.raises(ExportError, match=r"a\.jsonl, line 2: not JSON"):
        open_suites([f"jailbreakbench={tmp_path / 'a.jsonl'}"])


@pytest.mark.parametrize("text", ["[" * 100_000, "[" + "1" * 5000 + "]"])
@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_json_beyond_all_sense_is_one_line(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(ExportError, match="line 1: not JSON") as caught:
        open_suites([f"jailbreakbench={tmp_path / name}"])
    assert "\n" not in str(caught.value)


def test_pictures_beside_the_table_and_in_an_object_of_records(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "1.png").write_bytes(png("red"))
    row = {"pid": "1", "question": "What?", "image": "images/1.png", "metadata": {"over": "type 1"}}
    (tmp_path / "information.json").write_text(json.dumps({"1": row}))
    suite = open_suites([f"mossbench={tmp_path}"])
    (sample,) = suite.samples
    assert (sample.id, sample.category) == ("mossbench/1", "type 1")
    assert suite.request(sample).pictures[0].getpixel((0, 0)) == (255, 0, 0)
    first = suite.sha256
    (tmp_path / "images" / "1.png").write_bytes(png("blue"))
    assert open_suites([f"mossbench={tmp_path}"]).sha256 != first
    (tmp_path / "images" / "1.png").unlink()
    with pytest.raises(ExportError, match=r"entry 1: images/1\.png does not exist"):
        open_suites([f"mossbench={tmp_path}"])


def test_a_table_cannot_show_files_outside_its_folder(tmp_path):
    (tmp_path / "secret.png").write_bytes(png("red"))
    row = {"pid": "1", "question": "What?", "image": "../secret.png"}
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "information.json").write_text(json.dumps([row]))
    with pytest.raises(ExportError, match="does not exist"):
        open_suites([f"mossbench={tmp_path / 'in'}"])


def test_clips_are_folders_of_frames_taken_evenly(tmp_path):
    folder = tmp_path / "video" / "a"
    folder.mkdir(parents=True)
    for index in range(15):
        (folder / f"{index:02d}.png").write_bytes(png((index, 0, 0)))
    row = {"question_id": 7, "question": "What?", "category": "c", "video_path": "video/a",
           "harmful_intention": "harm"}  # fmt: skip
    (tmp_path / "harmful_data.json").write_text(json.dumps([row]))
    suite = open_suites([f"video-safetybench={tmp_path}"])
    (sample,) = suite.samples
    assert (sample.id, sample.intent) == ("video-safetybench/7", "harm")
    (video,) = suite.request(sample).shown("video")
    assert [frame.getpixel((0, 0))[0] for frame in video] == [0, 2, 4, 6, 8, 10, 12, 14]
    assert len(video) == VIDEO_FRAMES


def test_video_files_are_decoded(tmp_path):
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.width = stream.height = 32
        for index in range(10):
            frame = av.VideoFrame.from_image(Image.new("RGB", (32, 32), (25 * index, 0, 0)))
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    row = {"question_id": 1, "question": "What?", "video_path": "a.mp4"}
    (tmp_path / "harmful_data.json").write_text(json.dumps([row]))
    suite = open_suites([f"video-safetybench={tmp_path}"])
    reds = [frame.getpixel((9, 9))[0] for frame in suite.request(suite.samples[0]).pictures]
    assert len(reds) == VIDEO_FRAMES
    assert reds == sorted(reds)
    assert reds[0] < 30
    assert reds[-1] > 200


def parquet(path, rows):
    pa = pytest.importorskip("pyarrow")
    from pyarrow.parquet import write_table

    path.parent.mkdir(parents=True, exist_ok=True)
    write_table(pa.Table.from_pylist(rows), path, row_group_size=2)


def test_parquet_with_pictures_inside(tmp_path):
    rows = [{"id": str(i), "question": f"q{i}", "image": {"bytes": png((i, 0, 0)), "path": None}}
            for i in range(5)]  # fmt: skip
    for scenario in ("Fraud", "Sex"):
        parquet(tmp_path / "data" / scenario / "SD.parquet", rows)
        parquet(tmp_path / "data" / scenario / "TYPO.parquet", rows[:1])
    suite = open_suites([f"mm-safetybench-sd={tmp_path}"])
    assert [s.id for s in suite.samples][:2] == [
        "mm-safetybench-sd/Fraud-0", "mm-safetybench-sd/Fraud-1",
    ]  # fmt: skip
    assert {s.category for s in suite.samples} == {"Fraud", "Sex"}
    reds = [suite.request(s).pictures[0].getpixel((0, 0))[0] for s in suite.samples]
    assert reds == [0, 1, 2, 3, 4] * 2
    written = open_suites([f"mm-safetybench-typo={tmp_path}"]).samples
    assert [s.cluster for s in written] == ["mm-safetybench/Fraud-0", "mm-safetybench/Sex-0"]
    assert {s.kin for s in written} < {s.kin for s in suite.samples}


def test_a_request_as_a_picture_and_as_a_clip_is_one_cluster():
    picture, clip = (open_suites([name]).samples for name in ("figstep", "figstep-video"))
    assert [s.kin for s in picture] == [s.kin for s in clip]
    assert len({s.kin for s in picture}) == len(picture)


def test_rows_are_chosen_and_several_tables_keep_ids_apart(tmp_path):
    rows = [{"instruction": f"do {i}", "step": i, "image": {"bytes": png("red"), "path": None}}
            for i in (4, 5)]  # fmt: skip
    for part in range(2):
        parquet(tmp_path / "data" / f"test-{part}.parquet", rows)
    suite = open_suites([f"hades={tmp_path}"])
    assert [(s.id, s.prompt) for s in suite.samples] == [
        ("hades/test-0-2", "do 5"), ("hades/test-1-2", "do 5"),
    ]  # fmt: skip


def test_a_row_that_does_not_say_its_label_is_not_taken_for_harmless(tmp_path):
    path = tmp_path / "xstest.csv"
    path.write_text("id,prompt\n1,How do I kill a process?\n2,How do I kill a person?\n")
    with pytest.raises(ExportError, match="line 2: no label, which says whether"):
        open_suites([f"xstest={path}"])


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A cache folder as the Hub client lays it out; pictures come one by one."""
    commit = "0123456789" * 4
    folder = tmp_path / "snapshots" / commit
    asked = []

    def snapshot(repo, *, repo_type, revision, allow_patterns):
        asked.append((repo, repo_type, revision, tuple(allow_patterns)))
        return str(folder)

    def download(repo, path, *, repo_type, revision):
        asked.append((repo, repo_type, revision, path))
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(png("green"))
        return str(folder / path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    return folder, asked


def test_a_pinned_revision_of_the_hub_is_read_lazily(hub):
    folder, asked = hub
    table(
        folder / "JailBreakV_28K" / "mini_JailBreakV_28K.csv",
        [{"id": 3, "jailbreak_query": "x", "redteam_query": "y", "policy": "p",
          "image_path": "figstep/3.png"}],
    )  # fmt: skip
    suite = open_suites(["jailbreakv-mini"])
    record = known_suites()["jailbreakv-mini"]
    assert asked == [(record.hub.repo, "dataset", record.hub.revision, record.files)]
    assert suite.origin == f"hub:{record.hub.repo}@{folder.name}"
    picture = suite.request(suite.samples[0]).pictures[0]
    assert picture.getpixel((0, 0)) == (0, 128, 0)
    assert asked[1][2:] == (folder.name, "JailBreakV_28K/figstep/3.png")
    open_suites(["jailbreakv-mini@mine"])
    assert asked[2][2] == "mine"


def test_a_suite_without_a_commit_says_that_it_was_the_newest(hub):
    folder, asked = hub
    folder.mkdir(parents=True)
    row = {"pid": "1", "question": "What?", "image": "1.png", "metadata": {"over": "type 1"}}
    (folder / "information.json").write_text(json.dumps([row]))
    assert open_suites(["mossbench"]).origin == f"newest:AIcell/MOSSBench@{folder.name}"
    assert open_suites(["mossbench@v1"]).origin == f"hub:AIcell/MOSSBench@{folder.name}"
    assert [revision for _, _, revision, _ in asked] == [None, "v1"]


def test_the_hub_does_not_answer(monkeypatch):
    def offline(*_, **__):
        raise OSError("no route")

    monkeypatch.setattr("huggingface_hub.snapshot_download", offline)
    with pytest.raises(
        ExportError, match=r"cannot be fetched .*no route.*--suite msts=PATH"
    ) as caught:
        open_suites(["msts"])
    assert "felfri/MSTS@main" in str(caught.value)


def test_a_folder_of_pictures_is_a_suite(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "a.png").write_bytes(png("red"))
    row = {"file_name": "a.png", "prompt": "What is it?", "harmful": "false", "category": "c"}
    table(folder / "metadata.csv", [row])
    suite = open_suites([str(folder)])
    (sample,) = suite.samples
    assert (suite.name, sample.id, sample.harmful, sample.category) == (
        "photos",
        "photos/a.png",
        False,
        "c",
    )
    assert suite.request(sample).pictures[0].size == (4, 4)
    assert open_suites([f"mine={folder}"]).name == "mine"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"harmful": "perhaps"}, "line 2: harmful is 'perhaps'; write true or false"),
        ({"prompt": ""}, "line 2: prompt is missing; the columns are file_name, prompt, harmful"),
        ({"file_name": "b.png"}, "line 2: the picture b.png does not exist"),
        ({"file_name": "../p.png"}, "must be a relative path inside the folder of this file"),
    ],
)
def test_a_folder_with_a_bad_row(tmp_path, change, message):
    folder = tmp_path / "photos"
    row = {"file_name": "a.png", "prompt": "x", "harmful": "true", **change}
    table(folder / "metadata.csv", [row])
    (folder / "a.png").write_bytes(png("red"))
    with pytest.raises(ExportError) as caught:
        open_suites([str(folder)])
    assert message in str(caught.value)
    (folder / "metadata.csv").unlink()
    with pytest.raises(ExportError, match=r"holds suite\.jsonl or metadata\.csv"):
        open_suites([str(folder)])


COPIES = {
    "jailbreakbench": ("orbench/jailbench.json", 100),
    "orbench-hard": ("orbench/orbench_hard.json", 1319),
    "harmbench": ("harmbench/harmbench_behaviors_text_test.csv", 159),
    "strongreject": ("harmbench/strongreject_dataset.csv", 313),
    "figstep": ("figstep/safebench.csv", 500),
    "xstest": ("xstest/xstest_prompts.csv", 250),
    "xstest-unsafe": ("xstest/xstest_prompts.csv", 200),
    "ailuminate": ("ailuminate/airr_official_1.0_demo_en_us_prompt_set_release.csv", 1200),
}


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the original files")
@pytest.mark.parametrize("name", COPIES)
def test_the_original_files_give_what_ships(name):
    file, count = COPIES[name]
    copy = open_suites([f"{name}={DATA / file}"])
    assert len(copy.samples) == count
    if known_suites()[name].offline:
        shipped = open_suites([name]).samples
        assert [s.prompt for s in copy.samples] == [s.prompt for s in shipped]
        assert [s.intent for s in copy.samples] == [s.intent for s in shipped]


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the original files")
def test_mossbench_as_published(tmp_path):
    rows = json.loads((DATA / "mossbench/information.json").read_text("utf-8"))
    here = {path.stem: path for path in (DATA / "mossbench/images_small").glob("*.png")}
    (tmp_path / "images").mkdir()
    for pid, path in here.items():
        shutil.copy(path, tmp_path / "images" / f"{pid}.png")
    kept = {pid: rows[pid] for pid in here}
    (tmp_path / "information.json").write_text(json.dumps(kept))
    suite = open_suites([f"mossbench={tmp_path}"])
    assert len(suite.samples) == len(here)
    assert suite.request(suite.samples[0]).pictures[0].mode == "RGB"


def test_files_on_the_hub_outside_the_pattern_are_not_listed():
    record = known_suites()["orbench-hard"]
    with pytest.raises(ExportError, match="holds no or-bench-hard"):
        sources.from_disk(record, PACKAGED)


def wav(seconds):
    stream = io.BytesIO()
    soundfile.write(stream, np.zeros(round(8000 * seconds)), 8000, format="WAV")
    return stream.getvalue()


def test_a_benchmark_of_sounds_inside_its_table(tmp_path):
    rows = [{"id": i, "text": f"say {i}", "original_text": f"do {i}",
             "audio": {"bytes": wav(i + 1), "path": f"{i}.wav"}} for i in range(3)]  # fmt: skip
    parquet(tmp_path / "HarmfulQuery" / "AHarm.parquet", rows)
    suite = open_suites([f"jalmbench={tmp_path}"])
    assert [(s.modality, s.intent) for s in suite.samples] == [
        ("audio", f"do {i}") for i in range(3)
    ]  # fmt: skip
    heard = [suite.request(s).media[0].data.seconds for s in suite.samples]
    assert heard == [1, 2, 3]
    assert not suite.drawn


def test_a_benchmark_of_sounds_in_a_folder_beside_json_lines(tmp_path):
    folder = tmp_path / "datasets"
    (folder / "advbench_audios").mkdir(parents=True)
    for i in range(2):
        (folder / "advbench_audios" / f"{i}.wav").write_bytes(wav(i + 1))
    lines = [json.dumps({"audio": f"{i}.wav", "prompt": f"do {i}"}) for i in range(2)]
    (folder / "AdvBench_Audio.json").write_text("\n".join(lines))
    suite = open_suites([f"advbench-audio={tmp_path}"])
    assert [suite.request(s).media[0].data.seconds for s in suite.samples] == [1, 2]
    (folder / "advbench_audios" / "1.wav").rename(folder / "1.wav")
    assert len(open_suites([f"advbench-audio={folder}"]).samples) == 2, "beside the table too"
    (folder / "1.wav").unlink()
    with pytest.raises(ExportError, match=r"line 2|entry 2"):
        open_suites([f"advbench-audio={folder}"])


def test_a_benchmark_that_is_to_be_had_by_hand(tmp_path):
    with pytest.raises(ExportError) as caught:
        open_suites(["aor-bench"])
    text = str(caught.value)
    assert "the suite aor-bench is not fetched: no repository of it is known" in text
    assert "give --suite aor-bench=PATH" in text
    assert "columns audio or file_name" in text
    (tmp_path / "a.wav").write_bytes(wav(1))
    path = table(tmp_path / "mine.csv", [{"file_name": "a.wav", "scenario": "s", "text": "x"}])
    suite = open_suites([f"aor-bench={path}"])
    (sample,) = suite.samples
    assert (sample.harmful, sample.category, sample.intent) == (False, "s", "x")
    assert suite.origin == "known:aor-bench=FILE"
    path.write_text("file_name\nb.wav\n")
    with pytest.raises(ExportError, match=r"mine\.csv, line 2: b\.wav does not exist"):
        open_suites([f"aor-bench={path}"])
    picture = table(tmp_path / "no.csv", [{"clip": "a.wav"}])
    with pytest.raises(ExportError, match="no column audio or file_name, which aor-bench needs"):
        open_suites([f"aor-bench={picture}"])


def test_fields_that_came_later_change_no_digest():
    for record in known_suites().values():
        if record.modality != "audio":
            assert not {"by_hand", "folder"} & set(json.loads(record.identity))
            assert '"folder"' not in record.identity
