"""The position policies `prompt` and `all`, against a native model that is steered by hand."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import transformers

from mars_export.checkpoint.writer import write_checkpoint
from support import tiny
from support.oracle import Shown, oracle_generate, oracle_logits, told
from support.tiny import HEADER, IMAGE, random_ids

GREEDY = {"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False}
ROWS = [(random_ids(6, 1), None), (random_ids(9, 2), "image")]
AUTO = transformers.AutoModelForImageTextToText


@pytest.fixture(scope="module", params=tiny.FAMILIES)
def checkpoints(request, tmp_path_factory):
    """Base, and a steered model of each policy, of one family."""
    family, folder = request.param, tmp_path_factory.mktemp(request.param)
    base, models = tiny.save_base(family, folder / "base"), {}
    artefact = tiny.artefact(family)
    for policy in ("prompt", "all"):
        rules = {**artefact.record.rules, "positions": policy}
        record = artefact.record.model_copy(update={"rules": rules})
        replace(artefact, record=record).save(folder / policy / "calibration")
        target = folder / policy / "steered"
        source = tiny.source(family)
        calibration = folder / policy / "calibration"
        write_checkpoint(base, target, source=source, calibration_dir=calibration)
        models[policy] = AUTO.from_pretrained(target, trust_remote_code=True).eval()
    native = AUTO.from_pretrained(base).eval()
    return SimpleNamespace(
        family=family, base=native, models=models, record=tiny.record(family),
        direction=artefact.tensors["direction"],
    )  # fmt: skip


@pytest.fixture(params=["prompt", "all"])
def steered(request, checkpoints):
    """One policy of a family; its model, and the two batches of a text and of a picture."""
    return SimpleNamespace(
        **vars(checkpoints),
        policy=request.param,
        model=checkpoints.models[request.param],
        batch=tiny.inputs(
            checkpoints.family, [(random_ids(6, 1), None), (random_ids(9, 2), "image")]
        ),
    )


def everywhere(batch, more=0):
    """Every column that is no padding, then `more` generated ones; a picture counts from itself."""
    where = []
    for row, (ids, mask) in enumerate(
        zip(batch["input_ids"].tolist(), batch["attention_mask"].tolist(), strict=True)
    ):
        modality, columns = "text", [column for column, real in enumerate(mask) if real]
        columns += [len(ids) + k for k in range(more)]
        for turn, column in enumerate(columns):  # each column is a turn of its own
            shows = column < len(ids) and ids[column] == IMAGE
            modality = "image" if shows else modality
            where += [(row, column, Shown(modality, int(shows), turn))]
    return where


def by_hand(steered, call, *args, **options):
    return call(steered.base, steered.record, steered.direction, *args, **options)


def test_a_forward_is_steered_in_every_column_of_the_prompt(steered):
    got = steered.model(**steered.batch).logits
    want = by_hand(steered, oracle_logits, steered.batch, everywhere(steered.batch))
    for row, mask in enumerate(steered.batch["attention_mask"].bool()):
        torch.testing.assert_close(got[row, mask], want[row, mask], rtol=1e-4, atol=1e-4)
    lengths = steered.batch["attention_mask"].sum(1).tolist()
    places = [[position for position, _, _ in row] for row in told(steered.model)]
    assert places == [list(range(n)) for n in lengths]


@pytest.mark.parametrize("cached", [True, False])
def test_generate_steers_the_prompt_and_with_all_the_answer(steered, cached):
    more = 3 if steered.policy == "all" else 0  # the last token is never run
    where = everywhere(steered.batch, more)
    want, pushes = by_hand(steered, oracle_generate, steered.batch, where, **GREEDY)
    got = steered.model.generate(**steered.batch, **GREEDY, use_cache=cached)
    assert got.equal(want)
    for row, wanted in zip(told(steered.model), pushes, strict=True):
        wanted = wanted[: len(wanted) - more]
        assert [s[:2] for s in row] == [s[:2] for s in wanted]
        assert [s[2] for s in row] == pytest.approx([s[2] for s in wanted], rel=1e-3, abs=1e-2)
    other = steered.models["prompt" if steered.policy == "all" else "all"]
    assert other.generate(**steered.batch, **GREEDY)[:, :-3].equal(got[:, :-3])


def text(steered, ids):
    types = {"gemma3": "token_type_ids", "qwen3_vl": "mm_token_type_ids"}[steered.family]
    return {
        "input_ids": ids, "attention_mask": torch.ones_like(ids), types: torch.zeros_like(ids),
    }  # fmt: skip


def test_an_answer_that_is_scored_is_steered_as_when_it_was_generated(steered):
    ids = torch.tensor([tiny.prompt(random_ids(6, 1))])
    answer = steered.model.generate(**text(steered, ids), **GREEDY)
    logits = steered.model(**text(steered, answer)).logits
    logits[..., tiny.TEXT["eos_token_id"]] = -torch.inf  # as `min_new_tokens` has it
    assert logits[0, ids.shape[1] - 1 : -1].argmax(-1).equal(answer[0, ids.shape[1] :])
    steered_columns = answer.shape[1] if steered.policy == "all" else ids.shape[1]
    assert len(told(steered.model)[0]) == steered_columns


def test_pieces_by_hand_are_steered_or_refused(steered):
    ids = torch.tensor([tiny.prompt(random_ids(6, 1))])
    if steered.policy == "prompt":
        with pytest.raises(ValueError, match="row 0 shows no assistant header"):
            steered.model(**text(steered, ids[:, :-2]))
        cache = steered.model(**text(steered, ids)).past_key_values
        later = torch.tensor([random_ids(3, 2) + HEADER])
        with pytest.raises(ValueError, match="begins with the prompt, of which the cache holds"):
            steered.model(input_ids=later, past_key_values=cache)
        return
    want = steered.model.generate(**text(steered, ids), **GREEDY)
    out, piece, tokens = steered.model(**text(steered, ids[:, :4])), ids[:, 4:], []
    for _ in range(4):
        out = steered.model(input_ids=piece, past_key_values=out.past_key_values)
        logits = out.logits[:, -1:]
        logits[..., tiny.TEXT["eos_token_id"]] = -torch.inf
        piece = logits.argmax(-1)
        tokens.append(piece)
    assert torch.cat(tokens, 1).equal(want[:, ids.shape[1] :])
    assert [s[0] for s in told(steered.model)[0]] == list(range(want.shape[1] - 1))


def test_a_cached_turn_is_answered_as_a_refilled_one_or_refused(steered):
    ids = torch.tensor([tiny.prompt(random_ids(6, 1))])
    options = {**GREEDY, "return_dict_in_generate": True}
    first = steered.model.generate(**text(steered, ids), **options)
    more = torch.tensor([random_ids(5, 9) + HEADER])
    whole = text(steered, torch.cat([first.sequences, more], 1))
    cached = {**whole, "past_key_values": first.past_key_values}
    if steered.policy == "prompt":  # the first answer was not steered; given again, it would be
        with pytest.raises(ValueError, match="steered elsewhere"):
            steered.model.generate(**cached, **GREEDY)
    else:
        got = steered.model.generate(**cached, **GREEDY)
        assert got.equal(steered.model.generate(**whole, **GREEDY))


def test_constant_addition_tells_its_push_and_no_gate(tmp_path):
    _, directory = tiny.export("gemma3", tmp_path, method="addition")
    model = AUTO.from_pretrained(directory, trust_remote_code=True).eval()
    model(**tiny.inputs("gemma3", [(random_ids(6, 1), None)]))
    push = model.get_decoder().layers[tiny.LAYER].steering.push
    assert push.norm() > 1
    assert {(s.gate, s.layer) for s in model.steering.last[0]} == {(None, tiny.LAYER)}
    assert [s.strength for s in model.steering.last[0]] == pytest.approx([float(push.norm())] * 10)
