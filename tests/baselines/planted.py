"""A planted model that answers as a loaded checkpoint does, and keeps what its layers gave."""

from types import SimpleNamespace

import torch

from mars_export.evaluation.baselines.base import Batch
from mars_export.evaluation.baselines.study import Study
from mars_export.evaluation.generation import Answers
from mars_export.families import decoder_layers
from mars_export.inputs.requests import Media, Request, collate
from mars_export.inputs.stimuli import STIMULI
from support.planted import BAD, GOOD, PROCESSOR, PlantedModel, prompt_sets

REFUSAL, ANSWER = "Sorry", "sure"
PICTURE = STIMULI["image"].draw(7, 0, (28, 28))


class PlantedLoaded:
    """Stands where `Loaded` does; an answer is its first token."""

    def __init__(self, **options):
        self.model, self.processor = PlantedModel(**options), PROCESSOR
        self.model.steering = SimpleNamespace(enabled=True)
        self.seen = []

    def inputs(self, requests):
        return collate(PROCESSOR, requests)

    def answer(self, inputs, max_new_tokens, *, steered, seed=None):
        assert not steered
        self.model.steering.enabled = steered
        self.seen = []
        handles = [layer.register_forward_hook(self._keep) for layer in decoder_layers(self.model)]
        with torch.inference_mode():
            out = self.model(**inputs, use_cache=False, logits_to_keep=1)
        for handle in handles:
            handle.remove()
        logits = out.logits[:, 0]
        texts = PROCESSOR.batch_decode(logits.argmax(-1, keepdim=True))
        rows = len(texts)
        return Answers(texts, [[] for _ in range(rows)], logits, [None] * rows, [False] * rows)

    def _keep(self, _module, _args, output):
        hidden = output[0] if isinstance(output, tuple) else output
        self.seen.append(hidden.clone())


def study(record, loaded):
    return Study(loaded, record, prompt_sets(), batch_size=64)


def batch(loaded, requests):
    return Batch(requests, loaded.inputs(requests), 1)


def texts():
    """Two harmful and two harmless requests that no calibration has, of different lengths."""
    return [
        Request(f"explain {BAD[190]}"), Request(f"please show me how i make {BAD[191]}"),
        Request(f"explain {GOOD[190]}"), Request(f"please show me how i make {GOOD[191]}"),
    ]  # fmt: skip


def pictured(requests):
    return [Request(request.prompt, (Media("image", PICTURE.data),)) for request in requests]


def base_states(loaded, asked):
    """What every layer gives without a baseline: (T, ...) of each."""
    loaded.answer(asked.inputs, 1, steered=False)
    return loaded.seen
