"""Labeled requests to tune on: two halves that share no topic, and what is too little."""

import numpy as np
import pytest
from PIL import Image

from mars_export.common.errors import ExportError
from mars_export.inputs.requests import Media, Request
from mars_export.inputs.sounds import Sound
from mars_export.inputs.tuning import LabeledRequest, divided, request_digest


def labeled(number, label, topic=None, modality="image"):
    request = Request(f"what is {number}", (Media(modality, Image.new("RGB", (2, 2))),))
    return LabeledRequest(request, label, modality, topic or f"{label} {number}")


def some(harmful, harmless, each=1, **more):
    return [
        labeled(i, label, f"{label} {i // each}", **more)
        for label, count in (("harmful", harmful), ("harmless", harmless))
        for i in range(count)
    ]


def halves(requests, seed=0):
    return divided("own", "0" * 64, "", requests, seed)


def test_halves_share_no_topic_and_are_as_large():
    requests = [*some(24, 30, each=3), *some(12, 16, each=2, modality="video")]
    tuning = halves(requests)
    first, second = ({r.topic for r in half} for half in (tuning.fit, tuning.held_out))
    assert not first & second
    assert {id(r) for r in (*tuning.fit, *tuning.held_out)} == {id(r) for r in requests}
    for modality, labels in tuning.counts(tuning.fit).items():
        for label, count in labels.items():
            assert abs(count - len(tuning.half(True, modality, label))) <= 3


def test_the_split_is_seeded():
    topics = [[r.topic for r in halves(some(20, 20), seed).fit] for seed in (0, 0, 1)]
    assert topics[0] == topics[1] != topics[2]


@pytest.mark.parametrize(
    ("requests", "said"),
    [
        (some(7, 20), "7 harmful image requests; give at least 8"),
        (some(20, 0), "no harmless image requests"),
        ([*some(20, 20), labeled(0, "harmful", modality="video")], "1 harmful video requests"),
        (some(12, 12, each=12), "too few topics"),
    ],
)
def test_too_little_is_one_line(requests, said):
    with pytest.raises(ExportError, match=said) as caught:
        halves(requests)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("--tune-on own: ")


def test_the_same_words_about_the_same_pixels_are_the_same_request():
    def digest(words, color, size=(2, 2)):
        return request_digest(Request(words, (Media("image", Image.new("RGB", size, color)),)))

    assert digest("What is this?", "red") == digest("what is  this", "red")
    assert digest("What is this?", "red") != digest("What is this?", "blue")
    assert digest("What is this?", "red") != digest("What is that?", "red")
    assert digest("What is this?", "red", (4, 1)) != digest("What is this?", "red")


def test_a_request_with_a_sound_is_known_by_its_samples():
    def digest(samples, rate=8000):
        sound = Sound(np.array(samples, np.float32), rate)
        return request_digest(Request("what is this", (Media("audio", sound),)))

    assert digest([0.1, 0.2]) == digest([0.1, 0.2])
    assert len({digest([0.1, 0.2]), digest([0.1, 0.3]), digest([0.1, 0.2], 16000)}) == 3
