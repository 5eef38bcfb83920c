"""The endpoint judge against a local server that misbehaves as servers do."""

import json
import logging
import re
import sys
import threading

import pytest

from mars_export.common.errors import ExportError
from mars_export.common.installation import install_extra
from mars_export.evaluation.chat_api import at_once
from mars_export.evaluation.judges.base import Exchange
from mars_export.evaluation.judges.endpoint import TOKEN_VARIABLE, EndpointJudge
from support.servers import LocalServer

LABEL = '{"refused": true, "harmful": false}'
TOKEN = "sk-very-secret"
ONE = [Exchange("How?", "I cannot help.")]


class Server(LocalServer):
    """Answers with what `script` holds, in turn, and then with a label for ever."""

    def __init__(self):
        super().__init__()
        self.script, self.requests, self.models = [], [], ["judge-1"]
        self.url = f"http://{self.host}/v1"

    def get(self, handler):
        handler.send(200, json.dumps({"data": [{"id": name} for name in self.models]}))

    def post(self, handler, body):
        self.requests.append((handler.path, dict(handler.headers), body))
        step = self.script.pop(0) if self.script else (200, LABEL)
        if callable(step):
            step(handler)
            return
        status, text, *headers = step
        if status == 200:
            text = json.dumps({"choices": [{"message": {"content": text}}]})
        handler.send(status, text, *headers)


@pytest.fixture(autouse=True)
def waits(monkeypatch):
    """What the client would have slept, in seconds."""
    found = []
    monkeypatch.setattr("openai._base_client.time.sleep", found.append)
    return found


@pytest.fixture
def server(monkeypatch):
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    found = Server()
    yield found
    found.close()


def verdicts(judge, exchanges=ONE):
    return [(s.verdict, s.harm) for s in judge.judge(exchanges)]


def test_labels(server):
    server.script = [(200, '{"refused": false, "harmful": true}')]
    judge = EndpointJudge(f"{server.url}#judge-1")
    assert verdicts(judge, [Exchange("How?", "So.", intent="Do X.")]) == [("answer", "harmful")]
    path, headers, body = server.requests[0]
    assert path == "/v1/chat/completions"
    assert "Authorization" not in headers
    assert (body["model"], body["temperature"]) == ("judge-1", 0)
    (message,) = body["messages"]
    assert message["role"] == "user"
    for part in ("How?", "So.", "Do X."):
        assert part in message["content"]


def test_an_endpoint_is_tried_before_there_are_answers(server):
    server.script = [(200, "anything"), (404, "no such model")]
    judge = EndpointJudge(f"{server.url}#judge-1")
    judge.check()
    with pytest.raises(ExportError, match="refuses with status 404"):
        judge.check()


def test_order_is_kept(server):
    def slowly(handler):
        threading.Event().wait(0.2)
        text = json.dumps({"choices": [{"message": {"content": LABEL}}]}).encode()
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(text)))
        handler.end_headers()
        handler.wfile.write(text)

    server.script = [slowly]
    exchanges = [Exchange("How?", f"Response {i}.") for i in range(20)]
    assert verdicts(EndpointJudge(f"{server.url}#m"), exchanges) == [("refusal", "harmless")] * 20
    assert len(server.requests) == 20


def _garbage(handler):
    handler.send_response(200)
    handler.end_headers()
    handler.wfile.write(b"<html>not json")


@pytest.mark.parametrize(
    "step",
    [(200, "Refused."), (200, ""), (200, LABEL[:-1]), (200, f"{LABEL}{LABEL}"), _garbage],
)
def test_replies_that_cannot_be_read_are_unknown(server, step):
    server.script = [step]
    assert verdicts(EndpointJudge(f"{server.url}#m")) == [("unknown", "unknown")]
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "answer",
    ["null", "[]", '{"choices": []}', '{"choices": [{}]}', '{"choices": [{"message": "x"}]}',
     '{"choices": [{"message": {"content": null}}]}', '{"choices": {"0": 1}}'],
)  # fmt: skip
def test_answers_of_another_form_are_unknown(server, answer):
    def send(handler):
        handler.send(200, answer)

    server.script = [send]
    assert verdicts(EndpointJudge(f"{server.url}#m")) == [("unknown", "unknown")]


def test_waits_as_it_is_asked_to_and_tries_again(server, waits):
    server.script = [
        (429, "slow down", [("Retry-After", "7")]),
        (503, "busy"),
        (500, "oops", [("Retry-After", "Wed, 21 Oct 2015 07:28:00 GMT")]),
    ]
    assert verdicts(EndpointJudge(f"{server.url}#m")) == [("refusal", "harmless")]
    first, second, third = waits
    assert first == 7
    assert 0 < second < third < 10


@pytest.mark.parametrize(
    ("step", "requests"), [((503, "busy"), 6), ((429, "much", [("Retry-After", "86400")]), 1)]
)
def test_gives_up_instead_of_counting_what_nobody_judged(server, waits, step, requests):
    server.script = [step] * 99
    with pytest.raises(ExportError, match=rf"did not answer .*\(status {step[0]}\); finished"):
        EndpointJudge(f"{server.url}#m").judge(ONE)
    assert len(server.requests) == requests
    assert len(waits) == requests - 1


def test_a_server_that_hangs_or_hangs_up(server):
    hold = threading.Event()

    def hang(_):
        hold.wait(10)

    def hang_up(handler):
        handler.connection.close()

    server.script = [hang, hang_up]
    judge = EndpointJudge(f"{server.url}#m", timeout=0.3)
    assert verdicts(judge) == [("refusal", "harmless")]
    hold.set()
    assert len(server.requests) == 3


def test_no_server():
    with pytest.raises(ExportError, match=r"did not answer in up to 6 tries \(ConnectError\)"):
        EndpointJudge("http://127.0.0.1:9/v1#m").judge(ONE)


def test_no_server_is_told_soon_where_no_work_is_lost():
    for judge in ("http://127.0.0.1:9/v1#m", "http://127.0.0.1:9/v1"):
        with pytest.raises(ExportError, match=r"did not answer in up to 2 tries \(ConnectError\)"):
            EndpointJudge(judge).check()


def test_a_redirect_is_not_followed(server, monkeypatch):
    monkeypatch.setenv(TOKEN_VARIABLE, TOKEN)
    other = Server()
    server.script = [(307, "there", [("Location", f"{other.url}/chat/completions")])]
    with pytest.raises(ExportError, match="status 307"):
        EndpointJudge(f"{server.url}#m").judge(ONE)
    other.close()
    assert other.requests == []


@pytest.mark.parametrize("token", ["", TOKEN])
def test_nothing_else_of_the_environment_is_sent(server, monkeypatch, token):
    monkeypatch.setenv(TOKEN_VARIABLE, token)
    for name in ("API_KEY", "ADMIN_KEY", "ORG_ID", "PROJECT_ID", "WEBHOOK_SECRET"):
        monkeypatch.setenv(f"OPENAI_{name}", "another-secret")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    custom = "Authorization: another-secret\nX-Key: another-secret"
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", custom)
    assert verdicts(EndpointJudge(server.url)) == [("refusal", "harmless")]
    headers = server.requests[0][1]
    assert "another-secret" not in str(headers)
    assert headers.get("Authorization") == (f"Bearer {token}" if token else None)


def test_the_client_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(ExportError, match=re.escape(install_extra("judge"))):
        EndpointJudge("http://127.0.0.1:9/v1#m")


@pytest.mark.parametrize("status", [400, 401, 403, 404, 302])
def test_refusals_stop_at_once(server, status):
    server.script = [(status, "no", [("Location", "http://127.0.0.1:9/")])]
    with pytest.raises(ExportError, match=f"status {status}"):
        EndpointJudge(f"{server.url}#m").judge(ONE)
    assert len(server.requests) == 1


def test_the_token_is_sent_and_nowhere_shown(server, monkeypatch, caplog, capfd):
    monkeypatch.setenv(TOKEN_VARIABLE, TOKEN)
    caplog.set_level(logging.DEBUG)
    judge = EndpointJudge(f"{server.url}#m")
    said = judge.judge(ONE)
    assert server.requests[0][1]["Authorization"] == f"Bearer {TOKEN}"
    shown = [repr(judge), judge.name, repr(said), caplog.text]
    for status in (401, 500):
        server.script = [(status, f"bad {TOKEN}")] * 9
        with pytest.raises(ExportError) as caught:
            judge.judge(ONE)
        shown.append(f"{caught.value!r} {caught.value.__cause__!r}")
    out = capfd.readouterr()
    assert TOKEN not in "".join([*shown, out.out, out.err])


def test_a_malformed_token_is_not_shown(server, monkeypatch):
    monkeypatch.setenv(TOKEN_VARIABLE, f"{TOKEN}\nX: y")
    with pytest.raises(ExportError) as caught:
        EndpointJudge(f"{server.url}#m").judge(ONE)
    assert TOKEN not in str(caught.value)
    assert TOKEN_VARIABLE in str(caught.value)
    assert server.requests == []


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("ftp://x/v1", "no address"),
        ("https://", "no address"),
        ("https://host:99999/v1", "no address"),
        ("https://[::1/v1", "no address"),
        ("https://me:pass@host/v1", "password"),
        ("https://host/v1?key=1", "query"),
    ],
)
def test_addresses_that_will_not_do(url, message):
    with pytest.raises(ExportError, match=message) as caught:
        EndpointJudge(url)
    assert "pass@" not in str(caught.value)


def test_a_proxy_that_will_not_do(server, monkeypatch):
    monkeypatch.setenv("ALL_PROXY", "pigeon://host:1")
    with pytest.raises(ExportError, match=r"cannot be used .*proxy"):
        EndpointJudge("http://judge.example/v1#m")


def test_a_proxy_does_not_see_what_stays_here(server, monkeypatch):
    monkeypatch.setenv(TOKEN_VARIABLE, TOKEN)
    for name in ("http_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert verdicts(EndpointJudge(f"{server.url}#m")) == [("refusal", "harmless")]


def test_nobody_waits_for_the_others_where_one_fails():
    forever, asked = threading.Event(), []

    def ask(number):
        asked.append(number)
        if number == 2:
            raise ExportError("no")
        forever.wait()

    with pytest.raises(ExportError, match="no"):
        at_once(ask, [1, 2, 1, 1], 2)
    forever.set()
    assert sorted(asked) == [1, 2]
    assert at_once(str, range(20), 3) == [str(n) for n in range(20)]
    assert at_once(str, [], 3) == []


def test_an_address_where_nothing_is_is_told_soon(server):
    assert EndpointJudge(f"{server.url}#m", timeout=600)._server._client.timeout.connect <= 10


def test_no_token_over_plain_http(monkeypatch):
    monkeypatch.setenv(TOKEN_VARIABLE, TOKEN)
    with pytest.raises(ExportError, match="https"):
        EndpointJudge("http://example.org/v1#m")
    EndpointJudge("https://example.org/v1#m")
    EndpointJudge("http://localhost:8000/v1#m")


def test_names(server):
    judge = EndpointJudge(server.url)
    host = server.url.removeprefix("http://").removesuffix("/v1")
    assert judge.name.startswith(f"endpoint/judge-1@{host}, prompt ")
    server.models = ["a", "b"]
    with pytest.raises(ExportError, match="2 models"):
        _ = EndpointJudge(server.url).name
