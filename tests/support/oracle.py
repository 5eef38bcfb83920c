"""An independent account of what steering should do: the native model and a hook set by hand."""

import torch

Where = list[tuple[int, int, str]]
"""(row, column, modality) of every position to steer."""


def bounded_push(p: float, record, modality: str) -> float:
    """Method A3.6 in plain floats, for one request."""
    p = p - record.shift[modality]
    z = max(0.0, (p - record.origin) / (record.harmful - record.origin))
    r = record.separation
    return min(record.gain * r * z, max(0.0, record.cap - p), record.radius * r)


class Oracle:
    """Steers a native model at the places that the test names, and records how far.

    Every forward sees the whole prompt or, with `cached`, what follows the forward before.
    """

    def __init__(self, model, record, direction, where: Where, cached: bool = False):
        self.record = record
        self.cached, self.start = cached, 0
        self.unit = direction / direction.norm()
        self.where = where
        self.pushes: dict[tuple[int, int], float] = {}
        decoder = model.get_decoder()
        layers = decoder.layers if hasattr(decoder, "layers") else decoder.model.layers
        self.handle = layers[record.layer].register_forward_hook(self._hook)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.handle.remove()

    def _hook(self, module, args, out):
        out = out.clone()
        for row, column, modality in self.where:
            here = column - self.start
            if 0 <= here < out.shape[1]:
                h = out[row, here].float()
                push = bounded_push(float(h @ self.unit), self.record, modality)
                out[row, here] = (h + push * self.unit).to(out.dtype)
                self.pushes[row, column] = push
        self.start += out.shape[1] if self.cached else 0
        return out

    def told(self, batch) -> list[list[tuple[int, str, float]]]:
        """(position, modality, push) of every row, as `model.steering.last` should tell."""
        padding = (batch["attention_mask"] == 0).sum(1).tolist()
        beams = (max(row for row, _, _ in self.where) + 1) // len(padding)
        padding = [padding[row // beams] for row in range(beams * len(padding))]
        rows = [[] for _ in padding]
        for row, column, modality in sorted(self.where):
            rows[row].append((column - padding[row], modality, self.pushes[row, column]))
        return rows


def told(model) -> list[list[tuple[int, str, float]]]:
    """(position, modality, push) of every row of the last request."""
    return [[(s.position, s.modality, s.strength) for s in row] for row in model.steering.last]


def same_told(got, want, rel=1e-3) -> bool:
    """Equal places, and pushes that differ by rounding only."""
    assert [[s[:2] for s in row] for row in got] == [[s[:2] for s in row] for row in want]
    pairs = [
        (a[2], b[2]) for x, y in zip(got, want, strict=True) for a, b in zip(x, y, strict=True)
    ]
    return all(abs(a - b) <= rel * max(1.0, abs(b)) for a, b in pairs)


@torch.no_grad()
def oracle_logits(model, record, direction, inputs, where):
    """Logits of one forward of the native model, steered at `where`."""
    with Oracle(model, record, direction, where):
        return model(**inputs).logits


@torch.no_grad()
def oracle_generate(model, record, direction, inputs, where, cached=False, **options):
    """Tokens, without a cache unless `cached`, and what the hook tells."""
    with Oracle(model, record, direction, where, cached) as oracle:
        return model.generate(**inputs, use_cache=cached, **options), oracle.told(inputs)


def oracle_greedy(model, record, direction, inputs, where, steps):
    """Greedy tokens of `oracle_generate`."""
    options = {"max_new_tokens": steps, "do_sample": False}
    return oracle_generate(model, record, direction, inputs, where, **options)[0]
