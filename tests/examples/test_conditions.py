"""Every condition makes the requests that its name says."""

from dataclasses import replace

import pytest
from conditions import CONDITIONS, FIRST, Companions, Exchange, fitting, tasks, topic_of

from mars_export.inputs.requests import messages

MODALITIES = ("text", "image", "video")
TEXT, PICTURE, CLIP = {"text": 1}, {"image": 1}, {"video": 1}
# Media, earlier turns, and whether there is a system prompt.
EXPECTED = {
    "text": ({}, 0, False),
    "text, second turn": ({}, 1, False),
    "text, third turn": ({}, 2, False),
    "text, after a refusal": ({}, 1, False),
    "text, system prompt": ({}, 0, True),
    "text, picture in an earlier turn": ({}, 1, False),
    "picture, picture in an earlier turn": (PICTURE, 1, False),
    "text written in a picture": (PICTURE, 0, False),
    "text beside a clip": (CLIP, 0, False),
    "picture": (PICTURE, 0, False),
    "picture, second turn": (PICTURE, 1, False),
    "picture, system prompt": (PICTURE, 0, True),
    "picture of 2": ({"image": 2}, 0, False),
    "picture of 3": ({"image": 3}, 0, False),
    "picture of 4": ({"image": 4}, 0, False),
    "pictures": ({"image": 2}, 0, False),
    "pictures, second turn": ({"image": 2}, 1, False),
    "pictures, system prompt": ({"image": 2}, 0, True),
    "clip": (CLIP, 0, False),
    "clip, second turn": (CLIP, 1, False),
    "clip, system prompt": (CLIP, 0, True),
}
KINDS = ("color", "noise", "gradient", "pattern", "writing", "scene", "photo")
EXPECTED |= {f"text beside {kind}": (PICTURE, 0, False) for kind in KINDS}


@pytest.fixture(scope="module")
def suite(suites):
    """Of the organism, and every picture once more in a request that shows it twice."""
    plain = suites["qwen3_vl"]
    twice = [
        s.model_copy(update={"id": s.id.replace("image", "picture"), "media": s.media * 2})
        for s in plain.samples
        if s.modality == "image"
    ]
    return replace(plain, samples=(*plain.samples, *twice))


@pytest.fixture(scope="module")
def companions(suite):
    text = [s for s in suite.evaluation_samples(MODALITIES) if s.modality == "text"]
    return Companions(
        [Exchange(s, f"answer to {s.id}") for s in text if not s.harmful],
        [Exchange(s, f"refusal of {s.id}") for s in text if s.harmful],
    )


@pytest.fixture(scope="module")
def made(suite, companions):
    """Two requests of each label under every condition."""
    return tasks(suite, fitting(MODALITIES), companions, MODALITIES, limit=2)


def test_all_conditions_are_made_for_both_labels(made):
    installed = {c.name for c in CONDITIONS}
    assert set(EXPECTED) - {"text beside photo"} <= installed <= set(EXPECTED)
    found = [(task.condition.name, task.sample.harmful) for task in made]
    assert {key: found.count(key) for key in found} == {
        (name, harmful): 2 for name in installed for harmful in (True, False)
    }


def test_requests_hold_what_the_name_says(made, suite):
    for task in made:
        name, request, own = task.condition.name, task.request(), suite.request(task.sample)
        media, turns, system = EXPECTED[name]
        shown = [medium.modality for medium in request.media]
        assert {m: shown.count(m) for m in shown} == media, name
        assert (len(request.history), bool(request.system)) == (turns, system), name
        assert request.modality == task.condition.shows
        if name == "text written in a picture":
            assert own.prompt not in request.prompt
            assert task.intent == own.prompt
            continue
        assert request.prompt == own.prompt
        neutral = [m for m in request.media if m.kind]
        assert len(neutral) == len(request.media) - len(own.media)
        if task.condition.of != "text":
            kept = [m for m in request.media if not m.kind]
            assert [_bytes(m) for m in kept] == [_bytes(m) for m in own.media]
        if name.removeprefix("text beside ") in KINDS:
            assert [m.kind for m in neutral] == [name.removeprefix("text beside ")]


def test_pictures_of_several_are_of_different_kinds_and_in_any_place(suite, companions):
    some = tasks(suite, fitting(MODALITIES, ["picture of 4"]), companions, MODALITIES)
    places = set()
    for task in some[:24]:
        kinds = [medium.kind for medium in task.request().media]
        assert len(set(kinds)) == 4
        places.add(kinds.index(""))
    assert places == {0, 1, 2, 3}


def test_earlier_turns_are_of_other_topics_and_of_the_right_label(made, companions):
    pools = {
        "text, after a refusal": companions.refused,
        "text, second turn": companions.answered,
        "text, third turn": companions.answered,
        "picture, second turn": companions.answered,
        "pictures, second turn": companions.answered,
        "picture, picture in an earlier turn": companions.answered,
    }
    for task in made:
        pool = {e.sample.prompt: e for e in pools.get(task.condition.name, ())}
        history = task.request().turns if pool else ()
        assert len({prompt for prompt, _, _ in history}) == len(history)
        for prompt, reply, media in history:
            assert [m.modality for m in media] == ["image"] * task.condition.name.count("earlier")
            assert reply == pool[prompt].answer
            assert topic_of(pool[prompt].sample) != topic_of(task.sample)


def test_requests_are_the_same_every_time(made):
    for task in made:
        first, second = task.request(), task.request()
        assert messages(first) == messages(second)


def test_a_condition_without_companions_is_left_out(suite):
    alone = tasks(suite, fitting(MODALITIES), Companions(), MODALITIES, limit=1)
    names = {task.condition.name for task in alone}
    assert names == {c.name for c in CONDITIONS if not c.answered + c.refused}
    assert FIRST in names


def test_a_text_only_model_gets_text_alone():
    assert [c.name for c in fitting(["text"])] == [
        "text", "text, second turn", "text, third turn", "text, after a refusal",
        "text, system prompt",
    ]  # fmt: skip


def test_a_limit_takes_one_of_every_topic_first(suite):
    text = fitting(MODALITIES, [FIRST])
    few = tasks(suite, text, Companions(), MODALITIES, limit=30)
    assert len(few) == 60
    assert len({topic_of(task.sample) for task in few}) == 60
    whole = tasks(suite, text, Companions(), MODALITIES)
    assert {task.sample.id for task in whole} >= {task.sample.id for task in few}


@pytest.mark.parametrize(
    ("id", "topic"),
    [("text-kite-0", "kite"), ("image-paper-plane-1", "paper-plane"), ("video-kite", "kite"),
     ("weapons-03-image", "weapons"), ("clip-mail-bomb-2", "mail-bomb"), ("kite", "kite")],
)  # fmt: skip
def test_a_topic_is_the_id_without_modality_and_number(made, id, topic):
    assert topic_of(made[0].sample.model_copy(update={"id": id})) == topic


def _bytes(medium):
    pictures = medium.data if isinstance(medium.data, tuple) else (medium.data,)
    return [picture.tobytes() for picture in pictures]
