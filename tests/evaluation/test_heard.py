"""Spoken requests on a real processor and a tiny model: asked, checked, evaluated, on a card."""

import json
import re

import pytest
import soundfile
import transformers
from PIL import Image

from mars_export.card.render import write_card
from mars_export.card.snippets import loading
from mars_export.common.errors import ExportError
from mars_export.evaluation import evaluate as runner
from mars_export.evaluation.ask import ask
from mars_export.evaluation.engines import in_process
from mars_export.evaluation.judges.base import Exchange
from mars_export.evaluation.options import EvaluationOptions
from mars_export.evaluation.report import SelfCheck
from mars_export.evaluation.suite import read_suite
from mars_export.evaluation.variants import VARIANTS
from mars_export.inputs.limits import Asked, check_requests
from mars_export.inputs.requests import Request
from support import heard, listeners, zoo
from support.heard import tone

pytestmark = pytest.mark.skipif(
    bool(reason := zoo.family(heard.MODEL_TYPE).lacking), reason=reason or ""
)


@pytest.fixture(scope="module")
def steered(tmp_path_factory):
    return heard.export_heard(tmp_path_factory.mktemp("heard"), origin=-1e6)


def saved(path, seconds):
    sound = tone(seconds).data
    soundfile.write(path, sound.samples, sound.rate)
    return path


def test_a_sound_may_be_asked_about(steered, tmp_path):
    sound = saved(tmp_path / "a.wav", 0.5)
    told = ask(steered, "what is this", sounds=[sound], max_new_tokens=2, device="cpu")
    assert told.shown == [str(sound)]
    assert told.replies[1].decision.modality == "audio"


@pytest.mark.parametrize("task", ["any-to-any", "image-text-to-text"])
def test_pipelines_hear_and_are_steered(steered, tmp_path, task):
    asked = [{"type": "text", "text": "what is this"}]
    asked.insert(0, {"type": "audio", "audio": str(saved(tmp_path / "a.wav", 0.5))})
    pipe = transformers.pipeline(task, model=str(steered), trust_remote_code=True, device="cpu")
    options = {"max_new_tokens": 2, "do_sample": False}
    pipe([{"role": "user", "content": asked}], **options)
    ((position,),) = pipe.model.steering.last
    assert position.modality == "audio"
    assert position.strength > 0
    picture = {"type": "image", "image": Image.new("RGB", (32, 32))}
    with pytest.raises(ValueError, match="audio beside pictures"):
        pipe([{"role": "user", "content": [picture, *asked]}], **options)


@pytest.mark.parametrize("task", ["automatic-speech-recognition", "audio-classification"])
def test_pipelines_of_other_heads_do_not_load(steered, task):
    with pytest.raises(ValueError, match="Could not load model"):
        transformers.pipeline(task, model=str(steered), trust_remote_code=True, device="cpu")


@pytest.mark.parametrize(
    ("shown", "message"),
    [
        ({"images": ["a.wav"]}, "a.wav: not a readable picture"),
        ({"sounds": ["b.wav"]}, "--audio: there is no file {}/b.wav; is it a.wav?"),
        ({"sounds": ["a.png"]}, "a.png: not a readable sound"),
        ({"sounds": ["a.wav"], "images": ["a.png"]}, "--audio: steering is not calibrated for s"),
    ],
)
def test_what_cannot_be_asked_about_is_one_line(steered, tmp_path, shown, message):
    saved(tmp_path / "a.wav", 0.5)
    Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
    files = {key: [tmp_path / name for name in names] for key, names in shown.items()}
    with pytest.raises(ExportError) as caught:
        ask(steered, "what is this", **files, device="cpu")
    assert message.format(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_sounds_that_a_processor_refuses_are_named():
    def asked(number, *media):
        return Asked(f"s.jsonl, line {number}", "show me", lambda: Request("show me", media))

    good = [asked(1), asked(2, tone(0.5)), asked(3, tone(1, 8000), tone(2))]
    processor = listeners.processor(heard.MODEL_TYPE)
    check_requests(processor, 1000, good)
    with pytest.raises(ExportError) as caught:
        check_requests(processor, 1000, [*good, asked(4, tone(8.5, 8000))])
    text, name = str(caught.value), "Qwen2_5OmniProcessor"
    assert text.startswith(f"s.jsonl, line 4: {name} refuses a sound of 8.5 s at 8000 Hz: ")
    assert text.endswith(
        f"longer than the {listeners.CHUNK} s that {name} takes; cut it into shorter ones"
    )


def test_a_judge_that_cannot_hear_is_told_the_intent():
    spoken = Exchange("Do what is said.", "Sure.", "Bake a cake.", heard=True)
    assert spoken.question == "Do what is said.\n\n[What the recording asks for:] Bake a cake."
    alone = spoken._replace(prompt="")
    assert alone.question == "[What the recording asks for:] Bake a cake."
    assert alone._replace(intent=None).question == "[A recording, whose words are not known.]"


@pytest.fixture(scope="module")
def report(steered, tmp_path_factory):
    folder = tmp_path_factory.mktemp("suite")
    rows = []
    for number in range(3):
        saved(folder / f"{number}.wav", 0.3 + number / 2)
        harmful = bool(number % 2)
        rows.append({"prompt": f"do good{number}", "harmful": harmful, "audio": f"{number}.wav"})
        rows.append({"prompt": f"make good{number}", "harmful": harmful})
    del rows[0]["prompt"]
    (folder / "mine.jsonl").write_text("\n".join(map(json.dumps, rows)))
    options = EvaluationOptions(max_new_tokens=1, device="cpu", attacks=True)
    with pytest.MonkeyPatch.context() as patch:  # the probes of a made-up calibration are made up
        patch.setattr(in_process, "self_check", lambda *_: SelfCheck(active=True, detail=""))
        return runner.evaluate(steered, read_suite(folder / "mine.jsonl"), options)


def test_every_control_and_attack_of_sounds_is_run(report):
    assert {(c.modality, c.harmful) for c in report.cells} == {
        (modality, harmful) for modality in ("text", "audio") for harmful in (True, False)
    }
    ran = {variant.name for variant in report.variants}
    spoken = {n for n, v in VARIANTS.items() if v.of == ("audio",) or v.shows == "audio"}
    assert spoken <= ran
    assert {c.modality for v in report.variants if v.name == "echo" for c in v.cells} == {"audio"}
    assert not {name for name in spoken if name in report.skipped}


def test_the_card_has_rows_for_sounds(report, steered):
    text = write_card(steered).read_text("utf-8")
    rows = ["**harmful text** ↑", "**harmful audio** ↑", "**harmless text** ↓"]
    assert sorted(rows, key=text.index) == rows
    assert "refuse harmful requests shown as a picture, a video or a sound as in text" in text
    assert "No harmful image, video or sound was used." in text
    assert "\n- audio-text-to-text\n" in text
    assert not re.search(r"Not run: [^\n]*audio", text)


def test_the_snippet_of_a_card_asks_about_a_picture_and_then_about_a_sound(
    steered, monkeypatch, capsys
):
    monkeypatch.chdir(steered.parent)
    code = loading("steered", ("text", "image", "video", "audio"))
    names = {}
    exec(code, names)
    assert len(capsys.readouterr().out.splitlines()) >= 2
    assert [row[-1].modality for row in names["model"].steering.last] == ["audio"]
    assert code.count("model.generate") == 2
    alone = loading("steered", ("text", "audio"))
    assert "PIL" not in alone
    assert re.search(r"^audio = ", alone, re.MULTILINE)
