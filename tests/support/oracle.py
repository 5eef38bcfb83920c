"""An independent account of what steering should do: the native model and a hook set by hand."""

from typing import NamedTuple

import torch


class Shown(NamedTuple):
    """What a request has come to where it is steered.

    visual: visual tokens that its turn has shown. turn: answers begun before.
    """

    modality: str = "text"
    visual: int = 0
    turn: int = 0


Where = list[tuple[int, int, Shown]]
"""(row, column, what was shown) of every position to steer."""


def bounded_push(p: float, record, shown: Shown) -> float:
    """Method A3.6 in plain floats, for one request."""
    p = p - record.shift[shown.modality].at(shown.visual, shown.turn)
    origin = record.origin[shown.modality]
    z = max(0.0, (p - origin) / (record.harmful[shown.modality] - origin))
    r = record.separation
    return min(record.gain * r * z, max(0.0, record.cap - p), record.radius * r)


class Oracle:
    """Steers a native model at the places that the test names, and records how far.

    One hook, before the decoder, finds in the cache how many columns were run before; the other
    changes the output of the steered layer. Beams and returned sequences share the places of their
    row.
    """

    def __init__(self, model, record, direction, where: Where, rows: int | None = None):
        self.record, self.where, self.rows = record, where, rows
        self.start, self.times = 0, 1
        self.unit = direction / direction.norm()
        self.pushes: dict[tuple[int, int], tuple[Shown, float]] = {}
        decoder = model.get_decoder()
        decoder = decoder if hasattr(decoder, "layers") else decoder.model
        layer = decoder.layers[record.layer]
        self.handles = [
            decoder.register_forward_pre_hook(self._before, with_kwargs=True),
            layer.register_forward_hook(self._hook),
        ]

    def __enter__(self):
        return self

    def __exit__(self, *error):
        for handle in self.handles:
            handle.remove()

    def _before(self, module, args, kwargs):
        cache = kwargs.get("past_key_values")
        self.start = 0 if cache is None else int(cache.get_seq_length())
        given = (*args, kwargs.get("input_ids"), kwargs.get("inputs_embeds"))
        self.columns = next(tensor.shape[1] for tensor in given if tensor is not None)

    def _hook(self, module, args, out):
        out = out.clone()
        # Some layers of Gemma 4 run the last columns alone.
        start = self.start + self.columns - out.shape[1]
        self.times = 1 if self.rows is None else out.shape[0] // self.rows
        places = [
            (row * self.times + k, column, shown)
            for row, column, shown in self.where
            for k in range(self.times)
        ]
        for row, column, shown in places:
            here = column - start
            if 0 <= here < out.shape[1]:
                h = out[row, here].float()
                push = bounded_push(float(h @ self.unit), self.record, shown)
                out[row, here] = (h + push * self.unit).to(out.dtype)
                self.pushes[row, column] = shown, push
        return out

    def told(self, padding: list[int]) -> list[list[tuple[int, Shown, float]]]:
        """(position, what was shown, push) of every row, as `model.steering.last` should tell.

        padding: number of columns before each row's first token.
        """
        rows = [[] for _ in range(len(padding) * self.times)]
        for (row, column), (shown, push) in sorted(self.pushes.items()):
            rows[row].append((column - padding[row // self.times], shown, push))
        return rows


def left_padding(batch) -> list[int]:
    """Number of columns before the first token of each row."""
    return (batch["attention_mask"].cumsum(1) == 0).sum(1).tolist()


def told(model) -> list[list[tuple[int, Shown, float]]]:
    """(position, what was shown, push) of every row of the last request."""
    return [
        [(s.position, Shown(s.modality, s.visual, s.turn), s.strength) for s in row]
        for row in model.steering.last
    ]


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
    rows = inputs["input_ids"].shape[0]
    with Oracle(model, record, direction, where, rows) as oracle:
        out = model.generate(**inputs, use_cache=cached, **options)
    return out, oracle.told(left_padding(inputs))


def oracle_greedy(model, record, direction, inputs, where, steps):
    """Greedy tokens of `oracle_generate`."""
    options = {"max_new_tokens": steps, "do_sample": False}
    return oracle_generate(model, record, direction, inputs, where, **options)[0]
