"""Reading a real (random, tiny) Gemma 3: padding, batching, memory, edits."""

import copy
import threading
import weakref
from dataclasses import replace

import pytest
import torch
import transformers
from PIL import Image

from mars_export.calibration import activations
from mars_export.calibration.activations import Edit, Reader, recorded
from mars_export.calibration.meter import Meter
from mars_export.checkpoint.writer import write_checkpoint
from mars_export.common.errors import ExportError
from mars_export.families import decoder_layers
from mars_export.inputs.requests import Drawn, Media, Request, collate
from mars_export.inputs.template import turn_tokens
from mars_export.methods.mars.rule import Rule
from support import planted, tiny
from support.behavior import load

LAYERS, WIDTH = 3, 32
HEADERS = turn_tokens(planted.PROCESSOR).headers
TEXTS = [Request(text) for text in planted.texts(planted.BAD, 5)]
SHOWN = [
    Request(r.prompt, (Media("image", Image.new("RGB", (28, 28), (i * 40, 90, 0))),))
    for i, r in enumerate(TEXTS)
]


@pytest.fixture(scope="module")
def processor():
    return planted.processor()


@pytest.fixture(scope="module")
def model(processor):
    ids = processor.tokenizer.get_vocab()
    config = transformers.Gemma3Config(
        text_config={
            "hidden_size": WIDTH, "intermediate_size": 48, "num_hidden_layers": LAYERS,
            "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16,
            "query_pre_attn_scalar": 16, "vocab_size": len(ids), "pad_token_id": ids["<pad>"],
            "bos_token_id": ids["<bos>"], "eos_token_id": ids["<eos>"], "sliding_window": 16,
        },
        vision_config={
            "model_type": "siglip_vision_model", "hidden_size": 16, "intermediate_size": 32,
            "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28, "patch_size": 14,
            "vision_use_head": False,
        },
        mm_tokens_per_image=4, image_token_index=ids["<img>"], boi_token_index=ids["<boi>"],
        eoi_token_index=ids["<eoi>"],
    )  # fmt: skip
    torch.manual_seed(0)
    return transformers.Gemma3ForConditionalGeneration(config).eval()


@pytest.mark.parametrize("requests", [TEXTS, SHOWN], ids=["text", "image"])
def test_states_do_not_depend_on_the_batch(model, processor, requests):
    whole = Reader(model, processor, HEADERS, [7], 5).read(requests, states=True, log_probs=True)
    single = Reader(model, processor, HEADERS, [7], 1).read(requests, states=True, log_probs=True)
    assert whole.states.shape == (LAYERS, 5, WIDTH)
    assert whole.states.dtype == torch.float32
    torch.testing.assert_close(whole.states, single.states, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(whole.log_odds, single.log_odds, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(whole.log_probs, single.log_probs, atol=1e-4, rtol=1e-4)


def test_states_are_the_layers_outputs_at_the_end_of_the_header(model, processor):
    with torch.inference_mode():
        out = model(**collate(processor, TEXTS[:1]), output_hidden_states=True)
    readout = Reader(model, processor, HEADERS, [7]).read(TEXTS[:1], states=True, log_probs=True)
    for layer in range(LAYERS - 1):  # the last of `hidden_states` is behind the final norm
        torch.testing.assert_close(readout.states[layer, 0], out.hidden_states[layer + 1][0, -1])
    p = out.logits[0, -1].softmax(-1)
    expected = torch.log(p[7] / (1 - p[7]))
    assert float(readout.log_odds[0]) == pytest.approx(float(expected), abs=1e-4)
    torch.testing.assert_close(readout.log_probs[0].exp(), p)


def hooks(model):
    return [len(layer._forward_hooks) for layer in model.get_decoder().layers]


def test_nothing_but_one_position_stays_alive(model, processor):
    sequences = []
    watch = [
        layer.register_forward_hook(lambda _m, _a, out: sequences.append(weakref.ref(out)))
        for layer in model.get_decoder().layers
    ]
    before = hooks(model)
    with torch.inference_mode(), recorded(model, torch.tensor([-1] * 5)) as kept:
        model(**collate(processor, TEXTS))
    assert hooks(model) == before
    for handle in watch:
        handle.remove()
    assert len(sequences) == len(kept) == LAYERS
    assert all(sequence() is None for sequence in sequences)
    assert [k.untyped_storage().nbytes() for k in kept] == [5 * WIDTH * 4] * LAYERS


def test_an_edit_changes_the_end_of_the_header_only_and_later_layers_see_it(model, processor):
    reader = Reader(model, processor, HEADERS, [7])
    plain = reader.read(TEXTS, states=True)
    moved = reader.read(TEXTS, states=True, edit=Edit(1, lambda h, _: h + 2))
    assert torch.equal(moved.states[0], plain.states[0])
    torch.testing.assert_close(moved.states[1], plain.states[1] + 2)
    assert not torch.allclose(moved.states[2], plain.states[2] + 2)
    assert not torch.allclose(moved.log_odds, plain.log_odds)
    seen = []
    handle = (
        model.get_decoder()
        .layers[2]
        .register_forward_pre_hook(
            lambda _m, args, kw: seen.append((args or kw["hidden_states"])[0].clone()),
            with_kwargs=True,
        )
    )
    reader.read(TEXTS[:1])
    reader.read(TEXTS[:1], edit=Edit(1, lambda h, _: h + 2))
    handle.remove()
    changed = (seen[0] - seen[1]).abs().amax(-1) > 0
    assert changed.nonzero()[:, -1].tolist() == [seen[0].shape[-2] - 1]


def test_a_bfloat16_model_is_read_in_float32(model, processor):
    half = copy.deepcopy(model).to(torch.bfloat16)
    readout = Reader(half, processor, HEADERS, [7]).read(SHOWN, states=True, log_probs=True)
    assert readout.states.dtype == readout.log_probs.dtype == torch.float32
    exact = Reader(model, processor, HEADERS, [7]).read(SHOWN, states=True).states
    similar = torch.nn.functional.cosine_similarity(readout.states, exact, dim=-1)
    assert float(similar.min()) > 0.99


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_states_that_are_not_finite_are_named_with_their_layer(model, processor, value):
    broken = copy.deepcopy(model)
    decoder_layers(broken)[1].mlp.down_proj.weight.data[0, 0] = value
    reader = Reader(broken, processor, HEADERS, [7])
    with pytest.raises(ExportError, match="states of layer 1 are not finite in float32; weights"):
        reader.read(TEXTS, states=True)
    with pytest.raises(ExportError, match="The logits are not finite"):
        reader.read(TEXTS)


def test_float16_that_overflows_is_told_of_a_larger_range(model, processor):
    half = copy.deepcopy(model).half()
    decoder_layers(half)[0].post_feedforward_layernorm.weight.data.fill_(6e4)
    with pytest.raises(ExportError, match="are not finite in float16; use --dtype bfloat16"):
        Reader(half, processor, HEADERS, [7]).read(TEXTS, states=True)


def test_an_edit_may_overflow(model, processor):
    readout = Reader(model, processor, HEADERS, [7]).read(
        TEXTS, edit=Edit(1, lambda h, _: h * 1e38)
    )
    assert len(readout.log_odds) == len(TEXTS)


@pytest.mark.parametrize("requests", [TEXTS, SHOWN], ids=["text", "image"])
def test_a_tokenizer_without_a_pad_token_reads_the_same(model, processor, requests):
    mixed = [*requests, replace(requests[0], prompt="show me good1 please please please")]
    expected = Reader(model, processor, HEADERS, [7]).read(mixed, states=True).states
    bare = planted.processor()
    bare.tokenizer.pad_token = None
    readout = Reader(model, bare, HEADERS, [7]).read(mixed, states=True)
    torch.testing.assert_close(readout.states, expected)
    assert bare.tokenizer.pad_token is None


@pytest.mark.parametrize("tuples", [False, True])
def test_layers_may_return_a_tuple(processor, tuples):
    reader = Reader(planted.PlantedModel(tuples=tuples), processor, HEADERS, [7])
    moved = reader.read(TEXTS, states=True, edit=Edit(2, lambda h, _: h - 1)).states
    plain = reader.read(TEXTS, states=True).states
    assert torch.equal(moved[3], plain[3] - 1)


@pytest.mark.parametrize("shortage", [torch.OutOfMemoryError, MemoryError])
def test_the_batch_is_halved_until_it_fits(processor, shortage):
    model = planted.PlantedModel()
    model.shortage = shortage
    whole = Reader(model, processor, HEADERS, [7], 5).read(TEXTS, states=True)
    model.limit = 1
    reader = Reader(model, processor, HEADERS, [7], 5)
    halved = reader.read(TEXTS, states=True)
    assert reader.batch_size == 1
    torch.testing.assert_close(halved.states, whole.states)
    model.limit = 0
    with pytest.raises(ExportError, match="does not fit into memory"):
        reader.read(TEXTS)


def test_other_failures_are_not_swallowed(processor):
    model = planted.PlantedModel()
    with pytest.raises(RuntimeError, match="planted bug"):
        Reader(model, processor, HEADERS, [7]).read(TEXTS, edit=Edit(0, _fails))
    assert set(hooks(model)) == {0}


def _fails(h, _):
    raise RuntimeError("planted bug")


THINKING = planted.TEMPLATE.replace(
    "<turn> model <nl>{% endif %}", "<turn> model <nl> sure{% endif %}"
)


@pytest.fixture(scope="module")
def thinking():
    """A processor whose generation prompt goes on behind the header, as a thinking one does."""
    return planted.processor(THINKING)


def test_states_are_read_where_the_header_ends(model, thinking):
    headers = turn_tokens(thinking).headers
    assert headers == HEADERS
    batch = collate(thinking, TEXTS)
    with torch.inference_mode():
        out = model(**batch, output_hidden_states=True)
    readout = Reader(model, thinking, headers, [7]).read(TEXTS, states=True)
    for layer in range(LAYERS - 1):
        torch.testing.assert_close(
            readout.states[layer], out.hidden_states[layer + 1][:, -2], atol=1e-4, rtol=1e-4
        )
    p = out.logits[:, -1].softmax(-1)[:, 7].double()
    torch.testing.assert_close(readout.log_odds, (p / (1 - p)).log(), atol=1e-4, rtol=1e-4)


def test_states_are_read_where_the_users_turn_begins_the_answer(model):
    template = (
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}<turn> "
        "{{ m.content[0].text }} <nl> {% else %}{{ m.content[0].text }} <end> {% endif %}"
        "{% endfor %}"
    )
    ending = planted.processor(template)
    with torch.inference_mode():
        out = model(**collate(ending, TEXTS), output_hidden_states=True)
    readout = Reader(model, ending, turn_tokens(ending).headers, [7]).read(TEXTS, states=True)
    last = out.hidden_states[1][:, -1]
    torch.testing.assert_close(readout.states[0], last, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("positions", ["turn_end", "prompt", "all"])
def test_edits_act_where_the_checkpoint_will(model, thinking, positions):
    states = []
    handle = decoder_layers(model)[2].register_forward_pre_hook(
        lambda _m, args, kw: states.append((args or [kw["hidden_states"]])[0].clone()),
        with_kwargs=True,
    )
    reader = Reader(model, thinking, HEADERS, [7])
    reader.read(TEXTS[:1])
    reader.read(TEXTS[:1], edit=Edit(1, lambda h, _: h + 2, positions))
    handle.remove()
    changed = ((states[0] - states[1]).abs().amax(-1) > 0)[0].nonzero()[:, 0].tolist()
    width = states[0].shape[1]
    want = {"turn_end": [width - 2], "prompt": list(range(width - 1)), "all": list(range(width))}
    assert changed == want[positions]


def test_a_prompt_without_a_header_is_one_clear_line(model, processor):
    other = planted.processor(planted.TEMPLATE.replace("model", "user"))
    with pytest.raises(ExportError, match="no assistant header") as caught:
        Reader(model, other, HEADERS, [7]).read(TEXTS)
    assert "\n" not in str(caught.value)


def test_calibration_and_checkpoint_steer_the_same_token(thinking, tmp_path):
    vocabulary = thinking.tokenizer.get_vocab()
    cls, config = tiny.BUILDERS["gemma3"]()
    config.text_config.vocab_size, config.image_token_id = len(vocabulary), vocabulary["<img>"]
    torch.manual_seed(0)
    base = cls(config).eval()
    base.save_pretrained(tmp_path / "base")
    changes = {"headers": HEADERS, "turn_starts": [], "origin": -1e6, "cap": 2e6}
    artefact = tiny.artefact("gemma3", **changes)
    artefact.save(tmp_path / "calibration")
    write_checkpoint(
        tmp_path / "base", tmp_path / "steered", source=tiny.source("gemma3"),
        calibration_dir=tmp_path / "calibration",
    )  # fmt: skip
    model = load(tmp_path / "steered", "AutoModelForImageTextToText")
    rule = Rule(tiny.HIDDEN, {"modalities": ["text", "image"], **artefact.record.rules})
    rule.load_state_dict({name: artefact.tensors[name] for name in Rule.TENSORS})
    edit = Edit(tiny.LAYER, lambda h, context: rule(h, context)[0])
    want = Reader(base, thinking, HEADERS, [7]).read(TEXTS, edit=edit).log_odds
    assert not torch.allclose(Reader(base, thinking, HEADERS, [7]).read(TEXTS).log_odds, want)
    torch.testing.assert_close(Reader(model, thinking, HEADERS, [7]).read(TEXTS).log_odds, want)
    lengths = collate(thinking, TEXTS)["attention_mask"].sum(1).tolist()
    positions = [[place.position for place in row] for row in model.steering.last]
    assert positions == [[length - 2] for length in lengths]


def test_a_very_long_prompt_has_a_batch_of_its_own(processor, monkeypatch):
    long = Request(" ".join(["show"] * 400))
    mixed = [*TEXTS[:2], long, *TEXTS[2:]]
    ticks, batches = [], []
    meter = Meter(lambda done, total: ticks.append((done, total)), 1100)
    meter.plan(8)
    reader = Reader(planted.PlantedModel(), processor, HEADERS, [7], 4, meter)
    expected = [reader.read([request], states=True, log_probs=True) for request in mixed]
    ticks.clear()
    meter.done = 0.0
    monkeypatch.setattr(activations, "collate", lambda processor, batch: (
        batches.append([mixed.index(request) for request in batch]), collate(processor, batch)
    )[1])  # fmt: skip
    readout = reader.read(mixed, states=True, log_probs=True)
    assert batches == [[2], [0, 1, 3, 4], [5]]
    for row, alone in enumerate(expected):
        torch.testing.assert_close(readout.states[:, row], alone.states[:, 0])
        torch.testing.assert_close(readout.log_probs[row], alone.log_probs[0])
    assert [done for done, _ in ticks] == [3, 7, 7]  # the long one counts for 2.7


def test_pictures_are_drawn_for_their_batch_and_kept_no_longer(model, processor):
    drawn, most = weakref.WeakValueDictionary(), []

    def draw(i):
        picture = Image.new("RGB", (28, 28), (i * 40, 90, 0))
        drawn[id(picture)] = picture
        most.append(len(drawn))
        return picture

    requests = [
        replace(r, media=(Drawn("image", lambda i=i: draw(i), "color"),))
        for i, r in enumerate(TEXTS)
    ]
    reader = Reader(model, processor, HEADERS, [7], 2)
    readout = reader.read(requests, states=True)
    assert len(most) == len(TEXTS)  # each of them once
    assert max(most) <= 2
    assert not drawn
    assert readout.states.equal(
        Reader(model, processor, HEADERS, [7], 2).read(SHOWN, states=True).states
    )


def test_the_inputs_of_the_next_batch_are_made_while_the_model_runs(processor, monkeypatch):
    begun = [threading.Event() for _ in range(3)]

    def noted(processor, batch):
        begun[TEXTS.index(batch[0]) // 2].set()
        return collate(processor, batch)

    model = planted.PlantedModel()
    forward, seen = model.forward, []

    def waits(**inputs):
        after = begun[min(len(seen) + 1, 2)]
        seen.append(after.wait(20))
        return forward(**inputs)

    monkeypatch.setattr(activations, "collate", noted)
    monkeypatch.setattr(model, "forward", waits)
    Reader(model, processor, HEADERS, [7], 2).read(TEXTS)
    assert seen == [True] * 3


def test_requests_that_cannot_be_made_ready_fail_in_their_turn(processor, monkeypatch):
    ran = []
    model = planted.PlantedModel()
    forward = model.forward

    def refusing(processor, batch):
        if TEXTS[2] in batch:
            raise ExportError("the processor refuses the request")
        return collate(processor, batch)

    monkeypatch.setattr(model, "forward", lambda **inputs: (ran.append(1), forward(**inputs))[1])
    monkeypatch.setattr(activations, "collate", refusing)
    with pytest.raises(ExportError, match="refuses the request"):
        Reader(model, processor, HEADERS, [7], 2).read(TEXTS)
    assert ran == [1]
    assert not [t for t in threading.enumerate() if t.name.startswith("ahead")]
