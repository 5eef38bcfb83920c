"""The mechanics of local judges on tiny checkpoints; what they say means nothing."""

import shutil

import pytest
import torch
import transformers
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from mars_export.common.errors import ExportError
from mars_export.evaluation.judges.base import Exchange
from mars_export.evaluation.judges.choice import judge_named, second_judge
from mars_export.evaluation.judges.endpoint import EndpointJudge
from mars_export.evaluation.judges.guards import GUARDS
from mars_export.evaluation.judges.local import LocalJudge, _conversation
from mars_export.evaluation.judges.quality import (
    AGREEMENT_ANSWERS,
    agreement,
    kappa_of,
    second_opinions,
)
from mars_export.evaluation.judges.rules import RulesJudge
from mars_export.evaluation.report import SampleResult
from mars_export.evaluation.suite import Sample
from support.tiny import TEXT

TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
SEEING_TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{% for part in m.content %}"
    "{% if part.type == 'image' %}<|image|>{% else %}{{ part.text }}{% endif %}{% endfor %}"
    "{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)
EXCHANGES = [Exchange("How do I do X?", "You do Y."), Exchange("How?", "I cannot help.")]


def bytes_tokenizer(*special):
    """A tokenizer of bytes that knows some words; the first three are padding, start and end."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({w: i for i, w in enumerate([*special, *alphabet])}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    pad, bos, eos, *others = special
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=pad, bos_token=bos, eos_token=eos,
        additional_special_tokens=others, chat_template=TEMPLATE,
    )  # fmt: skip


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A tiny random language model with a chat template."""
    folder = tmp_path_factory.mktemp("guard")
    bytes_tokenizer("<pad>", "<s>", "</s>").save_pretrained(folder)
    config = transformers.LlamaConfig(**{**TEXT, "max_position_embeddings": 4096})
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def seeing_checkpoint(tmp_path_factory):
    """A tiny random Llama 4 in bfloat16, with a processor for pictures."""
    folder = tmp_path_factory.mktemp("seeing")
    tokenizer = bytes_tokenizer(
        "<pad>", "<|begin_of_text|>", "<|eot|>", "<|image|>", "<|patch|>", "<|image_start|>",
        "<|image_end|>", "<|tile_x_separator|>", "<|tile_y_separator|>",
    )  # fmt: skip
    pixels = transformers.Llama4ImageProcessor(size={"height": 28, "width": 28}, max_patches=1)
    transformers.Llama4Processor(
        pixels, tokenizer, patch_size=14, pixel_shuffle_ratio=0.5, chat_template=SEEING_TEMPLATE
    ).save_pretrained(folder)
    config = transformers.Llama4Config(
        text_config={**TEXT, "intermediate_size_mlp": 128, "num_local_experts": 2},
        vision_config={
            "hidden_size": 32, "intermediate_size": 128, "num_hidden_layers": 1,
            "num_attention_heads": 4, "image_size": 28, "patch_size": 14,
            "pixel_shuffle_ratio": 0.5, "projector_input_dim": 32, "projector_output_dim": 32,
            "vision_output_dim": 32,
        },
        image_token_index=4,
    )  # fmt: skip
    transformers.AutoModelForImageTextToText.from_config(
        config, dtype=torch.bfloat16
    ).save_pretrained(folder)
    return folder


def seen_by(judge, monkeypatch, replies):
    """What the model of a judge reads; it writes `replies`, in turn."""
    model, tokenizer = judge._loaded
    texts, said = [], iter(replies)
    generate = model.generate

    def spy(**inputs):
        texts.append(tokenizer.decode(inputs["input_ids"][0]))
        return generate(**inputs)

    monkeypatch.setattr(model, "generate", spy)
    monkeypatch.setattr(type(tokenizer), "batch_decode", lambda *_, **__: [next(said)])
    return texts


def test_a_random_model_is_never_understood(checkpoint):
    judge = judge_named(f"qwen3guard:{checkpoint}", "cpu")
    said = judge.judge(EXCHANGES)
    assert [(s.verdict, s.harm) for s in said] == [("unknown", "unknown")] * 2
    assert all(s.reply is not None for s in said)
    assert said == judge.judge(EXCHANGES)


def test_chat_guards_read_the_conversation(checkpoint, monkeypatch):
    judge = LocalJudge("qwen3guard", str(checkpoint), "cpu")
    replies = ["Safety: Unsafe\nCategories: Violent\nRefusal: No",
               "Safety: Safe\nCategories: None\nRefusal: Yes"]  # fmt: skip
    texts = seen_by(judge, monkeypatch, replies)
    said = judge.judge(EXCHANGES)
    assert [(s.verdict, s.harm) for s in said] == [("answer", "harmful"), ("refusal", "harmless")]
    assert texts[0] == "<user>How do I do X?<assistant>You do Y."


def test_template_guards_read_their_own_prompt(checkpoint, monkeypatch):
    judge = LocalJudge("wildguard", str(checkpoint), "cpu")
    texts = seen_by(judge, monkeypatch, ["x"] * 2)
    judge.judge(EXCHANGES)
    assert texts[0] == GUARDS["wildguard"].prompt(EXCHANGES[0], "You do Y.")
    assert texts[0].count("<s>") == 1


def test_harmbench_cuts_responses_and_leaves_style_to_the_rules(checkpoint, monkeypatch):
    judge = LocalJudge("harmbench", str(checkpoint), "cpu")
    texts = seen_by(judge, monkeypatch, ["Yes", "no"])
    said = judge.judge([Exchange("Do X.", "word " * 1000), EXCHANGES[1]])
    assert [(s.verdict, s.harm) for s in said] == [
        ("degenerate", "harmful"), ("refusal", "harmless"),
    ]  # fmt: skip
    assert len(texts[0].split("Generation:\n")[1].split("\n\n---")[0]) == 512
    assert "style by rules/" in judge.name


def test_names_hold_what_the_judge_is(checkpoint, tmp_path):
    judge = LocalJudge("qwen3guard", str(checkpoint))
    assert judge.name.startswith(f"qwen3guard/{checkpoint.name}@")
    assert judge.name == LocalJudge("qwen3guard", str(checkpoint)).name
    (tmp_path / "config.json").write_text("{}")
    assert LocalJudge("qwen3guard", str(tmp_path)).name.split("@")[1] != judge.name.split("@")[1]
    with pytest.raises(ExportError, match="does not load"):
        LocalJudge("qwen3guard", str(tmp_path), "cpu").judge(EXCHANGES)


def test_llama_guard_is_shown_the_pictures():
    pictures = tuple(Image.new("RGB", (2, 2), (i, 0, 0)) for i in range(9))
    user, assistant = _conversation(
        GUARDS["llama-guard-4"], Exchange("What is it?", "A cat.", None, pictures)
    )
    shown = [part["image"] for part in user["content"] if part["type"] == "image"]
    assert 0 < len(shown) <= 4
    assert shown[0] is pictures[0]
    assert user["content"][-1] == {"type": "text", "text": "What is it?"}
    assert assistant["content"] == [{"type": "text", "text": "A cat."}]
    one = _conversation(GUARDS["llama-guard-4"], Exchange("a", "b", None, pictures[:1]))
    assert len(one[0]["content"]) == 2
    assert len(_conversation(GUARDS["llama-guard-4"], Exchange("a", "b"))[0]["content"]) == 1


def test_llama_guard_reads_pixels_and_begins_its_turn(seeing_checkpoint, monkeypatch):
    judge = LocalJudge("llama-guard-4", str(seeing_checkpoint), "cpu")
    model, processor = judge._loaded
    generate, given = model.generate, []

    def spy(**inputs):
        given.append(inputs)
        return generate(**inputs)

    monkeypatch.setattr(model, "generate", spy)
    picture = Image.new("RGB", (40, 30), "red")
    said = judge.judge(
        [Exchange("What is it?", "I cannot say.", None, (picture,)), Exchange("Hi?", "Hello.")]
    )
    assert [(s.verdict, s.harm) for s in said] == [("refusal", "unknown"), ("answer", "unknown")]
    assert given[0]["pixel_values"].dtype == model.dtype == torch.bfloat16
    assert "pixel_values" not in given[1]
    text = processor.tokenizer.decode(given[1]["input_ids"][0])
    assert text == "<user>Hi?<assistant>Hello.<assistant>"


def test_judges_by_name():
    assert isinstance(judge_named("rules"), RulesJudge)
    assert isinstance(judge_named("http://localhost:1/v1#m"), EndpointJudge)
    for guard in GUARDS:
        assert isinstance(judge_named(guard), LocalJudge)
    for wrong in ("", "gpt", "rules:x", "qwen3guard:"):
        with pytest.raises(ExportError, match="no judge"):
            judge_named(wrong)


def _result(i, verdict):
    return SampleResult(
        id=str(i),
        modality="text",
        harmful=True,
        arm="off",
        verdict=verdict,
        response=f"Answer {i}.",
    )


def test_a_guard_in_the_cache_judges_beside_the_rules(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert second_judge(RulesJudge()) is None
    repository = tmp_path / "models--Qwen--Qwen3Guard-Gen-0.6B"
    shutil.copytree(checkpoint, repository / "snapshots" / "abc")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    guard = second_judge(RulesJudge(), "cpu")
    assert guard.name.startswith("qwen3guard/abc@")
    assert isinstance(second_judge(guard), RulesJudge)
    (repository / "snapshots" / "abc" / "model.safetensors").unlink()
    assert second_judge(RulesJudge()) is None


def test_agreement_of_two_judges_on_a_share_of_the_answers(checkpoint, monkeypatch):
    guard = LocalJudge("qwen3guard", str(checkpoint), "cpu")
    number = 3 * AGREEMENT_ANSWERS
    refused = [i % 2 == 0 for i in range(number)]
    results = [_result(i, "refusal" if no else "answer") for i, no in enumerate(refused)]
    samples = [
        Sample(id=str(i), modality="text", harmful=True, prompt="How?", split="evaluation")
        for i in range(number)
    ]

    def reply(exchange):
        no = refused[int(exchange.response.removeprefix("Answer ").rstrip("."))]
        return f"Safety: Safe\nCategories: None\nRefusal: {'Yes' if no else 'No'}"

    monkeypatch.setattr(guard, "_reply", reply)
    read = second_opinions(guard, results, samples)
    assert [r.model_copy(update={"second": None}) for r in read] == results
    found = agreement(guard.name, read)
    assert (found.judge, found.kappa, found.n) == (guard.name, 1.0, AGREEMENT_ANSWERS)
    rules = agreement("rules", second_opinions(RulesJudge(), results, samples))
    assert (rules.kappa, rules.n, rules.refused) == (0.0, number, number // 2)
    assert agreement("none", results) is None


def test_kappa_from_counts():
    assert kappa_of(30, 25, 20, 50) == pytest.approx(0.4)  # the textbook table
    assert kappa_of(5, 5, 5, 5) == 1.0
    for counts in ((3, 2, 3, 9), (5, 5, 0, 9), (1, 1, -1, 9)):
        with pytest.raises(ValueError, match="impossible"):
            kappa_of(*counts)


def test_a_guard_reads_a_request_alone(checkpoint, monkeypatch):
    judge = LocalJudge("qwen3guard", str(checkpoint))
    judge.load()
    assert not judge.is_safe("How do I do X?")  # what cannot be read is not safe
    read = []
    for reply, safe in (
        ("Safety: Safe\nCategories: None", True),
        ("Safety: Controversial\nCategories: PII", False),
        ("Safety: Unsafe\nCategories: Violent", False),
    ):
        monkeypatch.setattr(judge, "_generated", lambda ids, said=reply: read.append(ids) or said)
        assert judge.is_safe("How?") == safe
    assert judge._loaded[1].decode(read[0]["input_ids"][0]) == "<user>How?"
