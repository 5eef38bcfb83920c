"""A model as baselines are fitted to it: steering off, on the text of its calibration."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import torch

from mars_export.calibration.activations import Readout
from mars_export.calibration.data import OPENERS, CalibrationData, MeasurementOptions
from mars_export.calibration.measurements import Measurements, Part, measure
from mars_export.calibration.source import Label
from mars_export.common.errors import UnsteerableError
from mars_export.common.header import Header
from mars_export.evaluation.generation import Loaded
from mars_export.inputs.prompts import PromptSets
from mars_export.inputs.requests import Request
from mars_export.inputs.stimuli import MIXTURE
from mars_export.methods.base import ArtefactRecord

__all__ = ["Study"]


@dataclass
class Study:
    """What the baselines of one evaluation share; text is run once for all of them.

    Attributes:
        loaded: The checkpoint; its steering must stay off until all are fitted.
        record: Of its calibration.
        prompts: What it was made from; None where no baseline is fitted on text.
        batch_size: Requests per forward.
    """

    loaded: Loaded
    record: ArtefactRecord
    prompts: PromptSets | None
    batch_size: int
    _states: dict[tuple[Label, Part], torch.Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Turn the steering off."""
        self.loaded.model.steering.enabled = False

    def require_media(self) -> None:
        """Refuse a checkpoint that takes text alone, for a baseline that leaves text as it is.

        Raises:
            UnsteerableError: It takes nothing else.
        """
        if self.record.source.modalities == ("text",):
            raise UnsteerableError("the checkpoint takes text alone, which is left as it is")

    @cached_property
    def headers(self) -> list[Header]:
        """Of assistant turns; a method that needs none, as RAI, has not kept them."""
        return self.record.source.headers or list(self.measured.turns.headers)

    @cached_property
    def measurement(self) -> MeasurementOptions:
        """As the calibration was made; its refusal tokens are those that it found."""
        source = self.record.source
        tokenizer = getattr(self.loaded.processor, "tokenizer", self.loaded.processor)
        words = (tokenizer.decode([token]).strip() for token in self.record.record.refusal_tokens)
        return MeasurementOptions(
            openers=tuple(filter(None, words)) or OPENERS,
            batch_size=self.batch_size,
            seed=source.seed,
            kinds=source.kinds or MIXTURE,
        )

    @cached_property
    def measured(self) -> Measurements:
        """Text that the model handles as its label says, and the directions of every layer."""
        if self.prompts is None:
            raise ValueError("a baseline that does not fit text asks for it")
        model, processor = self.loaded.model, self.loaded.processor
        modalities = self.record.source.modalities
        data = CalibrationData(model, processor, self.prompts, modalities, self.measurement)
        return measure(data)

    def unlike_label(self, label: Label, part: Part) -> torch.Tensor:
        """(L, K, d) float32 of text that the model handles the other way; K may be 0."""
        handled = {request.prompt for request in self.measured.text[label].part(part).requests}
        assert self.prompts is not None
        every = getattr(getattr(self.prompts, label), part)
        others = [Request(prompt) for prompt in every if prompt not in handled]
        if not others:
            layers, width = self.measured.statistics.direction.shape
            return torch.empty(layers, 0, width)
        return self.measured.reader.read(others, states=True).states

    def states(self, label: Label, part: Part) -> torch.Tensor:
        """(L, N, d) float32 of the same text at the end of the header."""
        if (label, part) not in self._states:
            requests = self.measured.text[label].part(part).requests
            read: Readout = self.measured.reader.read(requests, states=True)
            self._states[label, part] = read.states
        return self._states[label, part]
