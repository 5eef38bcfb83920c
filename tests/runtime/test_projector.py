"""What a method behind the projector does, in every family: the rule on the features by hand."""

import copy
import inspect
import io
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch
import transformers

from mars_export.checkpoint.writer import write_checkpoint
from mars_export.families import families
from mars_export.methods.rai import RAI
from support import quantized, tiny, zoo, zoo_inputs
from support.behavior import NO_MIXED_VISUALS, load
from support.tiny import random_ids

FAMILIES = [name for name in zoo.AVAILABLE if {"image", "video"} & set(families()[name].modalities)]
STEPS = 4
GREEDY = {"max_new_tokens": STEPS, "min_new_tokens": STEPS, "do_sample": False}


def _taken(modalities):
    """Without audio, which a checkpoint of RAI refuses."""
    return tuple(modality for modality in modalities if modality in RAI.takes)


def make(name, folder, **changes):
    family = families()[name]
    base_dir = zoo.save_base(name, folder / "base")
    native = getattr(transformers, family.generator)
    base = native.from_pretrained(base_dir).eval()
    empty = [p for n, p in base.named_parameters() if "projection" in n and not p.any()]
    for projector in empty:  # of Gemma 3, which begins with zeros
        torch.nn.init.normal_(projector, generator=torch.Generator().manual_seed(0))
    if empty:
        base.save_pretrained(base_dir)
    artefact = tiny.rai(name, modalities=_taken(family.modalities), **changes)
    artefact.save(folder / "calibration")
    source = tiny.source(name).model_copy(update={"architecture": family.generator})
    target = folder / "steered"
    write_checkpoint(base_dir, target, source=source, calibration_dir=folder / "calibration")
    return SimpleNamespace(
        family=family,
        tensors=artefact.tensors,
        directory=target,
        base=base,
        model=load(target, family.auto_class),
    )


@pytest.fixture(scope="module", params=FAMILIES)
def pair(request, tmp_path_factory):
    return make(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def llava(tmp_path_factory):
    return make("llava", tmp_path_factory.mktemp("llava"))


def batches(pair):
    """A batch for each modality, with a text row beside the visual one."""
    name = pair.family.model_type
    for visual in _taken(pair.family.placeholders):
        rows = [(random_ids(6, 1), None), (random_ids(9, 2), visual)]
        yield visual, zoo_inputs.inputs(name, rows)


def features(pair, batch):
    """(B, T) bool: columns whose input to the base's decoder is not the embedding of a plain token.

    Some families have tokens that open a picture and have an embedding of their own.
    """
    with taken(pair.base) as seen:
        pair.base(**batch)
    plain = pair.base.get_input_embeddings()(batch["input_ids"])
    opens = (batch["input_ids"] == tiny.VISION_START) | (batch["input_ids"] == tiny.VISION_END)
    return (seen[0] != plain).any(-1) & ~opens


def decoder(model):
    module = model.get_decoder()
    return module if hasattr(module, "layers") else module.model


@contextmanager
def taken(model, change=None):
    """What the decoder of a model takes in, and what it takes in instead."""
    seen = []

    def hook(_module, args, kwargs):
        seen.append(kwargs["inputs_embeds"])
        if change is None:
            return None
        return args, {**kwargs, "inputs_embeds": change(kwargs["inputs_embeds"])}

    handle = decoder(model).register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield seen
    finally:
        handle.remove()


def pushed(h, tensors):
    """One visual token (d,) in plain words: the formula of the paper."""
    out = h.clone()
    for word in tensors["prototypes"]:
        cosine = torch.dot(h, word) / h.norm()
        if cosine > tensors["thresholds"][1]:
            out += tensors["gain"] * cosine * word
    return out


def strengths(model):
    """Position to length of the push, of the second row."""
    return {s.position: s.strength for s in model.steering.last[1]}


def by_hand(pair, columns):
    """Every forward over the prompt with the push at these columns."""

    def change(embeds):
        if embeds.shape[1] != columns.shape[1]:
            return embeds  # a token of the answer
        out = embeds.clone()
        for row, column in columns.nonzero().tolist():
            out[row, column] = pushed(embeds[row, column], pair.tensors)
        return out

    return taken(pair.base, change)


@torch.no_grad()
def test_each_feature_is_pushed_once_and_nothing_else_is(pair):
    for visual, batch in batches(pair):
        columns = features(pair, batch)
        assert columns.any(1).tolist() == [False, True]
        with by_hand(pair, columns):
            expected = pair.base(**batch).logits
            tokens = pair.base.generate(**batch, **GREEDY)
        logits = pair.model(**batch).logits
        torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
        assert not logits[1, -1].equal(pair.base(**batch).logits[1, -1]), visual
        assert pair.model.generate(**batch, **GREEDY).equal(tokens), visual


@torch.no_grad()
def test_the_record_says_which_tokens_were_pushed(pair):
    for visual, batch in batches(pair):
        with taken(pair.base) as seen:
            pair.base(**batch)
        columns = features(pair, batch)[1].nonzero()[:, 0].tolist()
        padding = int((batch["attention_mask"][1] == 0).sum())
        want = {
            column - padding: float((pushed(h, pair.tensors) - h).norm())
            for column in columns
            if not (h := seen[0][1, column]).equal(pushed(h, pair.tensors))
        }
        assert want
        for run in (pair.model, lambda **b: pair.model.generate(**b, **GREEDY)):
            run(**batch)
            text, picture = pair.model.steering.last
            assert not text
            assert strengths(pair.model) == pytest.approx(want, rel=1e-3)
            assert {(s.modality, s.layer) for s in picture} == {(visual, -1)}


@torch.no_grad()
def test_off_and_text_are_the_base_bit_for_bit(pair):
    text = zoo_inputs.inputs(pair.family.model_type, [(random_ids(6, 1), None)])
    assert pair.model(**text).logits.equal(pair.base(**text).logits)
    for _, batch in batches(pair):
        with pair.model.steering.off():
            assert pair.model(**batch).logits.equal(pair.base(**batch).logits)
            assert pair.model.generate(**batch, **GREEDY).equal(
                pair.base.generate(**batch, **GREEDY)
            )


@torch.no_grad()
def test_pictures_and_clips_of_one_batch_are_pushed(pair):
    name = pair.family.model_type
    if "video" not in pair.family.modalities or name in NO_MIXED_VISUALS:
        pytest.skip("one kind of visual in a batch")
    batch = zoo_inputs.inputs(name, [(random_ids(5, 3), "image"), (random_ids(5, 4), "video")])
    with by_hand(pair, features(pair, batch)):
        expected = pair.base(**batch).logits
    torch.testing.assert_close(pair.model(**batch).logits, expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_features_that_were_encoded_beforehand_are_pushed_once(pair):
    """By the native class or the steered one: both give the same features."""
    for visual, batch in batches(pair):
        names = [k for k in inspect.signature(pair.base.forward).parameters if k in batch]
        if "mm_encoder_outputs" not in inspect.signature(pair.base.forward).parameters:
            pytest.skip("takes none")
        encode = f"get_{visual}_features"
        arguments = inspect.signature(getattr(pair.base.base_model, encode)).parameters
        given = {k: v for k, v in batch.items() if k in arguments}
        rest = {k: batch[k] for k in names if k not in given or k.startswith("mm_token")}
        rest |= {k: v for k, v in batch.items() if k.endswith("grid_thw")}
        expected = pair.model(**batch).logits
        for owner in (pair.base, pair.model):
            encoded = getattr(owner.base_model, encode)(**given, return_dict=True)
            logits = pair.model(**rest, mm_encoder_outputs={visual: encoded}).logits
            assert logits.equal(expected), visual


def test_encoders_and_their_signatures_are_those_of_the_base(pair):
    for name in ("get_image_features", "get_video_features"):
        if hasattr(pair.base, name):
            ours = getattr(pair.model.base_model, name)
            assert inspect.signature(ours) == inspect.signature(getattr(pair.base.base_model, name))


def test_an_inner_module_raises(pair):
    embeds = torch.randn(1, 3, tiny.HIDDEN)
    with pytest.raises(RuntimeError, match="without knowing which tokens are visual"):
        decoder(pair.model)(inputs_embeds=embeds)


@torch.no_grad()
def test_copies_and_saved_again_are_steered(pair, tmp_path):
    _, batch = next(batches(pair))
    expected = pair.model(**batch).logits
    pair.model.save_pretrained(tmp_path)
    for other in (copy.deepcopy(pair.model), load(tmp_path, pair.family.auto_class)):
        assert other(**batch).logits.equal(expected)
        other.steering.enabled = False
        assert other(**batch).logits.equal(pair.base(**batch).logits)
        assert pair.model(**batch).logits.equal(expected)


@torch.no_grad()
def test_a_pickle_is_steered(llava):
    _, batch = next(batches(llava))
    stream = io.BytesIO()
    torch.save(load(llava.directory, llava.family.auto_class), stream)
    stream.seek(0)
    other = torch.load(stream, weights_only=False)
    assert other(**batch).logits.equal(llava.model(**batch).logits)
    other.steering.enabled = False
    assert other(**batch).logits.equal(llava.base(**batch).logits)


@torch.no_grad()
def test_half_precision_keeps_the_rule_in_float32(llava):
    _, batch = next(batches(llava))
    model = load(llava.directory, llava.family.auto_class, dtype=torch.bfloat16)
    rule = decoder(model).steering
    assert {t.dtype for t in rule.tensors().values()} == {torch.float32}
    batch["pixel_values"] = batch["pixel_values"].bfloat16()
    with taken(model) as seen:
        model(**batch)
    columns = batch["input_ids"] == tiny.IMAGE
    decisions = strengths(model)
    padding = int((batch["attention_mask"][1] == 0).sum())
    for column in columns[1].nonzero()[:, 0].tolist():
        h = seen[0][1, column].float()
        length = float((pushed(h, llava.tensors) - h).norm())
        assert decisions.get(column - padding, 0.0) == pytest.approx(length, rel=1e-4)


@torch.no_grad()
def test_a_prompt_in_pieces_is_pushed_alike(llava):
    (_, batch) = next(batches(llava))
    whole = llava.model.generate(**batch, **GREEDY)
    pushes = strengths(llava.model)
    pieces = {**GREEDY, "prefill_chunk_size": 5}
    of_base = [llava.base.generate(**batch, **options) for options in (GREEDY, pieces)]
    if of_base[0].equal(of_base[1]):  # not in Transformers 5.16, behind left padding
        assert llava.model.generate(**batch, **pieces).equal(whole)
        assert strengths(llava.model) == pytest.approx(pushes, rel=1e-4)
    beams = {**GREEDY, "num_beams": 2}
    columns = features(llava, batch)
    columns = columns.repeat_interleave(2, 0)

    def change(embeds):
        at = columns if embeds.shape[0] == len(columns) else columns[::2]
        if embeds.shape[1] != at.shape[1]:
            return embeds
        out = embeds.clone()
        for row, column in at.nonzero().tolist():
            out[row, column] = pushed(embeds[row, column], llava.tensors)
        return out

    with taken(llava.base, change):
        expected = llava.base.generate(**batch, **beams)
    assert llava.model.generate(**batch, **beams).equal(expected)


@torch.no_grad()
def test_embeddings_without_word_of_their_pictures_raise(llava):
    (_, batch) = next(batches(llava))
    embeds = llava.model.get_input_embeddings()(batch["input_ids"])
    rest = {"attention_mask": batch["attention_mask"]}
    with pytest.raises(ValueError, match="do not show which rows hold pictures"):
        llava.model(inputs_embeds=embeds, **rest)
    with taken(llava.base) as seen:
        llava.base(**batch)
    types = (batch["input_ids"] == tiny.IMAGE).long()
    expected = llava.model(**batch).logits
    given = llava.model(inputs_embeds=seen[0], mm_token_type_ids=types, **rest)
    assert given.logits.equal(expected)


@torch.no_grad()
def test_no_assistant_header_is_needed_and_no_position_can_be_stated(llava):
    batch = zoo_inputs.inputs("llava", [(random_ids(6, 1), "image")])
    bare = {**batch, **{k: batch[k][:, :-3] for k in ("input_ids", "attention_mask")}}
    llava.model(**bare)
    assert llava.model.steering.last[0]
    with pytest.raises(ValueError, match="steers no token by its position"):
        llava.model(**bare, steering_positions=[[2]])


def test_an_engine_is_refused_in_one_line(llava, monkeypatch):
    monkeypatch.setattr(type(llava.model.config), "engine_gives_windows", True)
    with pytest.raises(RuntimeError, match="does not say which tokens are visual"):
        type(llava.model)(llava.model.config)


@torch.no_grad()
@pytest.mark.parametrize("scheme", quantized.USES)
def test_quantized_it_pushes_what_the_quantized_base_takes_in(llava, scheme):
    pytest.importorskip("torchao" if scheme == "torchao-int8" else "bitsandbytes")
    _, batch = next(batches(llava))
    model = quantized.load(llava.directory, scheme)
    base = quantized.load(llava.directory.parent / "base", scheme)
    columns = batch["input_ids"] == tiny.IMAGE
    with by_hand(SimpleNamespace(base=base, tensors=llava.tensors), columns):
        expected = base(**batch).logits
    torch.testing.assert_close(model(**batch).logits, expected, rtol=1e-3, atol=1e-3)
    assert strengths(model)
    with model.steering.off():
        assert model(**batch).logits.equal(base(**batch).logits)


@torch.no_grad()
def test_adapters_are_trained_and_merged_around_it(llava, tmp_path):
    peft = pytest.importorskip("peft")
    _, batch = next(batches(llava))
    lora = peft.LoraConfig(target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    adapted = peft.get_peft_model(load(llava.directory, llava.family.auto_class), lora).eval()
    with torch.enable_grad():
        adapted(**batch, labels=batch["input_ids"]).loss.backward()
    assert any(p.grad is not None and p.grad.any() for p in adapted.parameters())
    expected = adapted(**batch).logits
    pushes = strengths(adapted.get_base_model())
    merged = adapted.merge_and_unload()
    merged.save_pretrained(tmp_path)
    again = load(tmp_path, llava.family.auto_class)
    torch.testing.assert_close(again(**batch).logits, expected, rtol=1e-4, atol=1e-4)
    assert pushes
    assert strengths(again) == pytest.approx(pushes, rel=1e-3)


@torch.no_grad()
def test_a_later_turn_goes_on_from_what_was_pushed(llava):
    _, batch = next(batches(llava))
    more = torch.tensor([[5, 6, 7], [8, 9, 10]])
    mask = torch.cat([batch["attention_mask"], torch.ones_like(more)], 1)
    whole = {**batch, "input_ids": torch.cat([batch["input_ids"], more], 1)}
    expected = llava.model(**{**whole, "attention_mask": mask}).logits[:, -3:]
    rest = {"input_ids": more, "attention_mask": mask}
    cache = llava.model(**batch, use_cache=True).past_key_values
    logits = llava.model(**rest, past_key_values=cache).logits
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
    with llava.model.steering.off():
        cache = llava.model(**batch, use_cache=True).past_key_values
    with pytest.raises(ValueError, match="was not filled by this model with steering on"):
        llava.model(**rest, past_key_values=cache)


@torch.no_grad()
def test_other_ways_of_running_it_push_alike_or_raise(llava):
    _, batch = next(batches(llava))
    expected, tokens = llava.model(**batch).logits, llava.model.generate(**batch, **GREEDY)
    for options in ({"use_cache": False}, {"cache_implementation": "static"}):
        assert llava.model.generate(**batch, **GREEDY, **options).equal(tokens)
    copied = copy.deepcopy(llava.model)
    compiled = torch.compile(copied, backend="eager")
    torch.testing.assert_close(compiled(**batch).logits, expected, rtol=1e-4, atol=1e-4)
    assert [bool(row) for row in copied.steering.last] == [False, True]
    with pytest.raises(RuntimeError, match="continuous batching"):
        llava.model.generate_batch([[1, 2, 3]])
    with pytest.raises(KeyError, match="load it with an Auto class"):
        type(llava.base).from_pretrained(llava.directory)
