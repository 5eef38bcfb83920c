"""Named shapes of Qwen3-VL, and random checkpoints of them, base and steered."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

from mars_export.checkpoint.manifest import BaseModelSource
from mars_export.checkpoint.writer import write_checkpoint
from mars_export.common.header import Header
from mars_export.methods.base import Artefact, CalibrationSource, Decision, Probe, PromptSource
from mars_export.methods.mars.record import MarsRecord, Shift
from mars_export.methods.mars.view import rule_sizes, rule_tensors

__all__ = ["PUSH", "SHAPES", "Pair", "Shape", "make_base", "make_steered", "share_weights"]

PUSH = 8.0
"""Length of the push that the made-up calibration gives every request, residual-stream units."""

_OPEN = 1000.0
"""Half the distance of the made-up centroids: the gate is half open whatever the weights say."""


@dataclass(frozen=True)
class Shape:
    """Sizes of a Qwen3-VL; weights are random, so only the sizes matter.

    text, vision: of the two configurations. rope: rotary pairs of time, height and width. layer:
    the steered one. Prompts are random ids from `first_word` on, below `special`.
    """

    name: str
    text: dict[str, Any]
    vision: dict[str, Any]
    rope: list[int]
    tied: bool
    layer: int
    first_word: int = 1000
    special: int = 151644

    @property
    def header(self) -> list[int]:
        """Token ids of the assistant header."""
        return [self.special, self.first_word, self.first_word + 1]

    def config(self) -> Any:
        """Configuration of the native model."""
        rope = {"rope_type": "default", "rope_theta": 5e6, "mrope_interleaved": True}
        return transformers.Qwen3VLConfig(
            text_config={
                **self.text,
                "max_position_embeddings": 262144,
                "rope_parameters": {**rope, "mrope_section": self.rope},
            },
            vision_config={**self.vision, "out_hidden_size": self.text["hidden_size"]},
            tie_word_embeddings=self.tied,
            vision_start_token_id=self.special + 8,
            vision_end_token_id=self.special + 9,
            image_token_id=self.special + 11,
            video_token_id=self.special + 12,
        )


_REAL = {"vocab_size": 151936, "head_dim": 128, "num_key_value_heads": 8}

# 2b and 8b are as in the config.json of Qwen3-VL-2B-Instruct and Qwen3-VL-8B-Instruct. 2b-slice has
# four layers of 2b and a small vocabulary, so that long prompts run on a CPU: what steering costs
# does not depend on either, and weighs more beside a smaller model.
SHAPES = {
    "tiny": Shape(
        "tiny",
        text={
            "vocab_size": 640, "head_dim": 16, "num_key_value_heads": 2, "num_hidden_layers": 2,
            "hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4,
        },
        vision={
            "depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 4,
            "deepstack_visual_indexes": [0, 1],
        },
        rope=[2, 3, 3], tied=True, layer=1, first_word=100, special=600,
    ),
    "2b": Shape(
        "2b",
        text={
            **_REAL, "num_hidden_layers": 28, "hidden_size": 2048, "intermediate_size": 6144,
            "num_attention_heads": 16,
        },
        vision={
            "depth": 24, "hidden_size": 1024, "intermediate_size": 4096, "num_heads": 16,
            "deepstack_visual_indexes": [5, 11, 17],
        },
        rope=[24, 20, 20], tied=True, layer=17,
    ),
    "2b-slice": Shape(
        "2b-slice",
        text={
            **_REAL, "vocab_size": 16384, "num_hidden_layers": 4, "hidden_size": 2048,
            "intermediate_size": 6144, "num_attention_heads": 16,
        },
        vision={
            "depth": 3, "hidden_size": 1024, "intermediate_size": 4096, "num_heads": 16,
            "deepstack_visual_indexes": [0, 1, 2],
        },
        rope=[24, 20, 20], tied=True, layer=2, special=16000,
    ),
    "8b": Shape(
        "8b",
        text={
            **_REAL, "num_hidden_layers": 36, "hidden_size": 4096, "intermediate_size": 12288,
            "num_attention_heads": 32,
        },
        vision={
            "depth": 27, "hidden_size": 1152, "intermediate_size": 4304, "num_heads": 16,
            "deepstack_visual_indexes": [8, 16, 24],
        },
        rope=[24, 20, 20], tied=False, layer=22,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Pair:
    """A base and its steered checkpoint on disk, and what the export took.

    direction (d,): unit direction of the push, float32. beside: seconds of the export outside
    hashing. hashing: seconds of the rest. written: bytes that are new on disk.
    """

    base: Path
    steered: Path
    direction: torch.Tensor
    beside: float
    hashing: float
    written: int


def make_base(shape: Shape, directory: Path, device: torch.device) -> None:
    """Save a bfloat16 model of random weights, made on `device`."""
    torch.manual_seed(0)
    with torch.device(device):
        model = transformers.Qwen3VLForConditionalGeneration._from_config(
            shape.config(), dtype=torch.bfloat16
        )
    model.save_pretrained(directory, max_shard_size="5GB")


def make_steered(shape: Shape, base: Path, directory: Path) -> Pair:
    """Export the base with a made-up calibration, by the package's own writer."""
    direction = torch.randn(shape.text["hidden_size"], generator=torch.Generator().manual_seed(1))
    direction /= direction.norm()
    calibration = directory / "calibration"
    _artefact(shape, direction).save(calibration)
    source = BaseModelSource(
        repo=None, revision=None, name=f"random-qwen3-vl-{shape.name}", model_type="qwen3_vl",
        architecture="Qwen3VLForConditionalGeneration", license="apache-2.0",
        pipeline_tag="image-text-to-text",
    )  # fmt: skip
    target, hashed = directory / f"steered_{shape.name}", list[float]()
    start = time.perf_counter()
    write_checkpoint(
        base, target, source=source, calibration_dir=calibration,
        progress=lambda _done, _total: hashed.append(time.perf_counter()),
    )  # fmt: skip
    hashing, all_of_it = hashed[-1] - hashed[0], time.perf_counter() - start
    return Pair(base, target, direction, all_of_it - hashing, hashing, _new_bytes(base, target))


def share_weights(model: Any, base: Any) -> None:
    """Put the weights of `base` into a steered model in the place of its own, which are equal."""
    tensors = dict(base.named_parameters(remove_duplicate=False))
    tensors |= dict(base.named_buffers(remove_duplicate=False))
    own = [*model.named_parameters(remove_duplicate=False)]
    own += model.named_buffers(remove_duplicate=False)
    for name, tensor in own:
        if name not in tensors:  # of the steering
            continue
        if not tensor.equal(tensors[name]):
            raise ValueError(f"{name} is not that of the base")
        owner, _, leaf = name.rpartition(".")
        module = model.get_submodule(owner)
        held = module._parameters if leaf in module._parameters else module._buffers
        held[leaf] = tensors[name]


def _artefact(shape: Shape, direction: torch.Tensor) -> Artefact:
    none = PromptSource(
        name="none",
        sha256="0" * 64,
        license="apache-2.0",
        direction=1,
        decision=1,
        check=1,
        dropped=0,
    )
    source = CalibrationSource(
        model_type="qwen3_vl", layers=shape.text["num_hidden_layers"],
        hidden_size=shape.text["hidden_size"], dtype="bfloat16",
        modalities=("text", "image", "video"), turn_starts=[],
        headers=[Header(prefix=shape.header[:-1], ends=shape.header[-1:])],
        prompts={"harmful": none, "harmless": none}, stimuli={}, seed=0, seconds=0.0,
    )  # fmt: skip
    record = MarsRecord(
        layer=shape.layer, separation=2 * _OPEN, harmless=-_OPEN,
        harmful=dict.fromkeys(source.modalities, _OPEN),
        origin=dict.fromkeys(source.modalities, -_OPEN),
        shift=dict.fromkeys(source.modalities, Shift(tokens=[0], values=[0.0])),
        cap=2 * _OPEN, gain=1.0,
        radius=PUSH / (2 * _OPEN), refusal_tokens=[5], scores=[],
    )  # fmt: skip
    probes = [
        Probe(
            modality=modality, prompt="not run",
            stimuli=() if modality == "text" else (0,),
            expected=Decision(active=True, gate=0.5, strength=PUSH, modality=modality),
        )
        for modality in source.modalities
    ]  # fmt: skip
    return Artefact.of(
        "mars", source, record, rules={
            "layers": [shape.layer], "positions": "turn_end", **rule_sizes(record.shift)
        },
        tensors=rule_tensors(record, direction, record.gain, record.radius), probes=probes,
    )  # fmt: skip


def _new_bytes(base: Path, target: Path) -> int:
    """Bytes under `target` that are no hard links to files of `base`."""
    known = {path.stat().st_ino for path in base.iterdir()}
    found = [path.stat() for path in target.rglob("*") if path.is_file()]
    return sum(file.st_size for file in found if file.st_ino not in known)
