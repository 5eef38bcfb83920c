"""A hand-made model whose refusal direction, modality shift and acting layers are known.

State axes: HARM is set by harmful words, SIGHT by a picture; a picture also moves HARM by `shift`,
an earlier answer by `later`, and words that it does not know by `guard`. Beside a picture a harmful
word sets the share `kept` of HARM. The other axes hold noise from the words. Block `commit` decides
the first token by HARM: a push causes refusal only at layers before it, though the label is easier
to read from it on.
"""

from types import SimpleNamespace
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn
from transformers.models.gemma3 import Gemma3ImageProcessorPil

from mars_export.calibration.data import MeasurementOptions
from mars_export.inputs.prompts import PromptSet, PromptSets
from mars_export.methods.base import Artefact, MethodOptions
from mars_export.methods.calibrate import calibrate
from support import torchvision_shim

torchvision_shim.install()  # for `video_processor`

HARM, SIGHT, WIDTH = 0, 1, 16
GOOD = [f"good{i}" for i in range(200)]
BAD = [f"bad{i}" for i in range(200)]
FILLER = ["how", "do", "i", "make", "show", "me", "please", "a", "the", "explain", "Sorry", "sure"]
SPECIAL = ["<pad>", "<bos>", "<eos>", "<unk>", "<turn>", "<end>", "user", "model", "<nl>"]
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<turn> "
    "{{ 'model' if m['role'] == 'assistant' else m['role'] }} <nl> "
    "{% for c in m['content'] %}{% if c['type'] == 'image' %}<boi> {% else %}{{ c['text'] }} "
    "{% endif %}{% endfor %}<end> {% endfor %}"
    "{% if add_generation_prompt %}<turn> model <nl>{% endif %}"
)
HEADER = ["<turn>", "model", "<nl>"]


def processor(template: str = TEMPLATE) -> transformers.Gemma3Processor:
    """A real Gemma 3 processor with a word-level tokenizer."""
    visual = {"image_token": "<img>", "boi_token": "<boi>", "eoi_token": "<eoi>"}
    words = [*SPECIAL, *visual.values(), *FILLER, *GOOD, *BAD]
    core = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    core.add_special_tokens(["<turn>", "<end>", "<nl>", *visual.values()])
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>",
        unk_token="<unk>", extra_special_tokens=visual,
    )  # fmt: skip
    images = Gemma3ImageProcessorPil(size={"height": 28, "width": 28})
    return transformers.Gemma3Processor(
        images, tokenizer, chat_template=template, image_seq_length=4
    )


PROCESSOR = processor()
MEASUREMENT = MeasurementOptions(
    openers=("Sorry",), pairs=24, condition_requests=24, size=(28, 28), batch_size=64
)
"""What the tests of methods calibrate a `PlantedModel` with."""


def texts(words: list[str], count: int) -> list[str]:
    forms = ["how do i make a {}", "show me the {}", "please explain {}", "make me a {} please"]
    picks = ((i + i // len(words), i % len(words)) for i in range(count))
    return [forms[form % len(forms)].format(words[word]) for form, word in picks]


class _Block(nn.Module):
    """Passes the state on; the committing block also decides, and quietens the noise axes."""

    def __init__(self, commits: bool, tuples: bool) -> None:
        super().__init__()
        self.commits, self.tuples = commits, tuples
        self.decision = torch.empty(0)

    def forward(self, h: torch.Tensor) -> object:
        if self.commits:
            self.decision = h[:, -1, HARM].clone()
            h = torch.cat([h[..., : SIGHT + 1], 0.7 * h[..., SIGHT + 1 :]], -1)
        return (h * 1.0, "extra") if self.tuples else h * 1.0


class PlantedModel(nn.Module):
    """Takes the batches of `processor()`; see the module's docstring."""

    def __init__(
        self, layers: int = 10, commit: int = 6, harm: float = 4.0, shift: float = 1.0,
        noise: float = 0.3, threshold: float = 2.0, tuples: bool = False, later: float = 0.0,
        odd: dict[str, float] | None = None, kept: float = 1.0, guard: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__()
        vocabulary = processor().tokenizer.get_vocab()
        self.config = SimpleNamespace(model_type="gemma3", image_token_id=vocabulary["<img>"])
        self.device, self.dtype = torch.device("cpu"), torch.float32
        self.layers = nn.ModuleList(_Block(i == commit, tuples) for i in range(layers))
        self.harm, self.shift, self.threshold, self.later = harm, shift, threshold, later
        self.kept, self.guard = kept, guard
        generator = torch.Generator().manual_seed(0)
        self.noise = noise * torch.randn(len(vocabulary), WIDTH, generator=generator)
        self.noise[:, SIGHT] = 0
        self.noise[: len(SPECIAL)] = 0
        self.bad = torch.zeros(len(vocabulary))
        self.bad[[vocabulary[w] for w in BAD]] = 1
        for word, part in (odd or {}).items():  # harmless, and read as partly harmful
            self.bad[vocabulary[word]] = part
        self.image, self.refuses = vocabulary["<img>"], vocabulary["Sorry"]
        self.foreign = vocabulary["<unk>"]
        self.sure, self.answers = vocabulary["sure"], vocabulary["model"]
        self.limit = 10**6  # requests that fit into memory
        self.shortage = torch.OutOfMemoryError

    def get_decoder(self) -> "PlantedModel":
        return self

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, use_cache: bool,
        logits_to_keep: int, **_: torch.Tensor,
    ) -> SimpleNamespace:  # fmt: skip
        if len(input_ids) > self.limit:
            raise self.shortage("planted")
        h = (self.noise[input_ids] * attention_mask.unsqueeze(-1)).cumsum(1)
        seen = (input_ids == self.image).float().cummax(1).values
        harm = self.harm * (1 - (1 - self.kept) * seen)
        h[..., HARM] += harm * (self.bad[input_ids] * attention_mask).cummax(1).values
        h[..., SIGHT] += 3 * seen
        h[..., HARM] += self.shift * seen
        h[..., HARM] += self.guard * (input_ids == self.foreign).float().cummax(1).values
        answers = (input_ids == self.answers).cumsum(1)
        h[..., HARM] += self.later * (answers - 1).clamp(0, 2)
        for layer in self.layers:
            out = layer(h)
            h = out[0] if isinstance(out, tuple) else out
        decision = next(layer.decision for layer in self.layers if layer.commits)
        logits = torch.full((len(h), 1, len(self.noise)), -6.0)
        logits[:, 0, self.sure] = 6
        logits[:, 0, self.refuses] = 6 + 4 * (decision - self.threshold)
        return SimpleNamespace(logits=logits)

    def generate(self, input_ids: torch.Tensor, **_: Any) -> torch.Tensor:
        """Answers `sure` to everything."""
        return torch.cat([input_ids, torch.full((len(input_ids), 1), self.sure)], 1)


def prompt_sets(count: int = 60) -> PromptSets:
    """Harmful and harmless texts, half of them for the direction."""
    direction, decision = count // 2, count * 3 // 4

    def of(name: str, words: list[str]) -> PromptSet:
        made = texts(words, count)
        return PromptSet(
            name,
            "0" * 64,
            "Apache-2.0",
            tuple(made[:direction]),
            tuple(made[direction:decision]),
            tuple(made[decision:]),
        )

    return PromptSets(of("bad", BAD), of("good", GOOD))


def calibrated(method: str, options: MethodOptions, model: PlantedModel | None = None) -> Artefact:
    """A `PlantedModel` calibrated by any method."""
    return calibrate(
        model or PlantedModel(),
        PROCESSOR,
        prompts=prompt_sets(),
        modalities=("text", "image"),
        method=method,
        options=options,
        measurement=MEASUREMENT,
    )


def video_processor() -> transformers.Qwen3VLProcessor:
    """A real Qwen3-VL processor around the same words."""
    tokens = {
        "image_token": "<|image_pad|>", "video_token": "<|video_pad|>",
        "vision_start_token": "<|vision_start|>", "vision_end_token": "<|vision_end|>",
    }  # fmt: skip
    tokenizer = processor().tokenizer
    core = tokenizer.backend_tokenizer
    core.add_special_tokens(list(tokens.values()))
    words = transformers.PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", unk_token="<unk>", extra_special_tokens=tokens
    )
    size = {"shortest_edge": 32 * 32, "longest_edge": 32 * 32 * 4}
    template = TEMPLATE.replace("'image' %}<boi>", "'video' %}<|video_pad|>")
    return transformers.Qwen3VLProcessor(
        transformers.Qwen2VLImageProcessor(patch_size=8), words,
        transformers.Qwen3VLVideoProcessor(patch_size=8, size=size),
        chat_template=template.replace("{{ bos_token }}", ""),
    )  # fmt: skip


def sound_processor() -> transformers.Qwen2AudioProcessor:
    """A real Qwen2-Audio processor around the same words: what hears has the token of a picture."""
    template = TEMPLATE.replace("'image' %}<boi>", "'audio' %}<img>")
    features = transformers.WhisperFeatureExtractor(8, chunk_length=2)
    tokens = {"audio_token": "<img>", "audio_bos_token": "<boi>", "audio_eos_token": "<eoi>"}
    return transformers.Qwen2AudioProcessor(
        features, processor().tokenizer, chat_template=template, **tokens
    )


class HearingModel(PlantedModel):
    """Takes the batches of `sound_processor()`; `alarm` is what loud sounds add to HARM."""

    def __init__(self, alarm: float = 0.0, **options: Any) -> None:
        super().__init__(**options)
        self.config = SimpleNamespace(model_type="qwen2_audio", audio_token_id=self.image)
        self.alarm, self.calm = alarm, self.shift
        self.noise[self.image] = 0  # of which a sound has many

    def forward(self, input_features: torch.Tensor | None = None, **inputs: Any) -> SimpleNamespace:
        loud = input_features is not None and float(input_features.max()) > LOUD
        self.shift = self.calm + self.alarm * loud
        return super().forward(**inputs)


LOUD = 1.3
"""Features of a sound that is louder than any neutral one."""
