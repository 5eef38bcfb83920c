"""An evaluation of servers: the same verdicts as in the process, nothing guessed, fails closed."""

import json
import threading
from collections import Counter

import pytest
from evaluation.fakes import FakeLoaded, Template, save_manifest, save_suite
from hypothesis import given
from hypothesis import strategies as st

from mars_export.common.errors import ExportError
from mars_export.common.names import SAMPLES_FILE, SAMPLES_NAME
from mars_export.evaluation import evaluate as runner
from mars_export.evaluation import generation, ready
from mars_export.evaluation.engines.endpoint import TOKEN_VARIABLE, EndpointEngine, chat
from mars_export.evaluation.engines.evidence import FEWEST, Evidence, Witness, judged, recorded
from mars_export.evaluation.options import EvaluationOptions
from mars_export.evaluation.report import SampleResult
from mars_export.evaluation.suite import read_suite
from mars_export.inputs.requests import Media, Request, Turn
from mars_export.pipeline.engines import engine_named
from support.servers import LocalServer

BARE = {"batch_size": 4, "device": "cpu", "controls": False, "arms": ("none",)}
JSON = [("Content-Type", "application/json")]
REFUSAL, HELP = "I cannot help with that.", "Here it is."


class Steady(FakeLoaded):
    """Answers alike in every batch, and none the same with pictures in both arms if harmful."""

    def _row(self, request, arm, size):
        _, steered, logits = super()._row(request, arm, size)
        return (
            said("bad" in request.prompt, request.modality != "text", arm == "on"),
            steered,
            logits,
        )


def said(harm, shown, steered):
    return REFUSAL if harm and (steered or not shown) else HELP


class Server(LocalServer):
    """Two models, `steered` and `base`, that answer as `Steady` does."""

    def __init__(self):
        super().__init__()
        self.bodies, self.at_once, self.most = [], 0, 0
        self.alter = lambda _body: None
        self.choice = lambda _text: {}
        self._lock = threading.Lock()

    def get(self, handler):
        known = handler.path == "/version"
        handler.send(200 if known else 404, json.dumps({"version": "1.2.3"}), JSON)

    def post(self, handler, body):
        with self._lock:
            self.bodies.append(body)
            self.at_once += 1
            self.most = max(self.most, self.at_once)
        status, text = self.alter(body) or (200, self.answer(body))
        with self._lock:
            self.at_once -= 1
        choice = {"message": {"content": text}, "finish_reason": "stop"} | self.choice(text)
        handler.send(status, json.dumps({"choices": [choice]}), JSON)

    def address(self, model):
        return f"http://{self.host}/v1#{model}"

    def answer(self, body):
        text = json.dumps(body["messages"])
        return said("bad" in text, "image_url" in text, body["model"] == "steered")


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr("openai._base_client.time.sleep", lambda _: None)
    monkeypatch.setattr(generation, "load_processor", lambda _: Template())
    for name in (TOKEN_VARIABLE, "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    found = Server()
    yield found
    found.close()


@pytest.fixture
def suite(tmp_path):
    return read_suite(save_suite(tmp_path / "suite"))


@pytest.fixture
def directory(tmp_path, suite, monkeypatch):
    """A steered directory that was evaluated in the process."""
    monkeypatch.setattr(ready, "load_calibrated", lambda *_: Steady())
    save_manifest(tmp_path / "steered")
    runner.evaluate(tmp_path / "steered", suite, EvaluationOptions(**BARE))
    return tmp_path / "steered"


@pytest.fixture
def run(server, suite, directory, tmp_path):
    def run(on="steered", off="base", **options):
        engine = engine_named("endpoint", directory, suite, server.address(on), server.address(off))
        chosen = EvaluationOptions(**{**BARE, **options})
        place = tmp_path / "served"
        return runner.evaluate(directory, suite, chosen, engine=engine, place=lambda _: place)

    return run


def results(path):
    lines = path.read_bytes().split(b"\n")[:-1]
    return [SampleResult.model_validate_json(line) for line in lines]


def test_a_server_gives_the_same_verdicts_and_nothing_is_guessed(run, directory, tmp_path, server):
    server.alter = lambda _: threading.Event().wait(0.02) or None
    report = run()
    told, known = results(tmp_path / "served/samples.jsonl"), results(directory / SAMPLES_NAME)
    assert [(r.id, r.arm, r.verdict) for r in told] == [(r.id, r.arm, r.verdict) for r in known]
    assert Counter((r.arm, r.decision) for r in told) == {("off", None): 20, ("on", "unknown"): 20}
    assert {(r.log_odds, r.push, r.kl) for r in told} == {(None, None, None)}
    assert (report.gates, report.overhead, report.dose) == ({}, None, [])
    assert report.device == report.dtype == "unknown"
    assert report.engine.served == {
        "on": f"steered@{server.host}", "off": f"base@{server.host}",
    }  # fmt: skip
    assert (report.engine.name, report.engine.version) == ("endpoint", "1.2.3")
    assert "5 of 5 with steering off, 5 of 5 with steering on" in report.self_check.detail
    assert report.engine.unchecked
    assert 1 < server.most <= 4
    assert all(body["temperature"] == 0 for body in server.bodies)


@pytest.mark.parametrize(("on", "off"), [("base", "Base"), ("steered", "steered")])
def test_servers_that_are_not_what_they_should_be_give_no_steered_numbers(run, server, on, off):
    if on == off:
        with pytest.raises(ExportError, match="--base-endpoint: it is that of --endpoint"):
            run(on, off)
        server.answer = lambda body: said("bad" in json.dumps(body), True, True)
        off = "also-steered"
    report = run(on, off)
    assert not report.self_check.active
    assert {arm.name for arm in report.arms} == {"off"}


@pytest.mark.parametrize("end", ["abort", "content_filter", "error", "tool_calls", None])
def test_answers_that_end_for_another_reason_are_no_answers(run, server, end):
    server.choice = lambda text: {"finish_reason": end} if text == REFUSAL else {}
    with pytest.raises(ExportError, match=rf"ended an answer for the reason '?{end}'?,"):
        run()


def test_a_refusal_in_a_field_of_its_own_is_the_answer(run, server, directory, tmp_path):
    apart = {"message": {"content": None, "refusal": REFUSAL}}
    server.choice = lambda text: apart if text == REFUSAL else {}
    assert run().self_check.active
    served, own = tmp_path / "served" / SAMPLES_FILE, directory / SAMPLES_NAME
    assert [r.response for r in results(served)] == [r.response for r in results(own)]


def test_halves_of_characters_are_replaced(run, server, tmp_path):
    server.choice = lambda text: {"message": {"content": f"{text} \ud83d"}}
    run()
    (first, *_) = results(tmp_path / "served" / SAMPLES_FILE)
    assert first.response.endswith("\ufffd")


def test_variants_are_asked_as_far_as_the_api_goes(run, server):
    report = run(controls=True, attacks=True, control_requests=2)
    assert "begun" in report.skipped["prefill"]
    assert "scale" in report.skipped["dose"]
    drawn = [body for body in server.bodies if body["temperature"]]
    assert len({body["seed"] for body in drawn}) > 1
    assert {v.name for v in report.variants} >= {"system", "later-turn", "sampling", "pictures-2"}


def test_a_run_goes_on_where_a_server_went_away(run, server):
    asked = len(server.bodies)

    def away(body):
        return (503, "") if len(server.bodies) > asked + 24 else None

    server.alter = away
    with pytest.raises(ExportError, match=r"did not answer in up to 6 tries.*repeat the command"):
        run()
    server.alter, before = lambda _: None, len(server.bodies)
    assert run().self_check.active
    whole = 2 * 20 + 2 * 2 + 2 * 5  # the suite, one of each modality, the witnesses
    assert len(server.bodies) - before < whole


def test_what_a_server_refuses_is_told_in_one_line_before_work(run, server):
    def blind(body):
        return (400, "") if "image_url" in json.dumps(body) else None

    server.alter = blind
    with pytest.raises(ExportError, match=r"image requests cannot be asked .* without image"):
        run()
    server.alter = lambda body: (404, "") if body["model"] == "base" else None
    with pytest.raises(ExportError, match=r"--base-endpoint at .* refuses with status 404"):
        run()
    server.alter = lambda _: (200, None)
    assert run().self_check.active is False
    server.close()
    with pytest.raises(ExportError, match=r"did not answer in up to 2 tries"):
        run(max_new_tokens=3)


def test_what_does_not_fit_is_refused_first(run, suite, directory, tmp_path, monkeypatch):
    with pytest.raises(ExportError, match="--arm cast: --engine endpoint answers"):
        run(arms=("none", "cast"))
    with pytest.raises(ExportError, match="give --base-endpoint"):
        engine_named("endpoint", directory, suite, "http://a/v1")
    with pytest.raises(ExportError, match="--endpoint: it goes with --engine endpoint"):
        engine_named("transformers", directory, suite, "http://a/v1")
    assert engine_named("transformers", directory, suite) is None
    save_manifest(tmp_path / "new")
    with pytest.raises(ExportError, match="holds no answers of Transformers"):
        engine_named("endpoint", tmp_path / "new", suite, "http://a/v1", "http://b/v1")


def test_of_another_checkpoint_or_suite_and_of_changed_answers_nothing_is_taken(
    directory, suite, tmp_path
):
    folder, digest = directory / "evaluation", "0" * 64
    evidence = recorded(folder, digest, suite)
    assert [w.request.modality for w in evidence.witnesses] == ["image"] * 5
    assert recorded(folder, "1" * 64, suite) is None
    other = read_suite(save_suite(tmp_path / "other", [{"id": "a", "modality": "text",
        "harmful": True, "split": "evaluation", "prompt": "bad"}]))  # fmt: skip
    assert recorded(folder, digest, other) is None
    samples = directory / SAMPLES_NAME
    samples.write_bytes(samples.read_bytes().replace(b"Here", b"hEre", 1))
    assert recorded(folder, digest, suite) is None


def evidence(*pairs):
    return Evidence([Witness(off, Request(off), {"off": off, "on": on}) for off, on in pairs], 8)


@given(st.lists(st.tuples(st.text(), st.text()), min_size=FEWEST), st.text())
def test_answers_of_the_other_arm_are_never_taken_for_those_of_this_one(pairs, tail):
    pairs = [(f"a{off}", f"b{on}") for off, on in pairs]
    off, on = ([pair[side] for pair in pairs] for side in (0, 1))
    asked = evidence(*pairs)
    assert judged(asked, {"off": off, "on": on}).active
    rounded = {"off": [text + tail for text in off], "on": [text + tail for text in on]}
    assert judged(asked, rounded).active
    for wrong in ({"off": on, "on": off}, {"off": off, "on": off}, {"off": on, "on": on}):
        assert not judged(asked, wrong).active
    assert not judged(asked, {"off": off, "on": [""] * len(on)}).active
    assert "serve this very directory" in judged(asked, {"off": off, "on": off}).detail
    assert "cannot be judged by answers: evaluate" in judged(asked, {"off": on, "on": off}).detail


def test_few_witnesses_show_nothing():
    asked = evidence(*[("a", "b")] * (FEWEST - 1))
    assert not judged(asked, {"off": ["a"] * 2, "on": ["b"] * 2}).active


def test_a_whole_conversation_is_put_into_messages():
    from PIL import Image

    picture = Image.new("RGB", (2, 2))
    turn = Turn("What is this?", "Nothing.", (Media("image", picture),))
    told = chat(Request("And this?", (Media("video", (picture, picture)),), "Be kind.", (turn,)))
    assert [message["role"] for message in told] == ["system", "user", "assistant", "user"]
    assert told[1]["content"][0]["image_url"]["url"].startswith("data:image/png;base64,")
    url = told[3]["content"][0]["video_url"]["url"]
    assert len(url.removeprefix("data:video/jpeg;base64,").split(",")) == 2
    assert told[3]["content"][1] == {"type": "text", "text": "And this?"}


def test_the_template_s_options_are_sent(directory, server, suite, monkeypatch):
    engine = EndpointEngine(server.address("steered"), server.address("base"), evidence(("a", "b")))
    from mars_export.evaluation.arms import open_arms

    arms = open_arms(directory, ["none"])
    engine.open(arms, EvaluationOptions(), "cpu")
    monkeypatch.setitem(
        arms[0].manifest.calibration.source.template_options, "enable_thinking", False
    )
    assert engine.problem(Request("Hello")) == ""
    assert [body["chat_template_kwargs"] for body in server.bodies] == [
        {"enable_thinking": False}
    ] * 2
