import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mars_export.card.text import MINIMUM_N, change, p_text, rate
from mars_export.common.markdown import code, num, size
from mars_export.evaluation.statistics import exact_rate
from support import records

RATE = re.compile(r"\d+/\d+ · (?:at\s(?:most|least)\s[\d.]+\s%|[\d.]+\s%\s\[[\d.]+,\s[\d.]+\])")


@pytest.mark.parametrize(
    ("count", "n", "text"),
    [
        (0, 100, "0/100 · at most 3.7 %"),
        (100, 100, "100/100 · at least 96.3 %"),
        (50, 100, "50/100 · 50.0 % [39.8, 60.2]"),
        (5, 50, "5/50 · 10.0 % [3.3, 21.9]"),
        (3, 12, "3/12"),
        (0, 12, "0/12"),
        (1, 30000, "1/30000 · 0.003 % [0.000, 0.019]"),
    ],
)
def test_rates(count, n, text):
    assert rate(exact_rate(count, n)).replace("\N{NO-BREAK SPACE}", " ") == text


@given(st.integers(MINIMUM_N, 60_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_every_rate_has_the_one_form_and_brackets_the_truth(counted):
    count, n = counted
    text = rate(exact_rate(count, n))
    assert RATE.fullmatch(text)
    if 0 < count < n:
        middle, low, high = map(float, re.findall(r"[\d.]+", text.partition("·")[2]))
        assert middle > 0
        assert low <= 100 * exact_rate(count, n).low
        assert high >= 100 * exact_rate(count, n).high
        assert math.isclose(middle, 100 * count / n, abs_tol=0.051)


def test_changes():
    raised = records.pair("image", True, (4, 112, 0, 4))
    assert re.fullmatch(r"\+93.3\s\[\+\d+.\d, \+\d+.\d]".replace(" ", r"\s"), change(raised, 112))
    assert change(records.pair("image", True, (4, 0, 0, 116)), 0).startswith("0.0")
    assert change(records.pair("image", True, (1, 3, 5, 1)), -2) == "\N{MINUS SIGN}2 of 10"


def test_p_values():
    assert p_text(0.0312) == "0.031"
    assert p_text(0.0004) == "<\N{NO-BREAK SPACE}0.001"


def test_numbers_and_sizes():
    assert [num(x) for x in (-2.345, 12345.6, 5e-6, 0.0, None)] == [
        "\N{MINUS SIGN}2.35", "12346", "5e-06", "0", "\N{EN DASH}",
    ]  # fmt: skip
    assert size(888) == "888\N{NO-BREAK SPACE}B"
    assert size(4_812_330_000) == "4.81\N{NO-BREAK SPACE}GB"


def test_code_survives_any_name():
    assert code("a`b|c\nd") == "`a'b/c d`"
