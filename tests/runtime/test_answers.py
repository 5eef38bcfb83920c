"""A method at generate(): every way of generating is steered as by hand, or raises."""

import copy
import pickle
import threading
from types import SimpleNamespace

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from mars_export.checkpoint.writer import write_checkpoint
from mars_export.runtime.guard import refuse_engines
from mars_export.runtime.passes import read_row
from support import tiny, zoo
from support.answers import ByHand, alone
from support.behavior import load
from support.tiny import HEADER, IMAGE, VISION_END, VISION_START, random_ids

AUTO = transformers.AutoModelForImageTextToText
USER = (310, 315)
STEPS = 6
GREEDY = {"do_sample": False, "max_new_tokens": STEPS, "min_new_tokens": STEPS}
PICTURE = [VISION_START, *[IMAGE] * 4, VISION_END]


@pytest.fixture(scope="module", params=tiny.FAMILIES)
def case(request, tmp_path_factory):
    family, folder = request.param, tmp_path_factory.mktemp(request.param)
    base, directory = tiny.export(family, folder, "ras")
    rows = [(random_ids(6, 1), None), (random_ids(9, 2), "image"), (random_ids(4, 3), "image")]
    native = AUTO.from_pretrained(base).eval()
    return SimpleNamespace(
        family=family,
        directory=directory,
        base=native,
        model=AUTO.from_pretrained(directory, trust_remote_code=True).eval(),
        by_hand=ByHand(native, tiny.ras(family)),
        batch=tiny.inputs(family, rows),
        one=tiny.inputs(family, rows[1:2]),
        text=tiny.inputs(family, rows[:1]),
    )


def gates(model):
    return [[s.gate for s in row] for row in model.steering.last]


def forwards(model):
    """A list that grows by one entry with each forward of the model below the head."""
    seen = []
    model.base_model.register_forward_hook(lambda *_: seen.append(1))
    return seen


def test_rows_of_a_batch_are_answered_as_each_alone(case):
    out = case.model.generate(**case.batch, **GREEDY)
    together = gates(case.model)
    assert together[1] != together[2]
    pixels = case.batch["pixel_values"].chunk(2)
    grids = case.batch.get("image_grid_thw", torch.zeros(2, 3)).chunk(2)
    for row in range(3):
        shown = {"pixel_values": pixels[row - 1], "image_grid_thw": grids[row - 1]}
        shown = {name: t for name, t in shown.items() if row and name in case.batch}
        one = alone(case.batch, row, shown)
        answer = case.model.generate(**one, **GREEDY)
        assert gates(case.model)[0] == pytest.approx(together[row], abs=1e-4)
        assert answer[0, -STEPS:].equal(out[row, -STEPS:])


@pytest.mark.parametrize(
    "options",
    [
        {"use_cache": False},
        {"cache_implementation": "static"},
        {"prefill_chunk_size": 3},
        {"prompt_lookup_num_tokens": 2},
    ],
    ids=lambda options: next(iter(options)),
)
def test_the_same_tokens_by_every_way_of_greedy_decoding(case, options):
    want = case.model.generate(**case.text, **GREEDY)
    told = gates(case.model)
    try:
        case.base.generate(**case.text, **GREEDY, **options)
    except RuntimeError as error:  # Qwen3-VL in pieces, in Transformers 5.16
        pytest.skip(f"the base does not answer so: {error}")
    assert case.model.generate(**case.text, **GREEDY, **options)[:, : want.shape[1]].equal(want)
    assert gates(case.model) == [pytest.approx(row, abs=1e-4) for row in told]


def test_beams_and_several_samples_share_the_risk_of_their_row(case):
    risk = case.by_hand.risk(case.one)
    for options in (
        {"num_beams": 3, "num_return_sequences": 2, "do_sample": False},
        {"num_return_sequences": 3, "do_sample": True, "top_k": 20},
    ):
        options = {"max_new_tokens": STEPS, "min_new_tokens": STEPS, **options}
        torch.manual_seed(1)
        got = case.model.generate(**case.one, **options)
        told = [gate for row in gates(case.model) for gate in row]
        assert told == pytest.approx([risk] * len(told), abs=1e-3)
        torch.manual_seed(1)
        assert got.equal(case.by_hand.answer(case.one, risk, **options))


def test_an_answer_in_pieces_is_the_answer_in_one_call(case):
    whole, ids = case.model.generate(**case.text, **GREEDY), case.text["input_ids"]
    for step in range(STEPS):
        more = {name: torch.zeros_like(ids) for name in case.text if name.endswith("type_ids")}
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), **more}
        ids = case.model.generate(**inputs, do_sample=False, max_new_tokens=1, min_new_tokens=1)
        assert len(case.model.steering.last) == (1 if step < 3 else 0)
    assert ids.equal(whole)


def test_a_cache_of_the_beginning_changes_nothing(case):
    ids = case.text["input_ids"]
    with case.model.steering.off():
        cache = case.model(input_ids=ids[:, :4], use_cache=True).past_key_values
    with pytest.raises(ValueError, match="cache was not filled by this model with steering on"):
        case.model.generate(**case.text, past_key_values=cache, **GREEDY)
    first = case.model.generate(**case.text, **GREEDY, return_dict_in_generate=True)
    rest = {"input_ids": ids[:, -2:], "attention_mask": torch.ones(1, 2 + STEPS + ids.shape[1])}
    with pytest.raises(ValueError, match="pass the whole conversation in input_ids"):
        case.model.generate(**rest, past_key_values=first.past_key_values, **GREEDY)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"steering_positions": [[1]]}, ValueError, "leave out steering_positions"),
        ({"guidance_scale": 2.0}, ValueError, "classifier-free guidance"),
        ({"pixel_values": None}, ValueError, "a picture or clip that was not given"),
        ({"cache_implementation": "paged"}, RuntimeError, "continuous batching"),
    ],
)
def test_what_cannot_be_steered_raises(case, change, error, message):
    with pytest.raises(error, match=message):
        case.model.generate(**{**case.one, **change}, **GREEDY)


def test_other_routes_raise(case):
    ids, model = case.text["input_ids"], case.model
    embeds = model.get_input_embeddings()(ids)
    types = {name: t for name, t in case.text.items() if name.endswith("type_ids")}
    with pytest.raises(ValueError, match="which inputs_embeds do not allow"):
        model.generate(inputs_embeds=embeds, **types, **GREEDY)
    with pytest.raises(ValueError, match="no assistant header"):
        model.generate(input_ids=ids[:, :-1], **GREEDY)
    with pytest.raises(ValueError, match="does not end in a user's turn"):
        model.generate(input_ids=ids[:, 1:], **GREEDY)
    with pytest.raises(RuntimeError, match="ras acts in generate"):
        model(**case.text)
    with pytest.raises(RuntimeError, match="ras acts in generate"):
        model(**case.text, labels=ids)
    with pytest.raises(RuntimeError, match="decoder was called alone"):
        model.get_decoder()(inputs_embeds=embeds)
    with model.steering.off():
        model.get_decoder()(inputs_embeds=embeds)
    with pytest.raises(RuntimeError, match="continuous batching"):
        model.generate_batch([ids[0].tolist()], max_new_tokens=2)
    copied = copy.deepcopy(model.config)
    copied._attn_implementation = "vllm"
    type(copied).engine_gives_windows = True
    try:
        with pytest.raises(RuntimeError, match=r"ras acts in generate\(\), which vllm"):
            refuse_engines(copied)
    finally:
        del type(copied).engine_gives_windows


def test_a_loop_that_leaves_the_plan_raises(case):
    def by_forward(model, input_ids, **_):
        return torch.cat([input_ids, model(input_ids=input_ids).logits[:, -1:].argmax(-1)], 1)

    def by_head(model, input_ids, **_):
        model.prepare_inputs_for_generation(input_ids, attention_mask=torch.ones_like(input_ids))
        return input_ids

    for loop in (by_forward, by_head):
        with pytest.raises(RuntimeError, match=r"acts in generate|as planned|never ran"):
            case.model.generate(**case.text, custom_generate=loop, **GREEDY)


def test_captions_are_remembered_by_their_pictures(case):
    model = copy.deepcopy(case.model)
    seen, rows, told = forwards(model), [(random_ids(5, 7), "image")], []
    model._answers.passes.captions.clear()
    for seed in (1, 1, 2):
        before = len(seen)
        model.generate(**tiny.inputs(case.family, rows, seed=seed), **GREEDY)
        told.append(len(seen) - before)
        rows = [(random_ids(5, 8), "image")]
    assert told == [4 + 3 + STEPS, 3 + STEPS, 4 + 3 + STEPS]
    assert len(model._answers.passes.captions) == 2


def test_another_adapter_says_other_captions(case):
    peft = pytest.importorskip("peft")
    model = copy.deepcopy(case.model)
    config = peft.LoraConfig(target_modules=["q_proj"], init_lora_weights=False)
    adapted = peft.get_peft_model(model, config)
    adapted.add_adapter("other", config)
    captions = model._answers.passes.captions
    captions.clear()
    for name, count in (("default", 1), ("other", 2), ("default", 2)):
        adapted.set_adapter(name)
        adapted.generate(**case.one, **GREEDY)
        assert len(captions) == count
    with adapted.disable_adapter():
        adapted.generate(**case.one, **GREEDY)
    assert len(captions) == 3
    adapted.merge_and_unload().generate(**case.one, **GREEDY)
    assert len(captions) == 4


def test_virtual_tokens_before_the_prompt_leave_every_step_steered(case):
    peft = pytest.importorskip("peft")
    model = copy.deepcopy(case.model)
    config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    peft.get_peft_model(model, config).generate(**case.text, **GREEDY)
    assert len(model.steering.last[0]) == 3


def test_off_costs_nothing(case):
    model = copy.deepcopy(case.model)
    seen = forwards(model)
    with model.steering.off():
        off = model.generate(**case.batch, **GREEDY)
    assert len(seen) == STEPS
    assert not model.get_output_embeddings()._forward_pre_hooks
    assert off.equal(case.base.generate(**case.batch, **GREEDY))
    assert model.steering.last == []


def test_copies_and_saved_models_are_steered(case, tmp_path):
    want = case.model.generate(**case.one, **GREEDY)
    case.model.save_pretrained(tmp_path / "again")
    again = AUTO.from_pretrained(tmp_path / "again", trust_remote_code=True).eval()
    for model in (copy.deepcopy(case.model), pickle.loads(pickle.dumps(case.model)), again):
        assert model.generate(**case.one, **GREEDY).equal(want)
        assert len(model.steering.last[0]) == 3
    shard = next(p for p in (tmp_path / "again").glob("*.safetensors"))
    tensors = load_file(shard)
    name = next(name for name in tensors if name.endswith("steering.curve"))
    save_file({**tensors, name: tensors[name] + 1}, shard, metadata={"format": "pt"})
    with pytest.raises(RuntimeError, match="damaged"):
        AUTO.from_pretrained(tmp_path / "again", trust_remote_code=True)


def test_a_new_head_is_steered_too(case):
    model = copy.deepcopy(case.model)
    model.resize_token_embeddings(tiny.VOCABULARY + 8)
    model.generate(**case.text, **GREEDY)
    assert len(model.steering.last[0]) == 3


def test_half_precision_mixes_in_float32(case):
    model = AUTO.from_pretrained(case.directory, trust_remote_code=True, dtype=torch.bfloat16)
    batch = {k: v.bfloat16() if v.is_floating_point() else v for k, v in case.one.items()}
    model.generate(**batch, **GREEDY)
    assert {b.dtype for b in model._answers.rule.buffers()} == {torch.float32}
    assert model.steering.last[0][0].strength > 0


def test_threads_do_not_see_each_other(case):
    wants = [case.model.generate(**batch, **GREEDY) for batch in (case.one, case.text)]
    with case.model.steering.off():
        off = case.model.generate(**case.text, **GREEDY)
    got = {}

    def run(name, batch, on):
        if on:
            got[name] = case.model.generate(**batch, **GREEDY)
        else:
            with case.model.steering.off():
                got[name] = case.model.generate(**batch, **GREEDY)

    jobs = [("one", case.one, True), ("text", case.text, True), ("off", case.text, False)] * 2
    jobs = [(f"{name} {k}", batch, on) for k, (name, batch, on) in enumerate(jobs)]
    threads = [threading.Thread(target=run, args=job) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name, ids in got.items():
        kind = name.split()[0]
        assert ids.equal({"one": wants[0], "text": wants[1], "off": off}[kind]), name
    assert len(got) == len(jobs)


@pytest.fixture(scope="module")
def untied(tmp_path_factory):
    """A text model whose head has weights of its own, and a request with its answer."""
    folder = tmp_path_factory.mktemp("qwen3")
    zoo.save_base("qwen3", folder / "base")
    calibration = tiny.save_calibration("qwen3", folder / "calibration", "ras", shift={"text": 0})
    write_checkpoint(
        folder / "base", folder / "steered", source=tiny.source("qwen3"),
        calibration_dir=calibration,
    )  # fmt: skip
    base = transformers.AutoModelForCausalLM.from_pretrained(folder / "base").eval()
    model = load(folder / "steered", "AutoModelForCausalLM")
    ids = torch.tensor([tiny.prompt(random_ids(6, 1))])
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    return SimpleNamespace(
        base=base, model=model, inputs=inputs, answer=model.generate(**inputs, **GREEDY),
        gates=gates(model), directory=folder / "steered",
    )  # fmt: skip


@pytest.mark.parametrize("draft", ["layers", "model", "prompt"])
def test_drafts_of_its_own_and_of_others_change_nothing(untied, draft):
    options = {
        "layers": {"assistant_early_exit": 2},
        "model": {"assistant_model": copy.deepcopy(untied.model)},
        "prompt": {"prompt_lookup_num_tokens": 3},
    }[draft]
    if draft == "layers":
        try:
            copy.deepcopy(untied.base).generate(**untied.inputs, **GREEDY, **options)
        except TypeError as error:  # in Transformers 5.16
            pytest.skip(f"the base does not answer so: {error}")
    out = untied.model.generate(**untied.inputs, **GREEDY, **options)
    assert out[:, : untied.answer.shape[1]].equal(untied.answer)
    assert gates(untied.model) == [pytest.approx(row, abs=1e-4) for row in untied.gates]


def test_a_second_turn_goes_on_from_the_cache_of_the_first(untied):
    first = untied.model.generate(**untied.inputs, **GREEDY, return_dict_in_generate=True)
    ids = torch.cat([first.sequences, torch.tensor([[*random_ids(5, 9), *HEADER]])], 1)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    want, told = untied.model.generate(**inputs, **GREEDY), gates(untied.model)
    got = untied.model.generate(**inputs, past_key_values=first.past_key_values, **GREEDY)
    assert got.equal(want)
    assert gates(untied.model) == told
    assert untied.model.steering.last[0][0].turn == 1


def test_an_adapter_on_the_head_sees_what_is_mixed(untied):
    peft = pytest.importorskip("peft")
    model = copy.deepcopy(untied.model)
    config = peft.LoraConfig(target_modules=["lm_head", "q_proj"], init_lora_weights=False)
    adapted = peft.get_peft_model(model, config)
    out = adapted.generate(**untied.inputs, **GREEDY)
    assert len(model.steering.last[0]) == 3
    merged = adapted.merge_and_unload()
    assert merged.generate(**untied.inputs, **GREEDY).equal(out)
    assert len(merged.steering.last[0]) == 3


RULES = {
    "headers": tiny.HEADERS,
    "prompts": {
        "user": list(USER), "separator": [316], "closing": [317, *HEADER, 318], "tail": [318],
        "visual": [IMAGE, VISION_START, VISION_END], "blanks": [316, 319],
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ("turn", "insert", "visual"),
    [
        ([316, 20, 21], 3, []),
        ([316, *PICTURE, 20, 21], 9, [2, 3, 4, 5, 6, 7, 8]),
        ([*PICTURE, 319, 20, 21], 9, [-317, 2, 3, 4, 5, 6, 7, 8]),
        ([316, 20, 21, *PICTURE], 3, [-317, 5, 6, 7, 8, 9, 10]),
        ([316, 20, *PICTURE, 21], 10, [-317, 4, 5, 6, 7, 8, 9]),
    ],
)
def test_where_text_goes_into_a_turn(turn, insert, visual):
    for first in (0, 2):
        for tail in ([318], [318, 40, 41], []):
            tokens = [0] * first + [*USER, *turn, 317, *HEADER, *tail]
            row = read_row(tokens, first, RULES)
            end = first + 2 + len(turn) + 4
            assert (row.insert, row.header) == (first + insert, end)
            assert row.answer == end + bool(tail)
            assert row.visual == [c + first if c >= 0 else c for c in visual]


def test_the_last_turn_of_a_conversation_is_read():
    earlier = [*USER, 316, *PICTURE, 20, 317, *HEADER, 30, 31, 317]
    row = read_row([*earlier, *USER, 316, 22, 317, *HEADER, 318], 0, RULES)
    assert row.insert == len(earlier) + 3
    assert row.visual == [2, 3, 4, 5, 6, 7, 8]
    assert read_row([1, 2, *HEADER], 0, RULES) is None
