"""Every check is able to fail, each at its limit."""

import pytest

from mars_export.integrations.finetune.record import Group, Snapshot
from mars_export.integrations.finetune.verdict import findings, verdict

N = 32
REACH = 0.5


def group(modality, harmful, **changes):
    refused = N if harmful else 0
    fields = {
        "modality": modality, "harmful": harmful, "n": N, "gate": 1.0 if harmful else -0.1,
        "open": refused, "refused_off": refused, "refused_on": refused,
    }  # fmt: skip
    return Group(**{**fields, **changes})


def snapshot(changes=None, shift=0.0, usable=(96, 32)):
    changes = changes or {}
    cells = [(m, h) for m in ("text", "image") for h in (True, False)]
    return Snapshot(
        name="x",
        cosine=1.0,
        shift={"image": shift},
        groups=[group(m, h, **changes.get((m, h), {})) for m, h in cells],
        usable={"harmful": usable, "harmless": (96, 32)},
    )


def judged(now, base=None, cosine=1.0):
    found = findings(now, base, cosine, REACH)
    return verdict(now, found), [f.name for f in found if not f.holds]


def test_nothing_moved():
    assert judged(snapshot()) == ("holds", [])
    assert judged(snapshot(), snapshot()) == ("holds", [])


@pytest.mark.parametrize(
    ("changes", "kept", "broken", "name"),
    [
        (("text", True, "gate"), 0.5, 0.49, "gate of harmful text"),
        (("text", False, "open"), 5, 6, "open gate"),
        (("image", False, "open"), 5, 6, "open gate"),
        (("text", True, "refused_on"), 29, 28, "refusal"),
        (("text", False, "refused_on"), 3, 4, "refusal"),
    ],
)
def test_limits_of_a_group(changes, kept, broken, name):
    modality, harmful, field = changes
    assert judged(snapshot({(modality, harmful): {field: kept}})) == ("holds", [])
    assert judged(snapshot({(modality, harmful): {field: broken}})) == ("recalibrate", [name])


def test_limits_of_direction_and_shift():
    assert judged(snapshot(), cosine=0.91) == ("holds", [])
    assert judged(snapshot(), cosine=0.89) == ("recalibrate", ["direction"])
    for sign in (1, -1):
        assert judged(snapshot(shift=0.24 * sign)) == ("holds", [])
        assert judged(snapshot(shift=0.26 * sign)) == ("recalibrate", ["shift"])


def test_beside_visuals_refusal_is_compared_with_the_base():
    weak = snapshot({("image", True): {"refused_on": 10}})
    assert judged(weak) == ("holds", [])
    assert judged(weak, weak) == ("holds", [])
    assert judged(weak, snapshot()) == ("recalibrate", ["refusal"])


@pytest.mark.parametrize("usable", [(15, 32), (96, 4)])
def test_what_a_calibration_would_turn_down_is_lost(usable):
    assert judged(snapshot(usable=usable))[0] == "lost"
