"""Prompt sets: the packaged one, the user's files, the split, and overlap."""

import csv
import hashlib
import io
import json
import subprocess
import sys
from importlib.resources import files

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mars_export.common.errors import ExportError
from mars_export.evaluation.overlap import overlap
from mars_export.evaluation.suite import read_suite
from mars_export.inputs.prompts import from_files, from_suite, packaged
from mars_export.inputs.readers import read_prompts

BAD = [f"how to harm number {i}" for i in range(40)]
GOOD = [f"how to bake number {i}" for i in range(40)]


def lines(path, prompts):
    path.write_text("\n".join(prompts) + "\n", encoding="utf-8")
    return path


def every(prompts):
    return {*prompts.direction, *prompts.decision, *prompts.check}


def test_the_packaged_sets_are_what_their_provenance_says():
    folder = files("mars_export.inputs.data")
    provenance = json.loads((folder / "provenance.json").read_text("utf-8"))
    assert provenance["license"] == "Apache-2.0"
    for name, entry in provenance["files"].items():
        raw = (folder / name).read_bytes()
        assert hashlib.sha256(raw).hexdigest() == entry["sha256"]
        prompts = [line for line in raw.decode().splitlines() if not line.startswith("#")]
        assert len(set(prompts)) == len(prompts) == entry["prompts"] >= 500


def test_the_packaged_split_is_seeded_and_disjoint():
    sets = packaged(seed=3)
    for one in (sets.harmful, sets.harmless):
        parts = (one.direction, one.decision, one.check)
        assert min(map(len, parts)) >= 40
        assert len(set().union(*parts)) == sum(map(len, parts))
    assert sets == packaged(seed=3)
    assert sets.harmful.direction != packaged(seed=4).harmful.direction
    assert overlap(sets.harmful.direction, sets.harmful.decision + sets.harmful.check).near == 0


def test_a_small_set_is_split_three_to_one(tmp_path):
    sets = from_files(lines(tmp_path / "bad.txt", BAD), lines(tmp_path / "good.txt", GOOD))
    parts = (sets.harmful.direction, sets.harmful.decision, sets.harmful.check)
    assert [len(part) for part in parts] == [20, 10, 10]
    assert every(sets.harmless) == set(GOOD)
    assert sets.harmful.sha256 == hashlib.sha256((tmp_path / "bad.txt").read_bytes()).hexdigest()


def test_files_of_the_same_name_are_two_files(tmp_path):
    (tmp_path / "bad").mkdir()
    (tmp_path / "good").mkdir()
    sets = from_files(
        lines(tmp_path / "bad" / "prompts.txt", BAD), lines(tmp_path / "good" / "prompts.txt", GOOD)
    )
    assert every(sets.harmful) == set(BAD)
    assert every(sets.harmless) == set(GOOD)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("p.txt", "# a comment\n\n" + "\n".join(BAD)),
        ("p.json", json.dumps(BAD)),
        ("p.json", json.dumps([{"instruction": p, "category": None} for p in BAD])),
        ("p.jsonl", "\n".join(json.dumps({"prompt": p}) for p in BAD)),
        ("p.jsonl", "\n\n".join(json.dumps(p) for p in BAD)),
        ("p.csv", "behaviour\n" + "\n".join(f'"{p}"' for p in BAD)),
        ("p.csv", "Behavior,Tags\n" + "\n".join(f'"{p}",x' for p in BAD)),
        ("p.csv", "id,goal\n" + "\n".join(f"{i},{p}" for i, p in enumerate(BAD))),
    ],
)
def test_formats(tmp_path, name, text):
    path = tmp_path / name
    path.write_text("\ufeff" + text, encoding="utf-8")
    sets = from_files(path, lines(tmp_path / "good.txt", GOOD))
    assert every(sets.harmful) == set(BAD)


def test_separators_inside_a_json_string_end_no_line(tmp_path):
    path = tmp_path / "p.jsonl"
    prompts = [f"{prompt}\u2028and\u0085more" for prompt in BAD]
    rows = [json.dumps({"prompt": prompt}, ensure_ascii=False) for prompt in prompts]
    path.write_text("\n".join(rows), encoding="utf-8")
    sets = from_files(path, lines(tmp_path / "good.txt", GOOD))
    assert every(sets.harmful) == set(prompts)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("p.jsonl", '{"prompt": "a"}\n{"prompt": \n', "p.jsonl, line 2: not JSON"),
        ("p.jsonl", '{"prompt": "a"}\n{"text": "b"}\n', "p.jsonl, line 2: no prompt"),
        ("p.json", '["a",\n "b"\n "c"]', "p.json, line 3: not JSON"),
        ("p.json", '["a", 3]', "p.json, entry 2: no prompt"),
        ("p.json", '{"prompt": "a"}', "must hold one list"),
        ("p.csv", "text\nhello\n", "p.csv, line 1: no column prompt"),
        ("p.csv", 'prompt,x\nhello,1\n"",2\n', "p.csv, line 3: no prompt"),
        ("p.docx", "hello", "cannot read .docx files; use .txt"),
        ("p.txt", "one\ntwo\n", "p.txt holds 2 distinct prompts; give at least 24"),
        ("p.txt", "", "p.txt holds 0 distinct prompts"),
        ("p.txt", "\n".join(["Same  prompt", "same prompt"] * 40), "holds 1 distinct"),
        ("p.txt", "\n".join([*BAD, GOOD[7].upper()]), "1 prompts are in both p.txt and good.txt"),
    ],
)
def test_malformed_files_are_named_with_their_line(tmp_path, name, text, message):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ExportError, match=message):
        from_files(path, lines(tmp_path / "good.txt", GOOD))


def test_unreadable_files_are_named(tmp_path):
    good = lines(tmp_path / "good.txt", GOOD)
    with pytest.raises(ExportError, match=r"absent\.txt: No such file"):
        from_files(tmp_path / "absent.txt", good)
    (tmp_path / "latin.txt").write_bytes("caf\xe9".encode("latin-1"))
    with pytest.raises(ExportError, match=r"latin\.txt: not UTF-8 text \(byte 3\)"):
        from_files(tmp_path / "latin.txt", good)


def suite(path, prompts):
    rows = [
        {"id": str(i), "modality": m, "harmful": h, "split": s, "prompt": p}
        | ({"image": "a.png"} if m == "image" else {})
        for i, (m, h, s, p) in enumerate(prompts)
    ]
    return lines(path, [json.dumps(row) for row in rows])


def test_a_suite_gives_the_text_of_its_calibration_split(tmp_path):
    rows = [("text", True, "calibration", p) for p in BAD[:30]]
    rows += [("text", False, "calibration", p) for p in GOOD[:30]]
    rows += [("text", True, "evaluation", p) for p in BAD[30:]]
    rows += [("image", False, "calibration", p) for p in GOOD[30:]]
    sets = from_suite(suite(tmp_path / "suite.jsonl", rows))
    assert every(sets.harmful) == set(BAD[:30])
    assert every(sets.harmless) == set(GOOD[:30])


def test_a_suite_without_labels_is_refused(tmp_path):
    path = lines(tmp_path / "suite.jsonl", ['{"prompt": "a", "modality": "text"}'])
    with pytest.raises(ExportError, match=r"suite\.jsonl, line 1: harmful is missing"):
        from_suite(path)


def test_prompts_and_options_do_without_torch():
    modules = "prompts", "requests", "template", "stimuli"
    code = "import sys, mars_export.calibration.data; " + "; ".join(
        f"import mars_export.inputs.{name}" for name in modules
    )
    heavy = "print(sorted({'torch', 'transformers', 'numpy', 'PIL'} & set(sys.modules)))"
    run = subprocess.run(
        [sys.executable, "-c", f"{code}; {heavy}"], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "[]"


ODD = "\u2028\u2029\u0085\v\f\x1c\x1d\x1e\ufeff\u200b\u3000\t€😀é"
WORDS = st.text(st.sampled_from("ab ,;\"'{}[]#" + ODD), min_size=1, max_size=12)


@settings(max_examples=60, deadline=None, derandomize=True, database=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
@given(st.lists(WORDS, min_size=30, max_size=30), st.sampled_from(["\n", "\r\n", "\r"]),
       st.sampled_from(["txt", "jsonl", "json", "csv"]), st.booleans())  # fmt: skip
def test_a_line_ends_where_a_line_ends_and_nowhere_else(tmp_path, words, end, kind, mark):
    prompts = [f"{number} {word}x" for number, word in enumerate(words)]
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([["prompt"], *([p] for p in prompts)])
    text = {
        "txt": "\n".join(prompts),
        "jsonl": "\n".join(json.dumps(p, ensure_ascii=False) for p in prompts),
        "json": json.dumps(prompts, ensure_ascii=False, indent=1),
        "csv": out.getvalue(),
    }[kind]
    path = tmp_path / f"p.{kind}"
    path.write_bytes(("\ufeff" * mark + text.replace("\n", end)).encode())
    read = read_prompts(path)
    assert [prompt.text for prompt in read] == [prompt.strip() for prompt in prompts]
    if kind in ("txt", "jsonl"):
        assert read[7].where == f"{path}, line 8"


def test_every_bad_line_is_named(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text('"a"\n"\\ud800"\n{"text": "b"}\n{\n"  "\n' + "{\n" * 20 + '"a\\u0000b"')
    with pytest.raises(ExportError) as caught:
        read_prompts(path)
    text = str(caught.value)
    assert text.startswith(f"{path} has 25 problems: ")
    assert text.endswith("; and 15 more")
    assert "\n" not in text


def test_what_is_no_file_of_prompts(tmp_path):
    good = lines(tmp_path / "good.txt", GOOD)
    (tmp_path / "folder").mkdir()
    for name, message in [
        ("folder", "this is a folder"),
        ("nope", "nope: No such file"),
        ("god.txt", r"No such file or directory; is it good\.txt\?"),
    ]:
        with pytest.raises(ExportError, match=message):
            from_files(tmp_path / name, good)


def test_calibration_reads_a_suite_as_evaluation_does(tmp_path):
    rows = [{"prompt": p, "harmful": p in BAD, "split": "calibration"} for p in [*BAD, *GOOD]]
    path = lines(tmp_path / "suite.jsonl", [json.dumps(row) for row in rows])
    sets = from_suite(path)
    assert (every(sets.harmful), every(sets.harmless)) == (set(BAD), set(GOOD))
    assert [s.prompt for s in read_suite(path).samples if s.harmful] == BAD
    assert sets.harmless.places[GOOD[0]] == f"{path}, line 41"
