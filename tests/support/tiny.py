"""Tiny random checkpoints of each family, with matching inputs and a made-up calibration.

No tokenizer: the runtime is tested on token ids. Behavior is tested on the model organisms.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers

from mars_export.checkpoint.manifest import BaseModelSource
from mars_export.checkpoint.writer import write_checkpoint
from mars_export.methods.addition.record import AdditionRecord, Effect, Trial
from mars_export.methods.base import Artefact, ArtefactRecord, PromptSource
from mars_export.methods.mars.record import LayerScore, MarsRecord, mars_record
from mars_export.methods.mars_cosine.record import CosineRecord, Gates
from mars_export.methods.mars_rai.record import MarsRaiRecord
from mars_export.methods.rai.record import Kind, Point, Prototype, RaiRecord, Visual
from mars_export.methods.ras.record import RasRecord, Reading
from support.artefacts import mars_artefact, pushed_probes, with_tensors

VOCABULARY, IMAGE, VIDEO, VISION_START, VISION_END = 320, 300, 301, 302, 303
AUDIO, AUDIO_START, AUDIO_END = 307, 308, 309
HEADER = [310, 311, 312]  # stands for `<start of turn> assistant \n`
HEADERS = [{"prefix": HEADER[:-1], "ends": [HEADER[-1]]}]
TURN_STARTS = [[310, 315]]  # `<start of turn> user`
HIDDEN, LAYERS, LAYER = 64, 4, 2
TEXT = {
    "hidden_size": HIDDEN,
    "intermediate_size": 128,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def _gemma3():
    return transformers.Gemma3ForConditionalGeneration, transformers.Gemma3Config(
        text_config={**TEXT, "query_pre_attn_scalar": 16, "sliding_window": 16},
        vision_config={
            "model_type": "siglip_vision_model",
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "image_size": 28,
            "patch_size": 14,
            "vision_use_head": False,
        },
        mm_tokens_per_image=4,
        image_token_index=IMAGE,
        boi_token_index=VISION_START,
        eoi_token_index=VISION_END,
    )


def _qwen3_vl():
    rope = {
        "rope_type": "default",
        "rope_theta": 1e4,
        "mrope_section": [2, 3, 3],
        "mrope_interleaved": True,
    }
    return transformers.Qwen3VLForConditionalGeneration, transformers.Qwen3VLConfig(
        text_config={**TEXT, "rope_parameters": rope},
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 4,
            "patch_size": 14,
            "out_hidden_size": HIDDEN,
            "depth": 3,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0, 1],
        },
        tie_word_embeddings=True,
        image_token_id=IMAGE,
        video_token_id=VIDEO,
        vision_start_token_id=VISION_START,
        vision_end_token_id=VISION_END,
    )


BUILDERS = {"gemma3": _gemma3, "qwen3_vl": _qwen3_vl}
FAMILIES = sorted(BUILDERS)


def save_base(family: str, directory: Path, **save) -> Path:
    """Save a seeded random base; matrices are scaled up so that greedy tokens vary."""
    cls, config = BUILDERS[family]()
    torch.manual_seed(0)
    model = cls(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() >= 2 and "norm" not in name:
                parameter.mul_(3)
    model.save_pretrained(directory, **save)
    return directory


def prompt(text: list[int], visual: str | None = None) -> list[int]:
    """Token ids of a one-turn request, generation prompt included."""
    placeholder = {"image": IMAGE, "video": VIDEO}.get(visual)
    shown = [VISION_START] + [placeholder] * 4 + [VISION_END] if placeholder else []
    return [1, *shown, *text, *HEADER]


def inputs(family: str, rows: list[tuple[list[int], str | None]], seed: int = 1) -> dict:
    """Left-padded batch of `(text ids, visual)` rows with random pixels."""
    generator = torch.Generator().manual_seed(seed)
    ids = [prompt(text, visual) for text, visual in rows]
    width = max(map(len, ids))
    batch = {
        "input_ids": torch.tensor([[0] * (width - len(row)) + row for row in ids]),
        "attention_mask": torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in ids]),
    }
    images = sum(visual == "image" for _, visual in rows)
    videos = sum(visual == "video" for _, visual in rows)
    types = (batch["input_ids"] == IMAGE).long() + 2 * (batch["input_ids"] == VIDEO).long()
    if family == "gemma3":
        batch["token_type_ids"] = types
        if images:
            batch["pixel_values"] = torch.randn(images, 3, 28, 28, generator=generator)
        return batch
    batch["mm_token_type_ids"] = types.int()
    for count, pixels, grid in (
        (images, "pixel_values", "image_grid_thw"),
        (videos, "pixel_values_videos", "video_grid_thw"),
    ):
        if count:
            batch[pixels] = torch.randn(count * 16, 3 * 2 * 14 * 14, generator=generator)
            batch[grid] = torch.tensor([[1, 4, 4]] * count)
    return batch


def random_ids(count: int, seed: int = 0) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(10, 290, (count,), generator=generator).tolist()


def calibration(family: str, **changes) -> ArtefactRecord:
    """A made-up calibration whose gate opens for about half of random requests."""
    score = LayerScore(
        layer=LAYER, consistency=1, separability=5, margin=0.5, combined=1, excluded=None,
        separation=40.0, shift={"image": 0.1},
    )  # fmt: skip
    prompts = PromptSource(
        name="none",
        sha256="0" * 64,
        license="apache-2.0",
        direction=1,
        decision=1,
        check=1,
        dropped=0,
    )
    fields = {
        "model_type": family, "layer": LAYER, "layers": LAYERS, "hidden_size": HIDDEN,
        "dtype": "float32", "separation": 40.0, "harmful": 20.0, "harmless": -20.0,
        "shift": {"text": 0.0, "image": 3.0, "video": -5.0}, "origin": -10.0, "cap": 600.0,
        "gain": 20.0, "radius": 10.0, "refusal_tokens": [5], "scores": [score],
        "prompts": {"harmful": prompts, "harmless": prompts}, "stimuli": {},
        "headers": HEADERS, "turn_starts": TURN_STARTS, "seed": 0, "seconds": 0.0,
    }  # fmt: skip
    if family == "gemma3":
        fields["shift"] = {"text": 0.0, "image": 3.0}
    return mars_artefact({**fields, **changes})


def record(family: str, **changes) -> MarsRecord:
    """The numbers of `calibration`."""
    return mars_record(calibration(family, **changes))


def artefact(family: str, **changes) -> Artefact:
    """`calibration` along a random direction."""
    direction = torch.randn(HIDDEN, generator=torch.Generator().manual_seed(7))
    return with_tensors(calibration(family, **changes), direction)


def mars_cosine(family: str, **changes) -> Artefact:
    """The same direction and bounds, with a cosine from a center below most random states."""
    mars = artefact(family, **changes)
    numbers, r = mars_record(mars.record), mars.tensors["direction"]
    kept = {name: value for name, value in numbers if name in CosineRecord.model_fields}
    gates = [Gates(label="harmful", modality="image", n=9, open=9, median=0.5)]
    return Artefact.of(
        "mars-cosine", mars.record.source, CosineRecord(**kept, gates=gates),
        rules=mars.record.rules, probes=mars.record.probes,
        tensors={**mars.tensors, "center": -20 * r},
    )  # fmt: skip


def addition(
    family: str,
    positions: str = "all",
    coefficient: float = 1.0,
    layers: tuple[int, ...] = (LAYER,),
    layer_forced: bool = False,
) -> Artefact:
    """A made-up constant addition along the same direction, longer in every further layer."""
    push = artefact(family).tensors["direction"] * 20 * coefficient
    record = AdditionRecord(
        layer=LAYER, separation=20, positions=positions, coefficient=coefficient,
        trials=[Trial(layer=LAYER, separability=3.0, induced=2.0)],
        effects=[Effect(label="harmful", modality="image", before=-2.0, after=4.0)],
        layer_forced=layer_forced,
    )  # fmt: skip
    rules = {"layers": list(layers), "positions": positions}
    tensors = {"push": push}
    if len(layers) > 1:
        tensors = {f"push.{layer}": push * n for n, layer in enumerate(layers, start=1)}
    source = calibration(family).source
    return Artefact.of(
        "addition", source, record, rules=rules, tensors=tensors,
        probes=pushed_probes(source.modalities),
    )  # fmt: skip


def ras(
    family: str,
    user: tuple[int, ...] = (1,),
    tail: tuple[int, ...] = (),
    middle: float = 0.5,
    caption_tokens: int = 4,
    shift: dict[str, float] | None = None,
) -> Artefact:
    """A made-up RAS with random prototypes; `user` begins a turn, which a plain prompt does not."""
    source = calibration(family, **({"shift": shift} if shift else {})).source
    prompts = {
        "opening": [1], "user": list(user), "separator": [], "closing": [*HEADER, *tail],
        "tail": list(tail), "visual": [IMAGE, VIDEO, VISION_START, VISION_END, *range(304, 307)],
        "blanks": [], "structure": [0, 1, 2, *range(300, 320)], "caption": random_ids(3, 91),
        "safety": random_ids(4, 92), "question": random_ids(1, 93),
    }  # fmt: skip
    record = RasRecord(
        steps=3, discount=0.3, caption_tokens=caption_tokens, refusals=9, middle=middle,
        slope=9.0, auroc=0.97,
        readings=[Reading(label="harmful", modality="text", part="check", requests=9,
                          similarity=0.9, risk=0.9, risky=1.0)],
    )  # fmt: skip
    rules = {
        "layers": [], "positions": "answer", "steps": 3, "discount": 0.3,
        "caption_tokens": caption_tokens, "prompts": prompts,
    }  # fmt: skip
    prototypes = 3 * torch.randn(3, HIDDEN, generator=torch.Generator().manual_seed(8))
    return Artefact.of(
        "ras", source, record, rules=rules, probes=pushed_probes(source.modalities),
        tensors={"prototypes": prototypes, "curve": torch.tensor([middle, 9.0])},
    )  # fmt: skip


def in_layers(record: ArtefactRecord) -> tuple[torch.Tensor, ...]:
    """Contexts of 64 states, as a rule in a decoder layer is given them."""
    number = torch.arange(64)
    return (torch.stack([number % len(record.source.modalities), number % 7, number % 3], -1),)


def in_answers(_record: ArtefactRecord) -> tuple[torch.Tensor, ...]:
    """Risks and steps of 64 states, as a rule at generate() is given them."""
    number = torch.arange(64)
    return number / 64, number % 3


def rai(
    family: str, rai_gain: float = 40.0, threshold: float = 0.05,
    modalities: tuple[str, ...] | None = None, **_options: float,
) -> Artefact:  # fmt: skip
    """Made-up prototypes and thresholds of which a random visual token may be above or below."""
    source = calibration(family).source
    modalities = modalities or source.modalities
    source = source.model_copy(update={"modalities": modalities, "headers": [], "turn_starts": []})
    words = [
        Prototype(category="fraud", word=word, tokens=[n], norm=1.0)
        for n, word in enumerate(["a", "b", "c", "d", "e", "f", "g", "h"], start=20)
    ]
    prototypes = torch.randn(len(words), HIDDEN, generator=torch.Generator().manual_seed(8))
    visual = {
        modality: Visual(
            threshold=threshold, tokens=100, length=1.0, push=0.1,
            curve=[Point(share=0.1, threshold=threshold, tokens=0.1, stimuli=0.2),
                   Point(share=0.3, threshold=threshold / 2, tokens=0.2, stimuli=0.6)],
            kinds=[Kind(kind="noise", stimuli=1, tokens=4, touched_tokens=1, touched_stimuli=1)],
        )
        for modality in modalities[1:]
    }  # fmt: skip
    return Artefact.of(
        "rai", source, RaiRecord(prototypes=words, share=0.1, gain=rai_gain, visual=visual),
        rules={"layers": [], "positions": "none", "words": len(words)},
        tensors={
            "prototypes": torch.nn.functional.normalize(prototypes, dim=-1),
            "thresholds": torch.tensor([2.0, *[threshold] * len(visual)]),
            "gain": torch.tensor(rai_gain),
        },
        probes=pushed_probes(modalities[1:]),
    )  # fmt: skip


def mars_rai(family: str, rai_share: float = 0.1, **changes) -> Artefact:
    """Both, as they are made up alone."""
    mars = artefact(family, **changes)
    visual = rai(family, modalities=mars.record.source.modalities, rai_share=rai_share)
    record = MarsRaiRecord(**dict(mars.record.record), rai=visual.record.record)
    return Artefact.of(
        "mars+rai", mars.record.source, record,
        rules={**visual.record.rules, **mars.record.rules},
        tensors={**visual.tensors, **mars.tensors}, probes=mars.record.probes,
    )  # fmt: skip


@dataclass(frozen=True)
class MethodCase:
    """A method that makes checkpoints, with some options.

    Attributes:
        method: Its name.
        artefact: Makes a tiny artefact from a family's name and changes.
        options: What a model, planted or an organism, is calibrated with; `artefact` takes them
            as well.
        arguments: Of its rule, behind the states.
        planted: Whether the planted model can be calibrated by it.
    """

    method: str
    artefact: Callable[..., Artefact]
    options: dict[str, Any] = field(default_factory=dict)
    arguments: Callable[[ArtefactRecord], tuple[torch.Tensor, ...]] = in_layers
    planted: bool = True


METHOD_CASES = {
    "mars": MethodCase("mars", artefact),
    "mars-cosine": MethodCase("mars-cosine", mars_cosine),
    "addition": MethodCase("addition", addition),
    "addition to the prompt": MethodCase(
        "addition", addition, {"positions": "prompt", "coefficient": 2.0}
    ),
    "ras": MethodCase("ras", ras, arguments=in_answers, planted=False),
    "rai": MethodCase("rai", rai, {"rai_share": 0.05}, planted=False),
    "mars+rai": MethodCase("mars+rai", mars_rai, {"rai_share": 0.05}, planted=False),
}
"""The table that all tests of methods run over; a new method adds its lines here."""


def save_calibration(family: str, directory: Path, method: str = "mars", **changes) -> Path:
    METHOD_CASES[method].artefact(family, **changes).save(directory)
    return directory


def source(family: str) -> BaseModelSource:
    architecture = BUILDERS[family]()[0].__name__ if family in BUILDERS else "Unknown"
    return BaseModelSource(
        repo=None, revision=None, name=f"tiny-{family}", model_type=family,
        architecture=architecture, license="apache-2.0", pipeline_tag="image-text-to-text",
    )  # fmt: skip


def export(family: str, folder: Path, method: str = "mars", **changes) -> tuple[Path, Path]:
    """Save a base and its steered checkpoint; returns both directories.

    `changes` go to the method's maker in `METHOD_CASES`.
    """
    base = save_base(family, folder / "base")
    calibration = save_calibration(family, folder / "calibration", method, **changes)
    target = folder / "steered"
    write_checkpoint(base, target, source=source(family), calibration_dir=calibration)
    return base, target
