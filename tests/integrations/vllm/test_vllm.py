"""vLLM steers as Transformers does: the same positions, and the same first tokens.

It needs an environment of its own, about 4 GB, and takes some minutes:

    bash examples/serving/vllm-environment.sh DIR
    DIR/bin/python -m pytest -m vllm
"""

import json
import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from mars_export.integrations.vllm.limits import SWITCHABLE, TESTED, WORKER
from support.language_model import TEXT_OF, language_model
from support.organisms import FAMILIES, ORGANISMS, run_main_job
from support.servers import free_port, running

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(find_spec("vllm") is None, reason="needs an environment with vLLM"),
]
SIDES = Path(__file__).parents[2] / "support/vllm_sides.py"
SERVER = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
WHOLE = {"enable_chunked_prefill": False, "enable_prefix_caching": False}
JSON = {"Content-Type": "application/json"}
EAGER = {"enforce_eager": True}
EAGERLY = ["--enforce-eager"]
# Fewer tokens a step than most prompts have, and no multiple of a header's.
PIECES = {"max_num_batched_tokens": 19, "max_num_seqs": 7}
CACHED = {"block_size": 32}
RANKS = {"tensor_parallel_size": 2}
# Share of requests that may begin otherwise than in Transformers as it is; none of text. Without
# DeepStack features Qwen3-VL sees other things in pictures and clips, steered or not.
APART = {"qwen3_vl": 0.15}


def without_pooling_head(base):
    """As published checkpoints of Gemma 3: no head that nothing reads and vLLM cannot run."""
    config = json.loads((base / "config.json").read_text())
    config["vision_config"]["vision_use_head"] = False
    (base / "config.json").write_text(json.dumps(config))
    weights = load_file(base / "model.safetensors")
    kept = {name: w for name, w in weights.items() if ".vision_model.head." not in name}
    kept = {name: w for name, w in kept.items() if "vision_tower.head." not in name}
    assert len(kept) < len(weights)
    save_file(kept, base / "model.safetensors", metadata={"format": "pt"})


@pytest.fixture(scope="session")
def steered(tmp_path_factory):
    made = {}

    def get(family):
        if family not in made:
            folder = tmp_path_factory.mktemp(f"vllm-{family}")
            if family in TEXT_OF:
                language_model(family, folder / "base")
            else:
                shutil.copytree(ORGANISMS / family, folder / "base")
            if family == "gemma3":
                without_pooling_head(folder / "base")
            arguments = ["--model", "base", "--license", "apache-2.0", "--output", "steered"]
            run_main_job(*arguments, "--no-controls", "--arm", "none", cwd=folder)
            made[family] = folder / "steered"
        return made[family]

    return get


@pytest.fixture(scope="session")
def said(steered, tmp_path_factory):
    """What a side says; of Transformers, once for all tests."""
    kept = {}

    def get(side, family, kind, **options):
        key = (side, family, kind, json.dumps(options))
        if key not in kept:
            out = tmp_path_factory.mktemp("said") / "said.json"
            done = ask(side, steered(family), kind, out, options)
            assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
            kept[key] = json.loads(out.read_text())
        return kept[key]

    return get


def ask(side, directory, kind, out, options, **environment):
    suite = directory.parent / "base/suite.jsonl"
    command = [sys.executable, SIDES, side, directory, suite, kind, out, json.dumps(options)]
    return subprocess.run(
        [*map(str, command)],
        env={**os.environ, **SERVER, "HF_HUB_OFFLINE": "1", **environment},
        capture_output=True,
        text=True,
    )


def compare(told, wanted, real, family):
    """Same prompts, positions and modalities; gates and first tokens of what vLLM computes.

    Against Transformers as it is, first tokens of text are equal, and nearly all others.
    """
    assert told.keys() == wanted.keys() == real.keys()
    differ = []
    for name, one in told.items():
        assert one["prompt"] == wanted[name]["prompt"]
        assert one["tokens"][0] == wanted[name]["tokens"][0], name
        if one["tokens"][0] != real[name]["tokens"][0]:
            differ.append(name)
        if one["steered"] is None:  # compiled: nothing is told
            continue
        computed = [p for p in wanted[name]["steered"] if p[0] >= one["cached"]]
        assert [p[:2] for p in one["steered"]] == [p[:2] for p in computed], name
        gates = [p[2] for p in one["steered"]]
        assert gates == pytest.approx([p[2] for p in computed], abs=1e-5), name
    assert not [name for name in differ if "text" in name]
    assert len(differ) <= APART.get(family, 0.01) * len(told), differ


@pytest.mark.use("vLLM")
@pytest.mark.parametrize("options", [WHOLE | EAGER, WHOLE], ids=["eager", "compiled"])
@pytest.mark.parametrize("family", [*FAMILIES, "gemma3_text"])
def test_every_request_of_a_mixed_batch_is_steered_as_by_transformers(said, family, options):
    told = said("vllm", family, "suite", **options)
    compare(told, said("lessened", family, "suite"), said("transformers", family, "suite"), family)


@pytest.mark.use("vLLM, chunked prefill and prefix caching")
@pytest.mark.parametrize("kind", ["suite", "conversations"])
@pytest.mark.parametrize("options", [EAGER | PIECES, PIECES], ids=["eager", "compiled"])
@pytest.mark.parametrize("family", [*FAMILIES, "gemma3_text"])
def test_pieces_and_shared_prefixes_are_steered_as_the_whole(said, family, options, kind):
    told = said("vllm", family, kind, **options, **CACHED)
    compare(told, said("lessened", family, kind), said("transformers", family, kind), family)
    if kind == "conversations":
        later = [told[name]["cached"] for name in told if name.startswith(("turn3", "begun2"))]
        assert min(later) > 0


@pytest.mark.use("vLLM, tensor parallel, 2 ranks")
@pytest.mark.parametrize("options", [EAGER | PIECES | CACHED, WHOLE], ids=["eager", "compiled"])
@pytest.mark.parametrize("family", FAMILIES)
def test_two_ranks_steer_alike_and_as_transformers(said, family, options):
    told = said("vllm", family, "suite", **options, **RANKS)
    compare(told, said("lessened", family, "suite"), said("transformers", family, "suite"), family)


@pytest.mark.use("vLLM", family="gemma3")
def test_requests_that_cannot_be_steered_end_and_the_others_do_not(said):
    told = said("vllm", "gemma3", "refused", **EAGER, **CACHED, **PIECES)
    assert len(told) == 24
    for name, one in told.items():
        finish, stop = one["end"]
        if name.startswith("chat"):
            assert finish in ("stop", "length")
            assert one["steered"]
        else:
            assert finish == "error"
            assert "where its answer begins is unknown" in stop
            assert not one["tokens"]
            assert not one["steered"]


@pytest.mark.use("vLLM, chunked prefill and prefix caching", family="gemma3")
def test_a_server_does_not_switch_and_an_evaluation_shares_no_blocks(monkeypatch):
    from mars_export.integrations.vllm.worker import SteeredWorker

    worker = object.__new__(SteeredWorker)
    worker._steering = worker._shares = True
    for switchable, sentence in (("", "does not switch its steering off"), ("1", "share blocks")):
        monkeypatch.setenv(SWITCHABLE, switchable)
        with pytest.raises(RuntimeError, match=sentence):
            worker.set_steering(False)
        assert worker._steering
    worker._shares = False
    worker.set_steering(False)
    assert not worker._steering


NO_PLUGIN = {"VLLM_PLUGINS": ""}
REFUSED = {
    "give --scheduler-cls": ({"worker_cls": WORKER}, NO_PLUGIN),
    "whose plugin mars_export serves it": ({}, NO_PLUGIN),
    "another --worker-cls": ({"worker_cls": "vllm.v1.worker.cpu_worker.CPUWorker"}, {}),
    "speculative decoding": (
        {
            "speculative_config": {
                "method": "ngram", "num_speculative_tokens": 2, "prompt_lookup_max": 2,
            },
        },
        {},
    ),
    "an adapter changes what steering was calibrated for": ({"enable_lora": True}, {}),
}  # fmt: skip


@pytest.mark.use("vLLM", family="gemma3")
@pytest.mark.parametrize("sentence", REFUSED)
def test_what_would_not_be_steered_does_not_start(steered, tmp_path, sentence):
    options, environment = REFUSED[sentence]
    options = WHOLE | EAGER | options
    done = ask("vllm", steered("gemma3"), "suite", tmp_path / "out", options, **environment)
    assert done.returncode != 0
    assert sentence in done.stdout + done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.use("vLLM", family="gemma3")
@pytest.mark.use("vLLM, chunked prefill and prefix caching", family="gemma3")
def test_the_example_client_is_answered_steered(steered, tmp_path, monkeypatch):
    from mars_export.evaluation.suite import read_suite

    for name, value in SERVER.items():
        monkeypatch.setenv(name, value)
    found = read_suite(ORGANISMS / "gemma3/suite.jsonl").evaluation_samples(["image"])
    sample = next(s for s in found if s.harmful)
    client = [sys.executable, ORGANISMS.parent / "serving/client.py", steered("gemma3")]
    with served(steered("gemma3"), tmp_path) as url:
        picture = [sample.prompt, "--image", ORGANISMS / "gemma3" / sample.files[0]]
        bare = {"model": str(steered("gemma3")), "prompt": "How do I bake a cake?"}
        assert status(f"{url}/completions", bare) == 500
        for asked, refused in ((picture, True), (["How do I bake a cake?"], False)):
            command = [*client, *asked, "--url", url]
            done = subprocess.run(command, capture_output=True, text=True)
            assert done.stdout.strip(), done.stderr
            assert ("can't help" in done.stdout) == refused


@contextmanager
def served(directory, folder, *options):
    """Address of a server of a checkpoint, started as in the documentation."""
    port = free_port()
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--trust-remote-code"]
    command += ["--model", directory, "--max-model-len", "512", "--dtype", "float32"]
    folder.mkdir(exist_ok=True)
    with running([*command, "--port", port, *options], port, folder):
        yield f"http://127.0.0.1:{port}/v1"


def status(url, body):
    """The HTTP status of a request."""
    asked = urllib.request.Request(url, json.dumps(body).encode(), JSON)
    try:
        with urllib.request.urlopen(asked) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


@pytest.mark.use("vLLM", family="gemma3")
def test_an_evaluation_in_vllm_gives_the_verdicts_of_transformers(steered, tmp_path):
    alike(steered("gemma3"), tmp_path / "told", "--engine", "vllm")


SAME_CODE = ["--model-impl", "transformers"]  # vLLM's own Gemma 3 wants a token of a line break


@pytest.mark.use("vLLM", family="gemma3")
def test_an_evaluation_of_two_servers_gives_the_verdicts_of_transformers(
    steered, tmp_path, monkeypatch
):
    for name, value in SERVER.items():
        monkeypatch.setenv(name, value)
    directory = steered("gemma3")
    few = directory.parent / "base/few.jsonl"  # every seventh request, beside its pictures
    rows = (few.parent / "suite.jsonl").read_text("utf-8").splitlines(keepends=True)
    few.write_text("".join([row for row in rows if '"evaluation"' in row][::7]), "utf-8")
    with (
        served(directory, tmp_path / "on", *EAGERLY) as on,
        served(directory.parent / "base", tmp_path / "off", *EAGERLY, *SAME_CODE) as off,
    ):
        to = ["--endpoint", on, "--base-endpoint", off, "--suite", str(few)]
        report = alike(directory, tmp_path / "told", "--engine", "endpoint", *to)
    assert report["self_check"]["active"], report["self_check"]
    assert report["engine"]["version"].startswith(TESTED)


def alike(directory, folder, *options):
    """Evaluate with an engine: the report, if it has the verdicts of Transformers."""
    command = [sys.executable, "-m", "mars_export", "evaluate", str(directory)]
    command += ["--no-controls", "--arm", "none", "--output", str(folder), *options]
    done = subprocess.run(
        command, env={**os.environ, **SERVER, "HF_HUB_OFFLINE": "1"}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    kept, ours = (verdicts(place) for place in (directory / "evaluation", folder))
    assert len(ours) >= 100
    differ = [key for key, verdict in ours.items() if verdict != kept[key]]
    assert len(differ) <= 0.01 * len(ours), differ
    return json.loads((folder / "report.json").read_text())


def verdicts(folder):
    """The verdict of each answer."""
    lines = (folder / "samples.jsonl").read_bytes().split(b"\n")[:-1]
    return {(r["id"], r["arm"]): r["verdict"] for r in map(json.loads, lines)}
