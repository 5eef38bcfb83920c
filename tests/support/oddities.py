"""Base directories that are odd and whole, or nearly: stored, saved or named another way."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors.torch as st
import torch

INDEX = "model.safetensors.index.json"
Damage = Callable[[Path], object]


def edit(path: Path, change: Callable[[dict], object]) -> None:
    """Change the object of a JSON file, which is made if it is not there."""
    content = json.loads(path.read_bytes()) if path.exists() else {}
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def json_of(name: str, **values: object) -> Damage:
    """Sets keys of a JSON file."""
    return lambda base: edit(base / name, lambda content: content.update(values))


def shards(base: Path) -> list[Path]:
    return sorted(base.glob("model-*.safetensors"))


def tensors(base: Path, change: Callable[[str, torch.Tensor], torch.Tensor]) -> None:
    """Give every tensor another value."""
    for path in shards(base):
        new = {name: change(name, tensor) for name, tensor in st.load_file(path).items()}
        st.save_file(new, path, metadata={"format": "pt"})


def _cast(dtype: torch.dtype, part: str) -> Damage:
    """Stores the tensors whose names hold `part` in another dtype."""
    return lambda base: tensors(base, lambda name, t: t.to(dtype) if part in name else t)


def _filled(value: float, part: str) -> Damage:
    """One element of the tensors whose names hold `part` becomes `value`."""

    def change(name: str, tensor: torch.Tensor) -> torch.Tensor:
        if part in name:
            tensor.view(-1)[0] = value
        return tensor

    return lambda base: tensors(base, change)


def _untied(stored: bool) -> Damage:
    """Words are tied to the head no longer; the head is stored or not."""

    def damage(base: Path) -> None:
        def untie(config: dict[str, Any]) -> None:
            config["tie_word_embeddings"] = False
            config.get("text_config", {})["tie_word_embeddings"] = False

        edit(base / "config.json", untie)
        if stored:
            _store_head(base)

    return damage


def _store_head(base: Path) -> None:
    found = [(p, t) for p in shards(base) for n, t in st.load_file(p).items() if "embed_tok" in n]
    path, words = found[0]
    held = st.load_file(path)
    st.save_file(held | {"lm_head.weight": words.clone()}, path, metadata={"format": "pt"})
    edit(base / INDEX, lambda i: i["weight_map"].update({"lm_head.weight": path.name}))


def _renumbered(base: Path) -> None:
    """Shards with gaps between their numbers, and one with another name."""
    names = {path.name: f"model-{3 * n:05}-of-99999.safetensors" for n, path in
             enumerate(shards(base))}  # fmt: skip
    names[shards(base)[-1].name] = "extra weights.safetensors"
    for old, new in names.items():
        (base / old).rename(base / new)

    def rename(index: dict[str, Any]) -> None:
        index["weight_map"] = {name: names[shard] for name, shard in index["weight_map"].items()}

    edit(base / INDEX, rename)


def _single(base: Path) -> None:
    """One file of weights beside the index of shards that are gone."""
    whole = {name: tensor for path in shards(base) for name, tensor in st.load_file(path).items()}
    for path in shards(base):
        path.unlink()
    st.save_file(whole, base / "model.safetensors", metadata={"format": "pt"})


def _single_and_broken_index(base: Path) -> None:
    _single(base)
    (base / INDEX).write_text("{}")


def _without_metadata(base: Path) -> None:
    for path in shards(base):
        st.save_file(st.load_file(path), path)


def _linked(base: Path) -> None:
    """Every file is a link to one elsewhere, as in the cache of the Hub."""
    blobs = base.parent.parent / "blobs"
    shutil.rmtree(blobs, ignore_errors=True)
    blobs.mkdir()
    for path in sorted(base.iterdir()):
        path.rename(blobs / path.name)
        path.symlink_to(blobs / path.name)


def _circle(name: str) -> Damage:
    """A link in a circle in place of a file."""

    def damage(base: Path) -> None:
        (base / name).unlink(missing_ok=True)
        (base / name).symlink_to(name)

    return damage


def _litter(base: Path) -> None:
    for name in (
        ".DS_Store",
        "._model.safetensors",
        "consolidated.safetensors",
        "x.gguf",
        "pytorch_model.bin",
        "model-00099-of-00099.safetensors",
        "mars.safetensors",
        "steering_manifest.json",
        "seal.json",
        "handler.py",
        "训练.log",
        "a b.txt",
    ):
        (base / name).write_bytes(b"litter")  # fmt: skip
    for name in ("onnx", "original", ".cache", "evaluation", "assets", "calibration"):
        (base / name).mkdir()
        (base / name / "model.safetensors").write_bytes(b"litter")


def _folder(name: str) -> Damage:
    def damage(base: Path) -> None:
        (base / name).unlink(missing_ok=True)
        (base / name).mkdir()

    return damage


def _named_templates(name: str, *others: str) -> Damage:
    """Several templates with names; `default` is the model's own where it is among them."""

    def damage(base: Path) -> None:
        template = (base / "chat_template.jinja").read_text()
        (base / "chat_template.jinja").unlink()
        named = [{"name": n, "template": template} for n in (name, *others)]
        edit(base / "tokenizer_config.json", lambda c: c.update(chat_template=named))

    return damage


def _template_in(name: str) -> Damage:
    def damage(base: Path) -> None:
        template = (base / "chat_template.jinja").read_text()
        (base / "chat_template.jinja").unlink()
        edit(base / name, lambda c: c.update(chat_template=template))

    return damage


def _more_templates(base: Path) -> None:
    (base / "additional_chat_templates").mkdir()
    (base / "additional_chat_templates" / "tools.jinja").write_text("{{ messages }}")


def _added(*tokens: str, special: bool = True, start: int = 424) -> Damage:
    """More tokens in tokenizer.json; `start` is the number of words that the model has."""

    def damage(base: Path) -> None:
        def add(content: dict[str, Any]) -> None:
            form = content["added_tokens"][0]
            content["added_tokens"] += [
                form | {"id": start + n, "content": token, "special": special}
                for n, token in enumerate(tokens)
            ]

        edit(base / "tokenizer.json", add)

    return damage


def _from_config(name: str) -> Damage:
    """Removes a key from config.json, of the whole and of the text model."""

    def change(config: dict[str, Any]) -> None:
        config.pop(name, None)
        config.get("text_config", {}).pop(name, None)

    return lambda base: edit(base / "config.json", change)


def _ends(value: object) -> Damage:
    """The tokens at which an answer ends, wherever they are stated."""

    def damage(base: Path) -> None:
        edit(base / "generation_config.json", lambda c: c.update(eos_token_id=value))
        edit(base / "config.json", lambda c: c.update(eos_token_id=value))
        edit(base / "config.json", lambda c: c.get("text_config", {}).update(eos_token_id=value))

    return damage


def _more_tokens(base: Path) -> None:
    edit(base / "processor_config.json", lambda c: c.update(image_seq_length=9))


def _beyond(base: Path) -> None:
    """Words of the chat template that the model has no embeddings of."""

    def move(content: dict[str, Any]) -> None:
        words = content["model"]["vocab"]
        words["user"] = 5000

    edit(base / "tokenizer.json", move)


def _no_text_config(base: Path) -> None:
    edit(base / "config.json", lambda c: c.update(c.pop("text_config", {}), text_config=None))


_SAMPLED = {"do_sample": True, "temperature": 50.0, "top_p": 0.1, "top_k": 3, "min_p": 0.2}
_CONTRARY = {"do_sample": False, "temperature": 0.0, "top_p": 0.5, "num_beams": 3,
             "num_beam_groups": 2, "penalty_alpha": 0.6, "early_stopping": True}  # fmt: skip
_FORCED = {"max_length": 5, "max_new_tokens": 1, "min_new_tokens": 50, "repetition_penalty": 5.0,
           "forced_bos_token_id": 3, "suppress_tokens": [5], "stop_strings": ["a"]}  # fmt: skip
GENERATION = "generation_config.json"
SPECIAL = "special_tokens_map.json"

ODDITIES: dict[str, tuple[Damage, str]] = {
    "sampling at a high temperature": (json_of(GENERATION, **_SAMPLED), "verified"),
    "generation against itself": (json_of(GENERATION, **_CONTRARY), "verified"),
    "generation with limits": (json_of(GENERATION, **_FORCED), "verified"),
    "generation with unknown keys": (json_of(GENERATION, a={"b": [1]}, trans=None), "verified"),
    "a static cache": (json_of(GENERATION, cache_implementation="static"), "verified"),
    "no generation_config": (lambda base: (base / GENERATION).unlink(), "verified"),
    "generation of another type": (json_of(GENERATION, temperature="hot"), ""),
    "a watermark of generation": (json_of(GENERATION, watermarking_config={"x": 1}), ""),
    "ends as a list": (_ends([2, 5]), "verified"),
    "ends as an empty list": (_ends([]), ""),
    "ends beyond the vocabulary": (_ends([2, 10**6]), ""),
    "no end": (_ends(None), "verified"),
    "ends as words": (_ends("<eos>"), ""),
    "tokens beyond the embeddings": (_added("<tool>", "<call>"), "verified"),
    "plain tokens beyond the embeddings": (_added("toolish", special=False), "verified"),
    "tokens with a gap": (_added("<tool>", start=5000), "verified"),
    "a token twice": (_added("<turn>"), ""),
    "an empty token": (_added(""), ""),
    "a special tokens map": (json_of(SPECIAL, eos_token={"content": "<end>"}), "verified"),
    "a special token nobody knows": (json_of(SPECIAL, eos_token="<none>"), ""),
    "a short longest input": (json_of("tokenizer_config.json", model_max_length=4), "verified"),
    "padding right": (json_of("tokenizer_config.json", padding_side="right"), "verified"),
    "a bos added": (json_of("tokenizer_config.json", add_bos_token=True), "verified"),
    "an unknown tokenizer class": (json_of("tokenizer_config.json", tokenizer_class="X"), ""),
    "template in tokenizer_config": (_template_in("tokenizer_config.json"), "only its tokenizer"),
    "template in chat_template.json": (_template_in("chat_template.json"), "verified"),
    "template in processor_config": (_template_in("processor_config.json"), ""),
    "named templates": (_named_templates("default", "tools"), "only its tokenizer"),
    "named templates without a default": (_named_templates("a", "b"), "no chat template; add"),
    "more templates": (_more_templates, "verified"),
    "no architectures": (_from_config("architectures"), "verified"),
    "architectures of another": (json_of("config.json", architectures=["X", 3]), ""),
    "code at the top": (json_of("config.json", auto_map={"AutoModel": "m.M"}), "custom code"),
    "no dtype": (_from_config("dtype"), "verified"),
    "an older word for dtype": (json_of("config.json", torch_dtype="bfloat16"), "verified"),
    "an unknown dtype": (json_of("config.json", dtype="float8"), ""),
    "tied weights and a stored head": (_store_head, "verified"),
    "a head of its own": (_untied(stored=True), "verified"),
    "a head that is not stored": (_untied(stored=False), "1 tensors are missing"),
    "shards with gaps": (_renumbered, "verified"),
    "one file and an old index": (_single, "verified"),
    "one file and a broken index": (_single_and_broken_index, "verified"),
    "half a character": (json_of(INDEX, metadata={"\ud800": "\udfff"}), "verified"),
    "shards without metadata": (_without_metadata, ""),
    "files that are links": (_linked, "verified"),
    "a shard that links to itself": (_circle("model-00001-of-00004.safetensors"), ""),
    "a license that links to itself": (_circle("LICENSE"), ""),
    "a license that is a folder": (_folder("LICENSE"), "verified"),
    "a tokenizer that is a folder": (_folder("tokenizer.json"), ""),
    "a card that is a folder": (_folder("README.md"), ""),
    "a card that links to itself": (_circle("README.md"), ""),
    "a suite that is a folder": (_folder("suite.jsonl"), ""),
    "a steered directory's litter": (_litter, "verified"),
    "bfloat16": (_cast(torch.bfloat16, ""), "verified"),
    "float16 and float32": (_cast(torch.float16, "mlp"), "verified"),
    "bfloat16 norms": (_cast(torch.bfloat16, "norm"), "verified"),
    "weights of whole numbers": (_cast(torch.int8, "mlp"), ""),
    "weights of float64": (_cast(torch.float64, "q_proj"), "verified"),
    "weights of eight bits": (_cast(torch.float8_e4m3fn, "mlp"), ""),
    "an infinite norm": (_filled(float("inf"), "layers.1.input_layernorm"), "is not finite"),
    "an infinite picture": (_filled(float("-inf"), "patch_embedding.weight"), "is not finite"),
    "words without end": (_filled(float("nan"), "embed_tokens"), "is not finite"),
    "another number of tokens of a picture": (_more_tokens, "takes no request with image"),
    "a word beyond the embeddings": (_beyond, "takes no request with text"),
    "text_config is null and all the rest": (_no_text_config, ""),
    "a large weight": (_filled(3e38, "layers.1.mlp.up_proj"), ""),
}  # fmt: skip
"""By name, with what the line says; nothing where any line will do, and an export too."""
