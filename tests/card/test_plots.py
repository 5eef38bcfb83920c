import io

import matplotlib
import numpy as np
import pytest
from PIL import Image

from mars_export.card.data import CardData
from mars_export.card.figures import CONTROLS, GATES, REFUSAL
from mars_export.common.plotting import png
from mars_export.methods.mars.card import CONDITIONS, SCORES, SEPARATION
from support import records

MANIFEST, REPORT = records.manifest(), records.controlled()
PATHS = (REFUSAL, CONTROLS, GATES, CONDITIONS, SCORES, SEPARATION)


def planned(manifest, report):
    return tuple(CardData.of(manifest, report).plots)


def draw(manifest, report):
    return {path: png(plot) for path, plot in CardData.of(manifest, report).plots.items()}


@pytest.fixture(scope="module")
def drawn():
    return draw(MANIFEST, REPORT)


def test_what_is_drawn(drawn):
    assert set(drawn) == set(PATHS) == set(planned(MANIFEST, REPORT))
    assert planned(MANIFEST, None) == PATHS[-3:]
    assert planned(MANIFEST, records.report(gates={})) == (REFUSAL, *PATHS[-3:])
    assert planned(MANIFEST, records.report(unknown=3)) == (GATES, *PATHS[-3:])


@pytest.mark.parametrize("path", PATHS)
def test_pictures_are_readable_on_any_ground(drawn, path):
    picture = Image.open(io.BytesIO(drawn[path]))
    assert picture.width == 1200
    assert 400 <= picture.height <= 1200
    pixels = np.asarray(picture.convert("RGBA"))
    assert (pixels[..., 3] == 255).all()
    assert (pixels[[0, -1], :, :3] == 255).all()
    assert (pixels[..., :3] < 128).any(axis=-1).mean() > 0.005
    assert picture.info.keys() <= {"dpi"}


def test_nothing_is_cut_off(drawn):
    for data in drawn.values():
        pixels = np.asarray(Image.open(io.BytesIO(data)).convert("L"))
        assert (pixels[:, :4] == 255).all()
        assert (pixels[:, -4:] == 255).all()


def test_the_same_records_give_the_same_bytes_whatever_the_user_set(drawn):
    with matplotlib.rc_context({"font.size": 30, "figure.facecolor": "black"}):
        assert draw(MANIFEST, REPORT) == drawn
        assert matplotlib.rcParams["font.size"] == 30


def test_the_report_moves_the_marks(drawn):
    other = {**records.OUTCOMES, (True, "image"): (60, 0, 0, 60)}
    worse = records.variant("noise", records.NOISE)
    moved = draw(MANIFEST, records.controlled([worse], outcomes=other))
    assert all(moved[path] != drawn[path] for path in (REFUSAL, CONTROLS))


def test_records_with_little_in_them_still_draw():
    scores = [s.model_copy(update={"groups": []}) for s in records.calibration().record.scores]
    given = {"projections": [], "margins": [], "scores": scores}
    record = records.calibration(("text", "image"), **given)
    closed = {"harmful text": [0.0, 0.0], "harmless text": []}
    few = draw(records.manifest(calibration=record), records.report(gates={"on": closed}))
    assert set(few) == {REFUSAL, CONDITIONS, SCORES, GATES}
    none = records.calibration(conditions=[])
    assert CONDITIONS not in planned(records.manifest(calibration=none), None)
