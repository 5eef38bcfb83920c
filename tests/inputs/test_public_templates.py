"""Chat templates of installed packages, as they are: each is read, or refused in one line."""

import ast
import re
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from mars_export.common.errors import ExportError
from mars_export.inputs.template import turn_tokens
from mars_export.runtime.positions import header_ends
from support.byte_pairs import tokenizer

FOLDERS = {"trl": "chat_templates", "vllm": "transformers_utils/chat_templates"}
MARKS = re.compile(r"<[^\s<>{}]+>|\[/?[A-Z_]+\]")
CONTENTS = ["first qa", "first reply", "second qb", "second reply", "third qc"]
READABLE = {"chatml", "gemma3", "llama3", "llava_next", "mistral", "phi3", "qwen3", "zephyr"}


class Multimodal:
    """A processor whose template walks through typed parts."""

    def __init__(self, words):
        self.tokenizer, self.chat_template = words, words.chat_template
        self.apply_chat_template = words.apply_chat_template


def root(package):
    spec = find_spec(package)
    places = spec.submodule_search_locations if spec else None
    return Path(next(iter(places))) if places else None


def templates():
    for package, folder in FOLDERS.items():
        if root(package):
            for path in sorted((root(package) / folder).glob("*.jinja")):
                yield package, path.stem.removeprefix("template_"), path.read_text("utf-8")
    module = root("unsloth") and root("unsloth") / "chat_templates.py"
    if module and module.is_file():  # importing it would need its accelerator
        for node in ast.parse(module.read_text("utf-8")).body:
            value = node.value if isinstance(node, ast.Assign) else None
            if isinstance(value, ast.Constant) and "{%" in str(value.value):
                name = node.targets[0].id.removesuffix("_template")
                yield "unsloth", name, value.value


def processors(template):
    plain, special = tokenizer("qwen", template), tokenizer("qwen", template)
    marks = sorted(set(MARKS.findall(template)))
    special.add_special_tokens({"additional_special_tokens": marks})
    return {"plain": plain, "special": special, "typed": Multimodal(special)}


def conversation(processor):
    typed = isinstance(processor, Multimodal)
    for n, content in enumerate(CONTENTS):
        parts = [{"type": "text", "text": content}] if typed else content
        yield {"role": "assistant" if n % 2 else "user", "content": parts}


def check(processor, turns):
    words = getattr(processor, "tokenizer", processor)
    text = processor.apply_chat_template(
        list(conversation(processor)), tokenize=False, add_generation_prompt=True
    )
    ids = words.encode(text, add_special_tokens=False)
    hits = header_ends(torch.tensor([ids]), [header.model_dump() for header in turns.headers])[0]
    ends = [i + 1 for i, hit in enumerate(hits.tolist()) if hit]
    assert len(ends) == 3
    for n, end in enumerate(ends):
        before = words.decode(ids[:end])
        assert [content for content in CONTENTS if content in before] == CONTENTS[: 2 * n + 1]
    for start in turns.turn_starts:  # generate() refuses a prompt that has one there
        assert not any(ids[i : i + len(start)] == start for i in range(ends[-1], len(ids)))


def outcome(processor):
    try:
        return turn_tokens(processor)
    except ExportError as error:
        return str(error)


@pytest.mark.parametrize(
    ("name", "template"),
    [pytest.param(name, text, id=f"{package}-{name}") for package, name, text in templates()],
)
def test_a_template_is_read_or_refused(name, template):
    forms = processors(template)
    outcomes = {form: outcome(processor) for form, processor in forms.items()}
    refusals = [message for message in outcomes.values() if isinstance(message, str)]
    assert all(re.fullmatch(r"The chat template [^\n]+\.", message) for message in refusals)
    assert len(refusals) < len(forms) or name not in READABLE
    for form, turns in outcomes.items():
        if not isinstance(turns, str):
            check(forms[form], turns)
