"""MARS and RAI in one checkpoint: RAI first, MARS measured and run on top of it."""

import pytest
import torch
import transformers

from mars_export.common.errors import ExportError
from mars_export.methods import method_for, method_named
from mars_export.methods.mars.record import mars_record
from mars_export.methods.mars.rule import Rule
from mars_export.methods.mars_rai.record import rai_part
from mars_export.methods.rai.rule import VisualRule
from support import methods, tiny

GAIN = 60.0
"""So much that RAI moves what MARS measures, also on the organism."""
GREEDY = {"max_new_tokens": 3, "min_new_tokens": 3, "do_sample": False}


@pytest.fixture(scope="module", params=tiny.FAMILIES)
def pair(request, tmp_path_factory):
    """A tiny base and its checkpoint, the artefact, and a text row beside one with a picture."""
    base, directory = tiny.export(request.param, tmp_path_factory.mktemp("both"), "mars+rai")
    auto = transformers.AutoModelForImageTextToText
    base = auto.from_pretrained(base).eval()
    with torch.no_grad():  # the projector of Gemma 3 begins with zeros
        model = auto.from_pretrained(directory, trust_remote_code=True).eval()
        for name, parameter in base.named_parameters():
            if "projection" in name and not parameter.any():
                parameter.normal_(generator=torch.Generator().manual_seed(0))
                model.get_parameter(name).copy_(parameter)
    rows = [(tiny.random_ids(6, 1), None), (tiny.random_ids(9, 2), "image")]
    artefact = tiny.METHOD_CASES["mars+rai"].artefact(request.param)
    return base, model, artefact, tiny.inputs(request.param, rows)


def rule_of(artefact, rule_class):
    record = artefact.record
    rules = {**record.rules, "modalities": record.source.modalities}
    rule = rule_class(record.source.hidden_size, rules)
    rule.load_state_dict({name: artefact.tensors[name] for name in rule_class.TENSORS})
    return rule


@torch.no_grad()
def test_both_act_and_rai_acts_first(pair):
    base, model, artefact, batch = pair
    visual, text = rule_of(artefact, VisualRule), rule_of(artefact, Rule)
    pictures, decoder = batch["input_ids"] == tiny.IMAGE, base.get_decoder()
    image = artefact.record.source.modalities.index("image")

    def push(_module, args, kwargs):
        embeds = kwargs["inputs_embeds"].clone()
        context = torch.tensor([[image, 0, 0]]).expand(int(pictures.sum()), -1)
        embeds[pictures] = visual(embeds[pictures], context)[0]
        return args, {**kwargs, "inputs_embeds": embeds}

    def steer(_module, _args, out):
        out = out.clone()
        context = torch.tensor([[0, 0, 0], [image, int(pictures.sum()), 0]])
        out[:, -1] = text(out[:, -1], context)[0]
        return out

    handles = [
        decoder.register_forward_pre_hook(push, with_kwargs=True),
        decoder.layers[tiny.LAYER].register_forward_hook(steer),
    ]
    expected = base(**batch).logits
    for handle in handles:
        handle.remove()
    torch.testing.assert_close(model(**batch).logits, expected, rtol=1e-4, atol=1e-4)
    model.generate(**batch, **GREEDY)
    alone, beside = model.steering.last
    assert [s.layer for s in alone] == [tiny.LAYER]
    assert {s.layer for s in beside} == {-1, tiny.LAYER}
    assert beside[-1].layer == tiny.LAYER
    with model.steering.off():
        assert model(**batch).logits.equal(base(**batch).logits)


def test_mars_is_measured_with_rai_in_place():
    mars = methods.calibrated("mars", method_named("mars").Options())
    options = method_named("mars+rai").Options(rai_share=0.5, rai_gain=GAIN)
    both = methods.calibrated("mars+rai", options)
    assert both.record.rules["words"] == 12
    assert both.record.options["rai_gain"] == GAIN
    plain, moved = mars_record(mars.record), mars_record(both.record)
    assert moved.shift["text"] == plain.shift["text"]
    assert moved.shift["image"] != plain.shift["image"]
    probes = both.record.probes
    assert {p.expected.position is None for p in probes} == {True, False}
    assert rai_part(both.record).record.gain == GAIN


def test_a_model_of_text_alone_is_refused():
    assert method_for("mars", ("text",), "Llama").name == "mars"
    for name in ("rai", "mars+rai"):
        with pytest.raises(ExportError, match="acts on pictures and clips, and Llama takes text"):
            method_for(name, ("text",), "Llama")
