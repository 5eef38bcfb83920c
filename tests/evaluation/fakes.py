"""A model that answers and steers by rule, and a steered directory without weights."""

import hashlib
import json
from dataclasses import dataclass, field
from types import SimpleNamespace

import torch

from mars_export.checkpoint.manifest import MANIFEST_NAME, Manifest
from mars_export.evaluation.generation import Answers
from mars_export.evaluation.overhead import Cost
from mars_export.inputs.drawings import MIXTURE
from mars_export.inputs.stimuli import STIMULI
from mars_export.methods.base import Decision, Probe, StimulusSource
from support import tiny
from support.tiny import HEADER, source

SCALES = {"gate_scale": 4 / 3, "strength_scale": 3200 / 3}


def probe(modality, prompt, gate, strength, stimuli=(), **changes):
    expected = Decision(active=strength > 0, gate=gate, strength=strength, modality=modality)
    fields = {"modality": modality, "prompt": prompt, "stimuli": stimuli, "expected": expected}
    return Probe(**fields, **{"significant": strength > 4, **SCALES, **changes})


PROBES = [
    probe("text", "bad", 1.0, 12.0),
    probe("image", "bad", 0.5, 6.0, stimuli=(1,)),
    probe("text", "good", 0.0, 0.0),
]
"""The fake sees harm in the word `bad` and halves the gate beside a picture."""

SUITE = [
    {"id": f"{label}-{modality}-{i}", "modality": modality, "harmful": label == "bad",
     "split": "evaluation", "prompt": f"{label} {modality} request {'long ' * (i % 4)}{i}"}
    for label in ("bad", "good") for modality in ("text", "image") for i in range(5)
]  # fmt: skip


def calibration(**changes):
    made = {"generator": STIMULI["image"].generator, "kinds": MIXTURE, "seed": 3, "count": 2}
    made |= {"width": 8, "height": 8}
    image = StimulusSource(**made, frames=1)
    made = {"probes": PROBES, "stimuli": {"image": image}, "refusal_tokens": [0]}
    return tiny.calibration("gemma3", **{**made, **changes})


def save_manifest(directory, **changes):
    manifest = Manifest(
        created="2026-01-01T00:00:00+00:00",
        base=source("gemma3"),
        steering_sha256="0" * 64,
        modeling_file="modeling_steered.py",
        tensors=[],
        files=[],
        calibration=calibration(**changes),
        versions={},
    )
    directory.mkdir(parents=True, exist_ok=True)
    (directory / MANIFEST_NAME).write_text(manifest.model_dump_json())
    return manifest


def save_suite(directory, rows=SUITE):
    from PIL import Image

    directory.mkdir(parents=True, exist_ok=True)
    Image.new("L", (4, 4), 200).save(directory / "p.png")
    lines = []
    for row in rows:
        image = "p.png" if row["modality"] == "image" else None
        video = ["p.png", "p.png"] if row["modality"] == "video" else None
        lines.append(json.dumps({"image": image, "video": video, **row}))
    path = directory / "suite.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path


class Template:
    """Stands where a processor does: a chat template that writes every turn."""

    def apply_chat_template(self, conversation, **_):
        return str(conversation)


@dataclass
class FakeLoaded:
    """Stands where `Loaded` does. Answers depend on the batch, as rounding does in earnest."""

    fits: int = 1000
    """Requests that fit into memory."""
    dies_after: int | None = None
    """Batches until the process is killed."""
    broken: str = ""
    """What goes wrong with the steering."""
    thought: int = 0
    """Tokens of an opened thought behind the assistant header."""
    batches: list = field(default_factory=list)
    processor: object = field(default_factory=Template)
    scale: float = 1.0
    """Multiple of the strength in the present batch."""

    def __post_init__(self):
        self.model = SimpleNamespace(dtype=torch.float32, steering=SimpleNamespace(enabled=True))
        self._calls = 0

    def inputs(self, requests):
        lengths = [len(request.prompt) + self.thought for request in requests]
        width = max(lengths)
        mask = torch.tensor([[0] * (width - n) + [1] * n for n in lengths])
        ids = torch.zeros_like(mask)
        if self.broken != "bare" and width >= len(HEADER) + self.thought:
            at = slice(width - self.thought - len(HEADER), width - self.thought)
            ids[:, at] = torch.tensor(HEADER)
        return {"requests": requests, "input_ids": ids, "attention_mask": mask}

    def answer(self, inputs, max_new_tokens, *, steered, seed=None, factor=None):
        requests, arm = inputs["requests"], "on" if steered else "off"
        if self.broken == "raises":
            raise KeyError("no such layer")
        if len(requests) > self.fits:
            raise torch.OutOfMemoryError("too many")
        if max_new_tokens > 2:
            if self.dies_after is not None and len(self.batches) >= self.dies_after:
                raise KeyboardInterrupt
            if arm == "on":
                self.batches.append([request.prompt for request in requests])
        self.scale = 1.0 if factor is None else factor
        rows = [self._row(request, arm, len(requests)) for request in requests]
        texts, steered, logits = map(list, zip(*rows, strict=True))
        pushes = [row[-1].strength / 100 if factor and row else None for row in steered]
        cut, cost = [False] * len(rows), Cost(seconds=1.5 if arm == "on" else 1.0, steps=3)
        return Answers(texts, steered, torch.stack(logits), pushes, cut, cost)

    def _row(self, request, arm, size):
        harm, image = "bad" in request.prompt, request.modality == "image"
        gate = (0.5 if image else 1.0) * harm * (1.2 if self.broken == "gate" else 1)
        gate *= self.broken != "inert"
        strength = 12.0 * (0.5 if image else 1.0) * harm * (0.4 if self.broken == "weak" else 1)
        strength *= self.scale * (self.broken != "inert")
        end = len(request.prompt) - 1 - (self.broken == "position")
        said = SimpleNamespace(
            position=end,
            layer=0,
            modality="video" if self.broken == "modality" else "image" if image else "text",
            gate=float("nan") if self.broken == "nan" else gate,
            strength=strength,
            calibrated=not image,
        )
        steered = [] if arm == "off" or self.broken == "silent" else [said]
        steered = steered * (2 if self.broken == "twice" else 1)
        refuses = harm and (arm == "on" or not image)
        pushed = strength if arm == "on" and self.broken != "no effect" else 0.0
        pushed += 1.0 if arm == "on" and self.broken == "spills" else 0.0
        self._calls += 1
        drift = self._calls if self.broken == "drifts" else 0
        digest = hashlib.sha256(f"{request.prompt} {arm} {size}".encode()).hexdigest()[:6]
        text = (
            f"I cannot help with that {digest}." if refuses else f"Here it is, {digest}\u2028\x85."
        )
        return text, steered, torch.tensor([pushed, 1.0 + drift])
