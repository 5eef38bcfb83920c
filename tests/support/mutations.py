"""Damage to a base directory: what has been met, and anything near it by a seed."""

import json
import random
from collections.abc import Callable
from pathlib import Path

import safetensors.torch as st
from safetensors import SafetensorError

from support.hostile import PATHS, edited, replaced
from support.oddities import INDEX, ODDITIES, Damage, edit, shards

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 3\n"
VALUES = [
    *(None, True, -1, 0, 3, 7, 65, 424, 10**5, 2**63, 10**30, 0.5, 1e308, float("nan")),
    *("", "x", "64", "<img>", "float16", [], {}, [[]], {"a": 1}, [3], ["x"], *PATHS[:8]),
]
FRONTS = [
    "license: [mit, apache-2.0]", "license: {a: b}", "license: gemma\nextra: a: b", "- a",
    "license: [", "license: 3", "license: unknown", "license: other\nlicense_link: LICENSE",
    "a: &a [*a]", "? x", "license: mit\nlanguage: 3\npipeline_tag: []", "\t",
    "license: mit\nextra_gated_heading: x", "license: other\nlicense_link: https://x.org",
    "license: other\nlicense_link: ../x",
]  # fmt: skip


def _index(change: Callable[[dict], object]) -> Damage:
    return lambda base: edit(base / INDEX, change)


def _text(**values: object) -> Damage:
    return lambda base: edit(base / "config.json", lambda c: c["text_config"].update(values))


def _config(**values: object) -> Damage:
    return lambda base: edit(base / "config.json", lambda c: c.update(values))


def _write(name: str, content: str | bytes) -> Damage:
    raw = content.encode() if isinstance(content, str) else content
    return lambda base: (base / name).write_bytes(raw)


def _template(change: Callable[[str], str]) -> Damage:
    def damage(base: Path) -> None:
        path = base / "chat_template.jinja"
        path.write_text(change(path.read_text()))

    return damage


def _last(change: Callable[[bytes], bytes]) -> Damage:
    return lambda base: shards(base)[-1].write_bytes(change(shards(base)[-1].read_bytes()))


def _swap(base: Path) -> None:
    first, last = shards(base)[0].name, shards(base)[-1].name

    def change(index: dict) -> None:
        where = index["weight_map"]
        where[next(name for name, shard in where.items() if shard == last)] = first

    edit(base / INDEX, change)


def _dangle(base: Path) -> None:
    entry = {"mtp.fc.weight": shards(base)[-1].name}
    edit(base / INDEX, lambda index: index["weight_map"].update(entry))


def _tensor(base: Path, change: Callable[[dict, str], object], part: str = "down_proj") -> None:
    for path in shards(base):
        tensors = st.load_file(path)
        if name := next((name for name in tensors if part in name), None):
            change(tensors, name)
            st.save_file(tensors, path, metadata={"format": "pt"})
            return


def _poison(tensors: dict, name: str) -> None:
    tensors[name][0, 0] = float("nan")


def _linked(base: Path) -> None:
    front = "license: other\nlicense_name: acme\nlicense_link: terms.txt"
    (base / "README.md").write_text(f"---\n{front}\n---\n")
    (base / "terms.txt").write_text("terms")


GATED = "---\nlicense: gemma\nextra_gated_heading: Access: please accept\n---\n"
CASES: dict[str, tuple[Damage, str]] = {
    "none": (lambda base: None, "verified"),
    "a dangling entry of the index": (_dangle, "verified"),
    "an entry of the wrong shard": (_swap, "verified"),
    "an entry is missing": (_index(lambda i: i["weight_map"].popitem()), "verified"),
    "total_size is a string": (_index(lambda i: i["metadata"].update(total_size="1")), "verified"),
    "metadata is null": (_index(lambda i: i.update(metadata=None)), "no object `metadata`"),
    "no metadata": (_index(lambda i: i.pop("metadata")), "no object `metadata`"),
    "a short shard": (_last(lambda raw: raw[:-1000]), "is no whole safetensors file"),
    "a long shard": (_last(lambda raw: raw + b"x"), "is no whole safetensors file"),
    "a pointer as a shard": (_last(lambda _: POINTER.encode()), "is a pointer of Git LFS"),
    "a pointer as tokenizer": (_write("tokenizer.json", POINTER), "does not load"),
    "a tensor is missing": (
        lambda base: _tensor(base, lambda t, name: t.pop(name)),
        "1 tensors are missing",
    ),
    "a weight is no number": (lambda base: _tensor(base, _poison), "is not finite in float32"),
    "an adapter beside the weights": (_write("adapter_config.json", "{}"), "holds an adapter"),
    "a template that raises": (
        _template(lambda t: "{{ raise_exception('only tools') }}" + t),
        "only tools",
    ),
    "a template that is none": (_template(lambda t: t + "{% if %}"), "cannot render"),
    "no template": (lambda base: (base / "chat_template.jinja").unlink(), "no chat template"),
    "a template without pictures": (
        _template(lambda t: t.replace("<boi> ", "{{ raise_exception('no pictures') }}")),
        "takes no request with image: no pictures",
    ),
    "no generation prompt": (
        _template(lambda t: t.split("{% if add_generation_prompt")[0]),
        "adds no generation prompt",
    ),
    "no pad token": (
        lambda base: edit(base / "tokenizer_config.json", lambda c: c.pop("pad_token")),
        "verified",
    ),
    "a larger vocabulary": (_text(vocab_size=432), "embed_tokens.weight has [424, 64] and not"),
    "text_config is null": (_config(text_config=None), "does not hold"),
    "another number of heads": (_text(num_attention_heads=3), "config.json makes no Gemma 3"),
    "another activation": (_text(hidden_activation="x"), "config.json makes no Gemma 3"),
    "layers without end": (_text(num_hidden_layers=10**30), "num_hidden_layers is 1000000"),
    "code below the top": (_text(auto_map={"a": "b"}), "custom code"),
    "code of a tokenizer": (
        lambda base: edit(base / "tokenizer_config.json", lambda c: c.update(auto_map={})),
        "names code of its own",
    ),
    "a broken generation_config": (_write("generation_config.json", "{"), "is not valid JSON"),
    "a list as processor": (_write("processor_config.json", "[]"), "holds no JSON object"),
    "a card that is no YAML": (_write("README.md", GATED), "line 3: the front matter"),
    "a linked license": (_linked, "verified"),
}


def damage(base: Path, chance: random.Random) -> str:
    """Damage a directory, or make it odd, in one to three places.

    Returns:
        What was done, for messages.
    """
    return "; ".join(
        chance.choice(_KINDS)(base, chance) for _ in range(chance.choice((1, 1, 1, 2, 2, 3)))
    )


def _any_json(base: Path, chance: random.Random) -> str:
    path = chance.choice(sorted(p for p in base.glob("*.json") if p.name != "tokenizer.json"))
    value = chance.choice(VALUES)
    try:
        content = replaced(json.loads(path.read_bytes()), chance.randrange(2**32), value)
    except ValueError:  # damaged before
        return "nothing"
    path.write_bytes(json.dumps(content).encode("utf-8", "surrogatepass"))
    return f"{path.name} {value!r}"


def _any_bytes(base: Path, chance: random.Random) -> str:
    path = chance.choice(sorted(p for p in base.iterdir() if p.is_file()))
    path.write_bytes(edited(path.read_bytes(), chance.randrange(2**32)))
    return f"bytes of {path.name}"


def _any_absence(base: Path, chance: random.Random) -> str:
    path = chance.choice(sorted(p for p in base.iterdir() if p.is_file()))
    path.unlink()
    return f"without {path.name}"


def _any_pointer(base: Path, chance: random.Random) -> str:
    path = chance.choice(sorted(p for p in base.iterdir() if p.is_file()))
    path.write_text(POINTER)
    return f"pointer {path.name}"


def _any_front(base: Path, chance: random.Random) -> str:
    front = chance.choice(FRONTS)
    if (base / "README.md").is_dir():
        return "nothing"
    (base / "README.md").unlink(missing_ok=True)
    (base / "README.md").write_text(f"---\n{front}\n---\n", encoding="utf-8")
    return front


def _any_case(base: Path, chance: random.Random) -> str:
    cases = CASES | ODDITIES
    name = chance.choice(sorted(cases))
    try:
        cases[name][0](base)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError,
            SafetensorError):  # fmt: skip
        return f"{name}, not after what was done before"
    return name


_KINDS = [_any_json, _any_json, _any_json, _any_bytes, _any_absence, _any_pointer, _any_front,
          *[_any_case] * 5]  # fmt: skip
