"""`transformers serve` answers an OpenAI-style request with a picture steered.

It needs the extra `serve`. The server is a process of its own, as people start it.
"""

import base64
import subprocess
import sys
from contextlib import contextmanager

import pytest
from transformers.utils.import_utils import is_accelerate_available, is_serve_available

from mars_export.evaluation.suite import read_suite
from support.organisms import ORGANISMS
from support.servers import fetched, free_port, running

pytestmark = [
    pytest.mark.serve,
    pytest.mark.mode("transformers serve", family="gemma3"),
    pytest.mark.skipif(
        not (is_serve_available() and is_accelerate_available()), reason="needs the extra `serve`"
    ),
]


@contextmanager
def serving(folder, *options):
    """Port of a server that is up."""
    port = free_port()
    # Without torchvision, as on a machine that has not installed the extra `video`.
    code = "import sys; sys.modules['torchvision'] = None\n"
    code += "from transformers.cli.transformers import main; main()"
    options = ["serve", "--host", "127.0.0.1", "--port", str(port), "--device", "cpu", *options]
    with running([sys.executable, "-c", code, *options], port, folder):
        yield port


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("plain"), "--trust-remote-code") as port:
        yield port


@pytest.fixture(scope="module")
def batching(tmp_path_factory):
    folder = tmp_path_factory.mktemp("batching")
    with serving(folder, "--trust-remote-code", "--continuous-batching") as port:
        yield port


def harmful_sample():
    suite = read_suite(ORGANISMS / "gemma3/suite.jsonl")
    return next(s for s in suite.evaluation_samples(["image"]) if s.harmful)


def harmful():
    """A harmful request of the suite, as an OpenAI chat message with a picture."""
    sample = harmful_sample()
    picture = base64.b64encode((ORGANISMS / "gemma3" / sample.files[0]).read_bytes()).decode()
    url = {"url": f"data:image/png;base64,{picture}"}
    content = [{"type": "image_url", "image_url": url}, {"type": "text", "text": sample.prompt}]
    return [{"role": "user", "content": content}]


def body(directory, messages):
    return {"model": str(directory), "messages": messages, "max_tokens": 24, "temperature": 0}


def answer(port, directory, messages):
    status, told = fetched(port, "/v1/chat/completions", body(directory, messages))
    assert status == 200, told
    return told["choices"][0]["message"]["content"]


# With a picture the server uses generate() in either case.
@pytest.mark.parametrize("kind", ["plain", "batching"])
def test_a_harmful_picture_is_refused_over_http_and_not_by_the_base(steered, request, kind):
    directory, port = steered("gemma3"), request.getfixturevalue(kind)
    assert "can't help" in answer(port, directory, harmful())
    assert "can't help" not in answer(port, ORGANISMS / "gemma3", harmful())
    assert "can't help" in answer(port, directory, harmful())


@pytest.mark.use("transformers serve, OpenAI client", family="gemma3")
def test_the_example_client_is_answered_steered(steered, plain):
    sample = harmful_sample()
    client = [sys.executable, ORGANISMS.parent / "serving/client.py"]
    picture = ["--image", ORGANISMS / "gemma3" / sample.files[0]]
    to = ["--url", f"http://127.0.0.1:{plain}/v1"]
    asked = [steered("gemma3"), sample.prompt, *picture, *to]
    done = subprocess.run([*client, *asked], capture_output=True, text=True)
    assert "can't help" in done.stdout, done.stderr
    asked = [steered("gemma3"), "How do I bake a cake?", *to]
    done = subprocess.run([*client, *asked], capture_output=True, text=True)
    assert done.stdout.strip(), done.stderr
    assert "can't help" not in done.stdout


def test_without_trust_the_server_does_not_answer(steered, tmp_path):
    with serving(tmp_path) as port:
        status, _ = fetched(port, "/v1/chat/completions", body(steered("gemma3"), harmful()))
        assert status >= 500
    assert "contains custom code" in (tmp_path / "server.log").read_text()
