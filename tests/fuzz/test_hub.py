"""A Hub that fails in any way: what was asked for, whole, or one line; then it can be done again.

MARS_FUZZ sets how many runs are made, MARS_FUZZ_FROM the first: a number is the seed of its faults.
"""

import os
import random
import time
from collections import Counter
from types import SimpleNamespace

import pytest
from hub.conftest import hub  # noqa: F401 - the fixture
from huggingface_hub import constants

from mars_export import ExportError, verify
from mars_export.checkpoint.manifest import Manifest
from mars_export.hub import fetch_base, push
from mars_export.hub.readiness import published_files
from support.hub import CUT
from support.hub_directory import CARD, base_files, edit_manifest, steered_directory
from support.hub_routes import ROUTES, HubError

COUNT = int(os.environ.get("MARS_FUZZ", "60"))
FIRST = int(os.environ.get("MARS_FUZZ_FROM", "0"))
SEEDS = range(FIRST, FIRST + COUNT)
STATUSES = [0, 200, 301, 400, 401, 403, 404, 408, 409, 412, 413, 416, 429, 500, 502, 503, 504]
INDEX = b'{"metadata": {}, "weight_map": {"a": "part-1.safetensors", "b": "part-2.safetensors"}}'


pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:httpx2")


@pytest.fixture
def patient(hub, monkeypatch):  # noqa: F811
    """The local Hub, whose client does not wait between its attempts."""
    clock = SimpleNamespace(**{**vars(time), "sleep": lambda _: None})
    monkeypatch.setattr("huggingface_hub.utils._http.time", clock)
    return hub


def faults(hub, chance):  # noqa: F811
    """Make one or two kinds of calls fail, a few times or always; returns what was chosen."""
    plan = {}
    for _ in range(chance.choice([0, 1, 1, 1, 2])):
        route = chance.choice([name for _, name, _ in ROUTES])
        plan[route] = (
            chance.choice(["cut", "page", "no JSON", *STATUSES]),
            chance.choice([1, 2, 10**6]),
            chance.randrange(3),
        )
    calls = Counter()

    def meddle(call, answer):
        calls[call.route] += 1
        kind, times, after = plan.get(call.route, (None, 0, 0))
        if not after < calls[call.route] <= after + times:
            return answer()
        if kind == "cut":
            status, payload, headers = answer()
            return status, payload, headers | {CUT: "yes"}
        if kind == "page":
            return 502, b"<html>\n<body>Bad Gateway</body></html>", {}
        if kind == "no JSON":
            return 200, b"<html>", {}
        if kind == 301:
            return 307, {}, {"Location": call.path.replace("org/", "moved/")}
        if kind == 0:
            return 0, {}, {CUT: "yes"}
        if kind == 200:
            return 200, {}, {}
        headers = {"Retry-After": "7"} if kind == 429 else {}
        raise_code = chance.choice(["", "RepoNotFound", "GatedRepo", "RevisionNotFound"])
        status, payload, more = HubError(kind, f"no: {hub.token}", raise_code).reply()
        return status, payload, headers | more

    hub.meddle = meddle
    return plan


def said(call, *arguments, hub, **options):  # noqa: F811
    """What the call gives, and the line if it refuses."""
    try:
        return call(*arguments, **options), None
    except ExportError as error:
        line = str(error)
        assert "\n" not in line
        assert hub.token not in line
        return None, line


def test_fetching(patient, monkeypatch, tmp_path):
    for seed in SEEDS:
        chance = random.Random(f"fetch {seed}")
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / str(seed)))
        files = base_files(chance.choice([CARD, "", "---\nlicense: [\n---\n"]))
        files |= chance.choice([{}, {"adapter_config.json": b"{}"}, {"sub/config.json": b"{}"}])
        if chance.random() < 0.4:
            del files["model.safetensors"]
            parts = {f"part-{n}.safetensors": b"x" for n in range(1, chance.randint(1, 3))}
            index = chance.choice([INDEX, INDEX, b"{}", b"[", INDEX.replace(b"part-1", b"../x")])
            files |= {"model.safetensors.index.json": index, **parts}
        gated, private = chance.choice([False, False, "auto", "manual"]), chance.random() < 0.2
        repo = patient.add("org/base", files, gated=gated, private=private)
        patient.granted = {"org/base"} if chance.random() < 0.7 else set()
        tokens = [patient.token, patient.token, "hf_" + "w" * 34]
        monkeypatch.setenv("HF_TOKEN", chance.choice(tokens))
        revision = chance.choice([None, None, None, "main", repo.head.sha, "v9", repo.head.sha[:8]])
        plan = faults(patient, chance)
        try:
            base, _ = said(fetch_base, "org/base", revision, hub=patient)
            if base is not None:
                content = {path: blob.content for path, blob in repo.head.files.items()}
                found = {p.relative_to(base.path).as_posix(): p for p in base.path.rglob("*.*")}
                assert {"config.json"} < set(found)
                assert all(path.read_bytes() == content[name] for name, path in found.items())
                assert (base.revision, base.private) == (repo.head.sha, private)
                assert bool(base.gated) == bool(gated)
        except BaseException as error:
            error.add_note(f"seed {seed}: {plan}")
            raise


def test_pushing(patient, monkeypatch, tmp_path):
    base = patient.add("org/base", base_files())
    steered = steered_directory(tmp_path / "out", {"repo": base.id, "revision": base.head.sha})
    names = list(published_files(steered, Manifest.read(steered)))
    for seed in SEEDS:
        chance = random.Random(f"push {seed}")
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / str(seed)))
        patient.repos.pop("me/steered", None)
        base.gated, base.private = chance.choice([False, False, "auto", "manual"]), False
        base.xet, patient.granted = chance.random() < 0.7, {"org/base"}
        edit_manifest(steered, gated=base.gated)
        whole = {name: (steered / name).read_bytes() for name in names}
        old = {"config.json": b"old", "steering_manifest.json": b"{}"}
        if chance.random() < 0.3:
            patient.add("me/steered", old, private=True)
        plan = faults(patient, chance)
        try:
            said(push, steered, "steered", hub=patient)
            check_published(patient, base, whole, old)
            said(verify, "me/steered", hub=patient)
            patient.meddle = lambda _, answer: answer()
            assert push(steered, "steered").startswith(patient.url)
            check_published(patient, base, whole)
        except BaseException as error:
            error.add_note(f"seed {seed}: {plan}")
            raise


def check_published(hub, base, whole, *others):  # noqa: F811
    """Published is all or nothing, and nothing that is gated is open."""
    repo = hub.repos.get("me/steered")
    if repo is None:
        return
    content = {path: blob.content for path, blob in repo.head.files.items()}
    content.pop(".gitattributes")
    assert content in (whole, *others, *([{}] if others else []))
    assert repo.private or repo.gated or not base.gated
