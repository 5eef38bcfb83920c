"""An independent account of what steering should do: the native model and a hook set by hand."""

import torch


def bounded_push(p: float, record, modality: str) -> float:
    """Method A3.6 in plain floats, for one request."""
    p = p - record.shift[modality]
    z = max(0.0, (p - record.origin) / (record.harmful - record.origin))
    r = record.separation
    return min(record.gain * r * z, max(0.0, record.cap - p), record.radius * r)


class Oracle:
    """Steers a native model at the (row, column, modality) triples that the test names."""

    def __init__(self, model, record, direction):
        self.record = record
        self.unit = direction / direction.norm()
        self.where: list[tuple[int, int, str]] = []
        decoder = model.get_decoder()
        layers = decoder.layers if hasattr(decoder, "layers") else decoder.model.layers
        self.handle = layers[record.layer].register_forward_hook(self._hook)

    def _hook(self, module, args, out):
        out = out.clone()
        for row, column, modality in self.where:
            if column < out.shape[1]:
                h = out[row, column].float()
                push = bounded_push(float(h @ self.unit), self.record, modality)
                out[row, column] = (h + push * self.unit).to(out.dtype)
        return out

    def remove(self):
        self.handle.remove()


@torch.no_grad()
def oracle_logits(model, record, direction, inputs, where):
    """Logits of one forward of the native model, steered at `where`."""
    oracle = Oracle(model, record, direction)
    oracle.where = where
    try:
        return model(**inputs).logits
    finally:
        oracle.remove()


@torch.no_grad()
def oracle_greedy(model, record, direction, inputs, where, steps):
    """Greedy tokens without a cache: every step repeats the prompt, steered at the same columns."""
    oracle = Oracle(model, record, direction)
    oracle.where = where
    try:
        return model.generate(**inputs, max_new_tokens=steps, do_sample=False, use_cache=False)
    finally:
        oracle.remove()
