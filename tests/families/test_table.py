"""The table says what the results say, and is not made of failures or gaps."""

import pytest

from mars_export.families import families, results
from support.table import BEGIN, END, behaviours, record, replace_between, table

RESULTS = {
    "versions": {"torch": "1", "transformers": "2"},
    "families": {
        "a": {"loads": "passed", "mixes": "refused natively: no"},
        "b": {"loads": "passed", "mixes": "does not apply: text"},
    },
}
NAMES = {"a": "A 1", "b": "B 2"}


def test_table_has_a_row_for_each_family_and_a_legend():
    lines = table(RESULTS, NAMES).splitlines()
    assert lines[0] == "| family | `model_type` | 1 | 2 |"
    assert lines[2:4] == ["| A 1 | `a` | yes | native |", "| B 2 | `b` | yes | - |"]
    assert lines[5:7] == ["1. loads", "2. mixes"]
    assert "torch 1, transformers 2" in lines[-1]


@pytest.mark.parametrize("outcome", ["failed", "skipped"])
def test_failures_make_no_table(outcome):
    broken = {**RESULTS, "families": {**RESULTS["families"], "a": {"loads": outcome, "mixes": ""}}}
    with pytest.raises(ValueError, match=outcome):
        table(broken, NAMES)


def test_gaps_make_no_table():
    with pytest.raises(ValueError, match="not tested: c loads, c mixes"):
        table(RESULTS, {**NAMES, "c": "C"})
    with pytest.raises(ValueError, match="not tested: anything"):
        table({"versions": {}, "families": {}}, {})


def test_only_the_part_between_the_marks_is_replaced():
    text = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    assert replace_between(text, "new") == f"before\n{BEGIN}\nnew\n{END}\nafter\n"
    with pytest.raises(ValueError, match="once each"):
        replace_between("nothing", "new")


def test_record_has_a_line_for_each_family():
    assert [line[:20] for line in record(RESULTS).splitlines()] == [
        '{"model_type": "a", ',
        '{"model_type": "b", ',
    ]
    assert behaviours(RESULTS) == ["loads", "mixes"]


def test_the_packaged_record_covers_every_family():
    told = results.tested()
    assert set(told) == set(families())
    columns = {tuple(line.behaviours) for line in told.values()}
    assert len(columns) == 1
    assert all(line.passed + line.natively_refused + line.not_applicable for line in told.values())
    assert not any(line.failed for line in told.values())
