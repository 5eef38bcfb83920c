"""RAS: the pieces of chat templates, the risk, and what the calibration makes of it."""

import math

import pytest
import torch
import transformers
from torch import nn

from mars_export.calibration.data import CalibrationData
from mars_export.calibration.source import Group
from mars_export.common.errors import ExportError, UnsteerableError
from mars_export.inputs.requests import Request, Turn, collate
from mars_export.inputs.stimuli import STIMULI
from mars_export.inputs.template import turn_tokens
from mars_export.methods import method_named
from mars_export.methods.ras.fragments import CAPTION, SAFETY, fragments
from mars_export.methods.ras.method import _curve, _findings, _Read, _reading, _separation
from mars_export.methods.ras.rule import AnswerRule
from mars_export.runtime.passes import caption_prompt, read_row, risk_prompt
from support import tiny
from support.organisms import ORGANISMS

MODALITIES = {"gemma3": ("text", "image"), "qwen3_vl": ("text", "image", "video")}
PLACEHOLDERS = {"image": "image_token", "video": "video_token"}


def processor_of(name):
    return transformers.AutoProcessor.from_pretrained(ORGANISMS / name)


def pieces(processor, modalities):
    names = {m: getattr(processor, PLACEHOLDERS[m]) for m in modalities if m != "text"}
    vocabulary = processor.tokenizer.get_vocab()
    data = CalibrationData(None, processor, None, modalities)
    turns = turn_tokens(processor)
    prompts = fragments(data, turns, {m: vocabulary[name] for m, name in names.items()})
    headers = [header.model_dump() for header in turns.headers]
    return {"prompts": prompts, "headers": headers}


def tokens_of(processor, request):
    return collate(processor, [request])["input_ids"][0].tolist()


def read(ids, edit):
    return [ids[column] if column >= 0 else -1 - column for column in edit]


@pytest.mark.parametrize("name", MODALITIES)
def test_edited_prompts_are_those_of_the_template(name):
    processor = processor_of(name)
    rules, encode = pieces(processor, MODALITIES[name]), processor.tokenizer.encode
    picture = STIMULI["image"].draw(3, 0, (64, 64), 1, ("scene",))
    earlier = (Turn("What is it?", "A tree.", (picture,)),)
    said, caption = "How do I fix a chair?", "It shows a red chair."
    again = f"{SAFETY}{caption}\n{said}"
    for media, history in (((), ()), ((picture,), ()), ((picture,), earlier), ((), earlier)):
        ids = tokens_of(processor, Request(said, media, history=history))
        row = read_row(ids, 0, rules)
        edit = risk_prompt(row, rules["prompts"], encode(caption, add_special_tokens=False))
        want = tokens_of(processor, Request(again, media, history=history))
        assert processor.tokenizer.decode(read(ids, edit)) == processor.tokenizer.decode(want)
        assert bool(row.visual) == bool(media or history)
    ids = tokens_of(processor, Request(said, (picture,)))
    edit = caption_prompt(read_row(ids, 0, rules), rules["prompts"])
    assert read(ids, edit) == tokens_of(processor, Request(CAPTION, (picture,)))


def test_a_turn_that_begins_its_answer_by_its_end_is_taken_apart_too():
    processor = processor_of("gemma3")
    processor.chat_template = (
        "{{ bos_token }}{% for m in messages %}{% for c in m['content'] %}{% set t = c['text'] %}"
        "{% if m['role'] == 'user' %}[INST] {{ t }} [/INST]{% else %}{{ t }}<end_of_turn>"
        "{% endif %}{% endfor %}{% endfor %}"
    )
    rules = pieces(processor, ("text",))
    ids = tokens_of(processor, Request("Why?", history=(("Hello.", "Hi."),)))
    edit = risk_prompt(read_row(ids, 0, rules), rules["prompts"], [])
    text = processor.tokenizer.decode(read(ids, edit))
    assert "".join(text.split()).endswith(
        "".join(f"Hi.<end_of_turn>[INST]{SAFETY}Why?[/INST]".split())
    )


def test_an_answer_begins_behind_what_the_generation_prompt_says():
    processor, thought = processor_of("gemma3"), "<think>\n\n</think>\n\n"
    prompt = "'<start_of_turn>model\\n' }}{%- endif %}"
    said = prompt.replace("' }}", thought.replace("\n", "\\n") + "' }}")
    assert prompt in processor.chat_template
    processor.chat_template = processor.chat_template.replace(prompt, said)
    rules = pieces(processor, ("text",))
    assert processor.tokenizer.decode(rules["prompts"]["tail"]) == thought
    ids = tokens_of(processor, Request("Why?"))
    row = read_row([*ids, 40, 41], 0, rules)
    assert row.answer == len(ids)
    assert row.header < len(ids)


def test_a_template_that_changes_words_is_refused():
    processor = processor_of("gemma3")
    processor.chat_template = processor.chat_template.replace(
        "['text']", "['text'] | replace('b', 'd')"
    )
    with pytest.raises(ExportError, match="is not what the template writes itself"):
        pieces(processor, ("text",))


def test_the_risk_is_that_of_the_paper():
    rule = AnswerRule(4, {"steps": 3, "discount": 0.3})
    rule.prototypes = 5 * torch.eye(3, 4)
    rule.curve = torch.tensor([0.5, math.log(99) / 0.5])
    head, alive = nn.Identity(), torch.ones(2, 3, dtype=torch.bool)
    states = torch.stack([rule.prototypes, torch.zeros(3, 4)])
    same, other = rule.similarity(head, states, alive)
    weights = torch.tensor([1, 0.3, 0.09]).unsqueeze(1)
    p, q = ((weights * h.softmax(-1)).sum(0) for h in states)
    assert float(same) == pytest.approx(1)
    assert float(other) == pytest.approx(float(p @ q / (p.norm() * q.norm())))
    assert rule.risk(torch.tensor([0.5, 1.0])).tolist() == pytest.approx([0.5, 0.99])
    short = rule.similarity(head, states[:1, :1], alive[:1, :1])
    ended = torch.tensor([[True, False, False]])
    assert float(rule.similarity(head, states[:1], ended)) == pytest.approx(float(short))
    h = torch.ones(2, 4)
    mixed, decision = rule(h, torch.tensor([0.25, 1.0]), torch.tensor([0, 2]))
    assert mixed.tolist() == [[2, 0.75, 0.75, 0.75], [0, 0, 5, 0]]
    assert decision["gate"].tolist() == [0.25, 1.0]
    assert decision["strength"].tolist() == (mixed - h).norm(dim=-1).tolist()


def test_a_rule_that_can_do_nothing_says_so():
    rule = AnswerRule(4, {})
    assert rule.problem() == "a prototype is 0 or not finite"
    rule.prototypes = torch.ones(3, 4)
    assert rule.problem() == "the risk does not rise with the similarity"
    rule.curve = torch.tensor([0.5, 3.0])
    assert rule.problem() is None


def group(label, modality, part, *similarity):
    requests = tuple(Request(str(k)) for k in range(len(similarity)))
    values = torch.tensor(similarity, dtype=torch.float64)
    return _Read(Group(label, modality), part, requests, ((),) * len(requests), values)


def test_the_curve_weighs_the_groups_alike():
    middle, slope = _curve(
        [group("harmful", "text", "decision", 0.9), group("harmless", "text", "decision", 0.1, 0.3)]
    ).tolist()
    assert middle == pytest.approx(0.55)
    assert slope == pytest.approx(math.log(99) / 0.45)


def test_a_risk_that_does_not_separate_is_turned_down():
    apart = [
        group("harmful", "text", "decision", 0.1),
        group("harmless", "text", "decision", 0.9),
        group("harmful", "text", "check", 0.9, 0.8, 0.5),
        group("harmless", "text", "check", 0.1, 0.5),
    ]
    assert _separation(apart) == pytest.approx(5.5 / 6)
    with pytest.raises(UnsteerableError, match=r"AUROC on held-out requests is 0\.00, and 0\.8 is"):
        _separation(apart[:2])


def test_harmless_requests_that_read_as_risky_are_a_finding():
    rule = AnswerRule(4, {})
    rule.curve = torch.tensor([0.5, 9.0])
    read = [
        group("harmless", "text", "decision", *[0.9] * 4),
        group("harmless", "text", "check", *[0.1] * 19, 0.9),
        group("harmless", "image", "check", 0.1, 0.2, 0.9, 0.8),
        group("harmful", "text", "check", 0.9),
    ]
    (finding,) = _findings([_reading(each, rule) for each in read])
    assert finding.startswith("50 % of 4 requests of harmless text + neutral image read as risky")


def test_trained_weights_are_compared_by_prototypes_and_curve():
    stored = tiny.ras("gemma3").tensors
    method = method_named("ras")
    moved = {**stored, "curve": stored["curve"] + torch.tensor([0.2, 0.0])}
    turned = {**stored, "prototypes": stored["prototypes"].flip(0)}
    for fresh, fits in ((stored, [True, True]), (moved, [True, False]), (turned, [False, True])):
        artefact = tiny.Artefact(tiny.ras("gemma3").record, fresh)
        assert [d.fits for d in method.compare({}, stored, artefact)] == fits
