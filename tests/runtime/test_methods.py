"""What checkpoints steered in decoder layers do: the rule in a hook on the native model."""

from contextlib import contextmanager
from functools import partial
from itertools import product
from types import SimpleNamespace

import pytest
import torch
import transformers

from mars_export.methods import method_named
from mars_export.runtime.positions import contexts
from support import tiny

CASES = {
    **{
        name: row
        for name, row in tiny.METHOD_CASES.items()
        if [part.site for part in method_named(row.method).parts] == ["decoder"]
    },
    "addition in two layers": tiny.MethodCase(
        "addition", tiny.addition, {"positions": "prompt", "layers": (1, 2)}
    ),
}
STEPS = 5
AUTO = transformers.AutoModelForImageTextToText


@pytest.fixture(scope="module", params=product(CASES, tiny.FAMILIES), ids=" on ".join)
def case(request, tmp_path_factory):
    name, family = request.param
    row = CASES[name]
    folder = tmp_path_factory.mktemp(family)
    base, directory = tiny.export(family, folder, row.method, **row.options)
    artefact = row.artefact(family, **row.options)
    rules = {"modalities": list(artefact.record.source.modalities)}
    rule_class = method_named(row.method).rule_class()
    by_layer = {layer: rule_class(tiny.HIDDEN, rules) for layer in artefact.record.layers}
    for layer, rule in by_layer.items():
        tensors = {
            tensor: artefact.tensors.get(f"{tensor}.{layer}", artefact.tensors.get(tensor))
            for tensor in rule_class.TENSORS
        }
        rule.load_state_dict(tensors)
    return SimpleNamespace(
        base=AUTO.from_pretrained(base).eval(),
        model=AUTO.from_pretrained(directory, trust_remote_code=True).eval(),
        rules=by_layer,
        positions=artefact.record.rules["positions"],
        modalities=rules["modalities"],
        batch=tiny.inputs(
            family, [(tiny.random_ids(6, 1), None), (tiny.random_ids(9, 2), "image")]
        ),
    )  # fmt: skip


def steered_columns(case):
    """(B, T + STEPS) bool: what the policy steers of a prompt and of the answer to it."""
    prompt = case.batch["attention_mask"].bool()
    if case.positions == "turn_end":
        prompt = torch.zeros_like(prompt).index_fill(1, torch.tensor([prompt.shape[1] - 1]), True)
    answer = torch.full((len(prompt), STEPS), case.positions == "all")
    return torch.cat([prompt, answer], 1)


@contextmanager
def rule_in_a_hook(case):
    """The base with the rule at the steered columns; forwards follow one another in a cache."""
    columns, starts = steered_columns(case), dict.fromkeys(case.rules, 0)
    ids, image = case.batch["input_ids"], case.modalities.index("image")
    prompt = contexts((ids == tiny.IMAGE).long() * image, columns[:, : ids.shape[1]])
    context = torch.cat([prompt, prompt[:, -1:].expand(-1, STEPS, -1)], 1)

    def hook(index, _layer, _args, out):
        start = starts[index]
        starts[index] = start + out.shape[1]
        here = columns[:, start : starts[index]]
        changed, _ = case.rules[index](out.float(), context[:, start : starts[index]])
        return torch.where(here[..., None], changed, out)

    layers = case.base.get_decoder().layers
    handles = [layers[index].register_forward_hook(partial(hook, index)) for index in case.rules]
    try:
        yield case.base
    finally:
        for handle in handles:
            handle.remove()


def test_off_is_the_base_bit_for_bit(case):
    case.model.steering.enabled = False
    try:
        off = case.model(**case.batch).logits
    finally:
        case.model.steering.enabled = True
    assert off.equal(case.base(**case.batch).logits)


def test_a_forward_is_the_rule_in_a_hook(case):
    with rule_in_a_hook(case) as by_hand:
        expected = by_hand(**case.batch).logits
    logits = case.model(**case.batch).logits
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
    assert not logits[:, -1].equal(case.base(**case.batch).logits[:, -1])


def test_generated_tokens_are_those_of_the_rule_in_a_hook(case):
    options = {"max_new_tokens": STEPS, "min_new_tokens": STEPS, "do_sample": False}
    with rule_in_a_hook(case) as by_hand:
        expected = by_hand.generate(**case.batch, **options)
    assert case.model.generate(**case.batch, **options).equal(expected)


def test_the_record_names_every_steered_position_of_the_prompt(case):
    case.model.generate(**case.batch, max_new_tokens=1, do_sample=False)
    columns = steered_columns(case)[:, :-STEPS]
    for row, name, steered in zip(
        columns, ("text", "image"), case.model.steering.last, strict=True
    ):
        assert len(steered) == int(row.sum()) * len(case.rules)
        assert steered[-1].modality == name
        assert {entry.layer for entry in steered} == set(case.rules)
        assert steered[-1].strength > 0


def test_saved_again_it_steers_alike(case, tmp_path):
    case.model.save_pretrained(tmp_path)
    again = AUTO.from_pretrained(tmp_path, trust_remote_code=True).eval()
    again.verify_steering()
    assert again(**case.batch).logits.equal(case.model(**case.batch).logits)


def test_in_half_precision_the_rule_keeps_its_tensors(case):
    half = AUTO.from_pretrained(
        case.model.config._name_or_path, trust_remote_code=True, dtype=torch.bfloat16
    )
    half.verify_steering()
    for index, rule in case.rules.items():
        tensors = half.get_decoder().layers[index].steering.tensors()
        assert all(tensor.dtype == torch.float32 for tensor in tensors.values())
        assert all(tensor.equal(getattr(rule, name)) for name, tensor in tensors.items())
