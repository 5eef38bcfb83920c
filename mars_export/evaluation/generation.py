"""Loading a steered directory as a user does, and answers with steering off or on."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

import torch
import transformers

from mars_export.common.input_errors import input_errors
from mars_export.common.vocabulary import Modality, auto_class
from mars_export.evaluation.overhead import Cost
from mars_export.families import text_decoder
from mars_export.families.directory import read_config
from mars_export.families.loading import settled
from mars_export.families.placement import Device, input_device, offloading
from mars_export.families.quantization import NONE, SCHEMES, loading_options, refuse_unfit_layers
from mars_export.inputs.requests import Request, collate
from mars_export.inputs.template import with_options
from mars_export.methods.base import ArtefactRecord, Decision
from mars_export.runtime.layer import AT_MODEL

__all__ = [
    "GREEDY",
    "SAMPLED",
    "Answers",
    "Loaded",
    "SteeredPosition",
    "clock",
    "hosted_rules",
    "load",
    "load_calibrated",
    "load_processor",
    "rescaled",
]

_PUSH: Final = "relative_push"
"""In the trace, beside what a rule decides."""

GREEDY: Final[dict[str, int | float | bool]] = {
    "do_sample": False,
    "num_beams": 1,
    "temperature": 1.0,
    "top_p": 1.0,
    "top_k": 50,
}
"""Greedy decoding, whatever the checkpoint's own defaults. The last three are Transformers'
defaults: greedy decoding ignores them, and warns of any other value."""

SAMPLED: Final[dict[str, int | float | bool]] = {**GREEDY, "do_sample": True, "top_k": 0}
"""Drawn from the model's own distribution: temperature 1, nothing cut off."""


class SteeredPosition(Protocol):
    """What `model.steering.last` says of one steered position."""

    position: int
    modality: Modality
    layer: int
    gate: float | None
    strength: float | None
    calibrated: bool | None


@dataclass(frozen=True)
class Answers:
    """Answers to a batch of B requests.

    Attributes:
        texts: B answers without special tokens.
        steered: For each request its steered positions, in order; empty lists with steering off.
        logits: (B, V), of the first generated token, in the model's dtype.
        pushes: For each request the length of the change where its answer begins over that of the
            residual stream there, largest of the steered layers; None where nothing was steered or
            nothing was measured.
        cut: For each request whether its answer reached the token limit without an end token.
        cost: What the generation took.
    """

    texts: list[str]
    steered: list[list[SteeredPosition]]
    logits: torch.Tensor
    pushes: list[float | None] = field(default_factory=list)
    cut: list[bool] = field(default_factory=list)
    cost: Cost = field(default_factory=lambda: Cost(seconds=0.0, steps=0))

    @property
    def decisions(self) -> list[Decision | None]:
        """What the method did for each request; None where it did nothing."""
        return [_decision(positions) for positions in self.steered]


def _decision(positions: Sequence[SteeredPosition]) -> Decision | None:
    """That of the last position, where the answer begins; calibrated are all or none."""
    if not positions:
        return None
    last = positions[-1]
    covered = [p.calibrated for p in positions if p.calibrated is not None]
    return Decision(
        active=any(position.strength != 0 for position in positions),
        gate=last.gate,
        strength=last.strength,
        position=last.position,
        modality=last.modality,
        calibrated=all(covered) if covered else None,
    )


def clock(device: torch.device) -> Callable[[int], Cost]:
    """Start measuring; the function that is returned stops after so many forward passes."""
    cuda = device.type == "cuda"
    if cuda:
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
    start = time.perf_counter()

    def stop(steps: int) -> Cost:
        if cuda:
            torch.cuda.synchronize(device)
        seconds = time.perf_counter() - start
        peak = torch.cuda.max_memory_allocated(device) if cuda else None
        return Cost(seconds=seconds, steps=steps, peak=peak)

    return stop


@dataclass(frozen=True)
class Loaded:
    """A steered model and its processor, as `from_pretrained` gives them."""

    model: Any
    processor: Any

    def inputs(self, requests: Sequence[Request]) -> Any:
        """The requests as model inputs, where and as the model wants them."""
        return collate(self.processor, requests).to(input_device(self.model), self.model.dtype)

    def answer(
        self,
        inputs: Any,
        max_new_tokens: int,
        *,
        steered: bool,
        seed: int | None = None,
        factor: float | None = None,
        streamer: Any = None,
    ) -> Answers:
        """Generate.

        Args:
            inputs: Of `Loaded.inputs`.
            max_new_tokens: Longest answer, in tokens.
            steered: Whether steering is on.
            seed: Of an answer that is sampled; None for a greedy one.
            factor: Multiple of every change that steering makes, which is then measured too; None
                to leave the rule alone.
            streamer: Gets the tokens as they come, a `BaseStreamer` of Transformers; one row alone.

        Raises:
            AttributeError: Steering is to be on and the model has none.
        """
        if steered or hasattr(self.model, "steering"):
            self.model.steering.enabled = steered
        if seed is not None:
            torch.manual_seed(seed)
        stop = clock(input_device(self.model))
        with rescaled(self.model, factor) if steered and factor is not None else nullcontext():
            out = self.model.generate(
                **inputs,
                **(GREEDY if seed is None else SAMPLED),
                max_new_tokens=max_new_tokens,
                return_dict_in_generate=True,
                output_logits=True,
                streamer=streamer,
            )
        cost = stop(len(out.logits))
        rows, width = inputs["input_ids"].shape
        tokens = out.sequences[:, width:]
        texts = self.processor.batch_decode(tokens, skip_special_tokens=True)
        last = self.model.steering.last if steered else []
        return Answers(
            list(texts),
            list(last) or [[] for _ in range(rows)],
            out.logits[0],
            _pushes(self.model.steering.trace, rows) if steered else [None] * rows,
            self._cut(tokens),
            cost,
        )

    def _cut(self, tokens: torch.Tensor) -> list[bool]:
        """Of answers (B, N), those without an end token: only the limit ended them."""
        ends = self.model.generation_config.eos_token_id
        known = torch.tensor([] if ends is None else ends, device=tokens.device).reshape(-1)
        return [not ended for ended in torch.isin(tokens, known).any(dim=1).tolist()]


def hosted_rules(model: Any) -> list[Any]:
    """The rules of a steered model, in the order of its steered layers, and that of the whole."""
    decoder = text_decoder(model)
    whole = [decoder.steering] if hasattr(decoder, "steering") else []
    return [decoder.layers[layer].steering for layer in model.steering.rules["layers"]] + whole


@contextmanager
def rescaled(model: Any, factor: float) -> Iterator[None]:
    """Multiply every change that the rules of a steered model make, while the context is open.

    The steering tensors stay as they are, in memory and on disk: the rules' results are changed,
    and what they decide says so. With 1 they run as they are.

    Args:
        model: Of a steered checkpoint.
        factor: For example 0.5; 0 changes nothing, as with steering off.
    """

    def scale(_rule: Any, args: Any, result: Any) -> Any:
        (h, *_), (changed, decision) = args, result
        if factor == 1 and h.dim() > 2:  # a token of the answer: nothing to change or to measure
            return None
        push = changed - h
        relative = push.norm(dim=-1) * factor / h.norm(dim=-1)
        if factor != 1:
            changed = h + factor * push
        if factor != 1 and "strength" in decision:
            decision = {**decision, "strength": factor * decision["strength"]}
        return changed, {**decision, _PUSH: relative}

    with ExitStack() as hooks:
        for rule in hosted_rules(model):
            hooks.enter_context(rule.register_forward_hook(scale))
        yield


def _pushes(trace: Any, rows: int) -> list[float | None]:
    """Of each row, what `rescaled` measured at its last steered position."""
    pushes: list[float | None] = [None] * rows
    last: dict[tuple[int, int], float] = {}
    for entry in trace.entries:
        values = entry.decision.get(_PUSH)
        if values is None or entry.layer == AT_MODEL:  # not at the beginning of an answer
            continue
        values = values[entry.steered] if values.dim() > 1 else values
        at = zip(entry.steered.nonzero()[:, 0].tolist(), values.tolist(), strict=True)
        for row, value in at:  # of visual tokens the largest, of text the last
            before = last.get((entry.layer, row), 0.0) if entry.layer < 0 else 0.0
            last[entry.layer, row] = max(value, before)
    for (_, row), value in last.items():
        if math.isfinite(value):
            pushes[row] = max(round(value, 6), pushes[row] or 0.0)
    return pushes


def load(
    directory: Path,
    modalities: Iterable[Modality],
    device: Device,
    dtype: str | None,
    quantization: str = NONE,
) -> Loaded:
    """Load a steered directory the way its card tells users to.

    Its processor renders requests in the thinking mode that was calibrated.

    Args:
        directory: Steered checkpoint.
        modalities: What it takes.
        device: For example `cpu` or `cuda`, or another placement.
        dtype: Name of a torch dtype; None for the one the checkpoint is saved in.
        quantization: Scheme to load it in; `none` or `own` for the one it is saved in.

    Raises:
        ExportError: The directory does not load.
    """
    config = read_config(directory)
    with input_errors(f"{directory} does not load", "check its files with `mars-export verify`"):
        options = loading_options(config, quantization, dtype=dtype or "auto", device=device)
        processor = load_processor(directory)
        auto = getattr(transformers, auto_class(modalities))
        with offloading(device) as (placed, keep):
            model = auto.from_pretrained(directory, trust_remote_code=True, **options, **placed)
            keep(model)
        refuse_unfit_layers(model)
    return Loaded(settled(model, options, device).eval(), processor)


def load_processor(directory: Path) -> Any:
    """Its processor, which renders requests in the thinking mode that was calibrated."""
    config = read_config(directory)
    with input_errors(f"{directory} does not load", "check its files with `mars-export verify`"):
        processor = transformers.AutoProcessor.from_pretrained(directory, trust_remote_code=True)
        return with_options(processor, config.get("steering", {}).get("template_options", {}))


def load_calibrated(
    directory: Path, record: ArtefactRecord, device: Device, dtype: str | None = None
) -> Loaded:
    """As `load`, in the quantization that the checkpoint was calibrated for."""
    source = record.source
    dtype_name = dtype or (source.dtype if source.quantization in SCHEMES else None)
    return load(directory, source.modalities, device, dtype_name, source.quantization)
