"""A steered directory saved again: its steering is read and checked, and left out of a view."""

import json
import shutil

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from mars_export.checkpoint.derived import native_config, native_view, read_steering
from mars_export.common.errors import ExportError
from mars_export.families.weights import weight_map
from support import tiny


@pytest.fixture(scope="module", params=tiny.FAMILIES)
def made(request, tmp_path_factory):
    """Base, steered directory and the same saved again by Transformers, in one and many shards."""
    folder = tmp_path_factory.mktemp(request.param)
    base, steered = tiny.export(request.param, folder)
    auto = transformers.AutoModelForImageTextToText
    model = auto.from_pretrained(steered, trust_remote_code=True)
    model.save_pretrained(folder / "one")
    model.save_pretrained(folder / "many", max_shard_size="200KB")
    return base, {"exported": steered, "one": folder / "one", "many": folder / "many"}


@pytest.fixture(params=["exported", "one", "many"])
def pair(request, made):
    return made[0], made[1][request.param]


def test_a_view_is_the_base_and_nothing_of_the_steering(pair, tmp_path):
    base, directory = pair
    (directory / "notes.txt").write_text("kept")
    native_view(directory, tmp_path / "view")
    native_view(directory, tmp_path / "view")  # again: an earlier one is replaced
    view = tmp_path / "view"
    assert not any("steering" in name for name in weight_map(view))
    assert not any("steering" in n for f in view.glob("*.safetensors") for n in load_file(f))
    assert not list(view.glob("*.py"))
    assert (view / "notes.txt").read_text() == "kept"
    config = native_config(directory)
    assert "steering" not in config
    assert "auto_map" not in config
    auto = transformers.AutoModelForImageTextToText
    model, info = auto.from_pretrained(view, output_loading_info=True)
    want = auto.from_pretrained(base)
    assert type(model) is type(want)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    theirs = dict(want.named_parameters())
    assert all(p.equal(theirs[n]) for n, p in model.named_parameters())
    assert model.config.to_dict()["text_config"] == want.config.to_dict()["text_config"]


def test_the_same_view_has_the_same_times(pair, tmp_path):
    seen = []
    for _ in range(2):
        native_view(pair[1], tmp_path / "view")
        files = sorted(p for p in (tmp_path / "view").iterdir() if p.is_file())
        seen.append([(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in files])
    assert seen[0] == seen[1]


def test_steering_is_read_and_checked(made, tmp_path):
    directories = made[1]
    rules, tensors = read_steering(directories["exported"])
    for name in ("one", "many"):
        again, same = read_steering(directories[name])
        assert again == rules
        assert same.keys() == tensors.keys()
        assert all(same[2][n].equal(t) for n, t in tensors[2].items())
    bad = shutil.copytree(directories["one"], tmp_path / "bad")
    weights = load_file(bad / "model.safetensors")
    name = next(n for n in weights if n.endswith("steering.direction"))
    save_file({**weights, name: weights[name] * 0}, bad / "model.safetensors", {"format": "pt"})
    with pytest.raises(ExportError, match="SHA-256 differs"):
        read_steering(bad)
    del weights[name]
    save_file(weights, bad / "model.safetensors", {"format": "pt"})
    with pytest.raises(ExportError, match="SHA-256 differs"):
        native_view(bad, tmp_path / "view")
    assert not (tmp_path / "view").exists()


def test_what_is_not_steered_is_named(made, tmp_path):
    with pytest.raises(ExportError, match="is not a steered checkpoint"):
        read_steering(made[0])
    (tmp_path / "list").mkdir()
    (tmp_path / "list" / "config.json").write_text("[]")
    with pytest.raises(ExportError, match="is not a steered checkpoint"):
        native_config(tmp_path / "list")
    (tmp_path / "adapter_config.json").write_text(json.dumps({}))
    with pytest.raises(ExportError, match="merge_and_unload"):
        read_steering(tmp_path)
    with pytest.raises(ExportError, match="cannot be read"):
        read_steering(tmp_path / "absent")


def test_steering_of_another_dtype_is_not_the_exported_one(made, tmp_path):
    bad = shutil.copytree(made[1]["one"], tmp_path / "bad")
    weights = load_file(bad / "model.safetensors")
    name = next(n for n in weights if n.endswith("steering.direction"))
    halved = weights[name].to(torch.bfloat16)
    save_file({**weights, name: halved}, bad / "model.safetensors", {"format": "pt"})
    with pytest.raises(ExportError, match="SHA-256 differs"):
        read_steering(bad)
