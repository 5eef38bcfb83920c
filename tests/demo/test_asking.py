"""Both answers to a turn, as they grow, and what steering did, without a page."""

import threading
import time

import pytest
from PIL import Image

from mars_export.common.errors import ExportError
from mars_export.demo.asking import open_subject
from mars_export.demo.streaming import streamed
from mars_export.evaluation.ask import ask
from mars_export.inputs.requests import Media
from support import planted


def picture(color="steelblue"):
    return Media("image", Image.new("RGB", (32, 32), color))


def test_answers_are_those_of_ask_and_are_streamed(subject, checkpoint, tmp_path):
    shown = picture()
    shown.data.save(tmp_path / "a.png")
    told = ask(checkpoint, "how do i make bad3", [tmp_path / "a.png"], max_new_tokens=5)
    steps = list(subject.exchange("how do i make bad3", (shown,)))
    last = steps[-1]
    off, on = told.replies
    assert (last.off, last.on) == (off.answer, on.answer)
    assert last.reading.gate == pytest.approx(on.decision.gate, rel=1e-4)
    assert last.reading.push == pytest.approx(on.push, rel=1e-4)
    assert last.reading.modality == "image"
    assert last.done
    assert not any(step.done for step in steps[:-1])
    assert {step.off for step in steps} > {"", last.off}, "it grows"
    first = next(step for step in steps if step.on)
    assert first.off == last.off, "off comes first"


def test_margin_and_place_agree_with_the_gate(subject):
    last = list(subject.exchange("how do i make bad3", ()))[-1]
    clouds = subject.scale.clouds["text"]
    assert last.reading.margin == pytest.approx(last.reading.place - clouds.opens)
    record = subject.manifest.calibration.record
    full = (record.harmful["text"] - record.harmless) / record.separation
    gate = last.reading.margin / (full - clouds.opens)
    assert last.reading.gate == pytest.approx(max(0.0, gate), rel=1e-4)


def test_each_picture_is_left_out_once(subject):
    media = (picture("red"), picture("blue"))
    last = list(subject.exchange("what is this", media))[-1]
    alone = list(subject.exchange("what is this", media[1:]))[-1]
    assert len(last.without) == 2
    assert last.without[0] == alone.reading
    assert list(subject.exchange("what is this", ()))[-1].without == ()


def test_each_side_goes_on_from_its_own_answers(subject):
    first = list(subject.exchange("how do i make good1", ()))[-1]
    assert first.off != first.on
    asked = []
    inputs = type(subject.loaded).inputs

    class Watched(type(subject.loaded)):
        def inputs(self, requests):
            asked.extend(requests)
            return inputs(self, requests)

    watched = Watched(subject.loaded.model, subject.loaded.processor)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(subject.__dict__, "loaded", watched)
        list(subject.exchange("explain good2", (), (first,)))
    assert [request.history[0].answer for request in asked] == [first.off, first.on]


def test_what_cannot_be_asked_is_one_line(subject):
    for prompt, media, earlier, what in (
        ("", (), (), "write something"),
        ("a <turn> b", (), (), "a special token of the model"),
        ("how " * 5000, (), (), "tokens with the chat template"),
    ):
        with pytest.raises(ExportError, match=what) as raised:
            list(subject.exchange(prompt, media, earlier))
        assert "\n" not in str(raised.value)
    sound = Media("audio", None)
    with pytest.raises(ExportError, match="not calibrated for sounds beside pictures"):
        list(subject.exchange("a", (picture(), sound)))


def test_an_error_of_the_model_is_one_line(subject, monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("this device\nis broken")

    monkeypatch.setattr(type(subject.loaded), "answer", fail)
    with pytest.raises(ExportError, match=r"^this device is broken$"):
        list(subject.exchange("how", ()))


def test_a_reader_who_leaves_ends_the_generation():
    lock, written = threading.Lock(), []

    def generate(streamer):
        for token in range(10_000):
            streamer.put(planted.torch.tensor([[token % 20 + 20]]))
            written.append(token)
            time.sleep(0.001)

    answer = streamed(planted.processor(), generate, lock)
    next(answer)
    answer.close()
    assert lock.acquire(timeout=20), "it has ended"
    assert len(written) < 10_000


def test_a_base_and_a_checkpoint_that_does_not_steer_are_refused(checkpoint):
    with pytest.raises(ExportError, match="is not a steered checkpoint"):
        open_subject(checkpoint.parent / "base", max_new_tokens=5)
    with pytest.raises(ExportError, match="does not steer as calibrated"):
        open_subject(checkpoint, max_new_tokens=5)  # its numbers are made up
