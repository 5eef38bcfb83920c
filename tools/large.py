"""Computes the tables of `docs/large-models.md`: what models of four sizes take, from their shapes.

    python -m tools.large

No weight is read and nothing is measured: memory is what the planner of a run says, time follows
from the assumptions in `RATES` and from counts of requests, which the page states.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from math import ceil
from pathlib import Path
from typing import Any, Final

from mars_export.common.vocabulary import Modality
from mars_export.families.memory import BatchSize, Memory, built, weights_of
from mars_export.families.room import DISK
from mars_export.pipeline.capacity import in_bytes, spread_over
from mars_export.pipeline.splitting import split_problem
from tools.records import ROOT
from tools.tables import replace_between

__all__ = ["MODELS", "PAGE", "counted", "page"]

PAGE: Final = ROOT / "docs" / "large-models.md"
BATCH: Final = BatchSize(16, 512)
"""Requests at once and tokens of the longest; 64 more tokens are an answer."""
ANSWER: Final = 64
USUAL: Final = 160
"""Tokens of a request on average, with the picture or the clip of some."""
DTYPE: Final = "bfloat16"
GPU: Final = 80 * 10**9
KEPT: Final = 8 * 10**9
"""Of a GPU, for what is no weight."""
RATES: Final = {"compute": 400e12, "memory": 2e12, "cpu": 25e9, DISK: 3e9}
"""Of a GPU: operations and bytes a second; bytes a second that come from memory and from a disk."""
SPLIT: Final = (8, 4, 2)
"""Processes that split a model: the first number that its heads allow."""
GAIN: Final = 0.6
"""How much faster they are than one, as a share of their number."""


@dataclass(frozen=True)
class Shape:
    """A model as its config.json describes it.

    Attributes:
        name: On the Hub.
        native: Class of Transformers.
        config: What of its configuration decides sizes.
    """

    name: str
    native: str
    config: Mapping[str, Any]

    @cached_property
    def memory(self) -> Memory:
        """Of the model in bfloat16, built without memory."""
        import transformers

        native = getattr(transformers, self.native)
        config = native.config_class.from_dict(dict(self.config))
        return Memory(weights_of(built(native, config, DTYPE)), DTYPE, config)

    @property
    def parameters(self) -> float:
        """About how many there are: all are of two bytes but a few numbers."""
        return self.memory.weights.total / 2

    @property
    def split(self) -> int:
        """Processes that can hold a part of every layer each; 0 for none."""
        able = (count for count in SPLIT if not split_problem(self.memory, count))
        return next(able, 0)

    @property
    def active(self) -> float:
        """Parameters that one token goes through: of experts those that are chosen."""
        text = self.memory.config.get_text_config()
        count = getattr(text, "num_experts", None)
        if not count:
            return self.parameters
        each = 3 * text.hidden_size * text.moe_intermediate_size * text.num_hidden_layers
        return float(self.parameters - each * (count - text.num_experts_per_tok))


def _qwen3(
    native: str, text: Mapping[str, Any], vision: Mapping[str, Any], *, tied: bool = False
) -> tuple[str, dict[str, Any]]:
    shared = {"head_dim": 128, "vocab_size": 151936}
    patches = {"patch_size": 16, "num_heads": 16, "num_position_embeddings": 2304}
    return native, {
        "text_config": {**shared, **text},
        "vision_config": {**patches, "out_hidden_size": text["hidden_size"], **vision},
        "tie_word_embeddings": tied,
    }


_SMALL_EYE: Final = {
    "depth": 24, "hidden_size": 1024, "intermediate_size": 4096,
    "deepstack_visual_indexes": [5, 11, 17],
}  # fmt: skip
_LARGE_EYE: Final = {
    "depth": 27, "hidden_size": 1152, "intermediate_size": 4304,
    "deepstack_visual_indexes": [8, 16, 24],
}  # fmt: skip
MODELS: Final = (
    Shape(
        "Qwen3-VL-2B",
        *_qwen3(
            "Qwen3VLForConditionalGeneration",
            {
                "hidden_size": 2048, "num_hidden_layers": 28, "num_attention_heads": 16,
                "num_key_value_heads": 8, "intermediate_size": 6144,
            },
            _SMALL_EYE,
            tied=True,
        ),
    ),
    Shape(
        "Qwen3-VL-8B",
        *_qwen3(
            "Qwen3VLForConditionalGeneration",
            {
                "hidden_size": 4096, "num_hidden_layers": 36, "num_attention_heads": 32,
                "num_key_value_heads": 8, "intermediate_size": 12288,
            },
            _LARGE_EYE,
        ),
    ),
    Shape(
        "Qwen2.5-VL-72B",
        "Qwen2_5_VLForConditionalGeneration",
        {
            "text_config": {
                "hidden_size": 8192, "num_hidden_layers": 80, "num_attention_heads": 64,
                "num_key_value_heads": 8, "intermediate_size": 29568, "vocab_size": 152064,
            },
            "vision_config": {
                "depth": 32, "hidden_size": 1280, "intermediate_size": 3456, "num_heads": 16,
                "out_hidden_size": 8192,
            },
            "tie_word_embeddings": False,
        },
    ),
    Shape(
        "Qwen3-VL-235B-A22B",
        *_qwen3(
            "Qwen3VLMoeForConditionalGeneration",
            {
                "hidden_size": 4096, "num_hidden_layers": 94, "num_attention_heads": 64,
                "num_key_value_heads": 4, "intermediate_size": 12288,
                "moe_intermediate_size": 1536, "num_experts": 128, "num_experts_per_tok": 8,
            },
            _LARGE_EYE,
        ),
    ),
)  # fmt: skip


@cache
def counted() -> dict[str, int]:
    """Requests of a calibration by MARS, and answers of an evaluation, with what is packaged."""
    from mars_export.calibration.data import CalibrationData
    from mars_export.evaluation.dose import FACTORS, MOST
    from mars_export.evaluation.options import EvaluationOptions
    from mars_export.evaluation.suites.catalog import DEFAULT, open_suites
    from mars_export.evaluation.variants import vary
    from mars_export.inputs.prompts import packaged
    from mars_export.methods.mars.material import requests_to_come

    takes: tuple[Modality, ...] = ("text", "image", "video")
    options = EvaluationOptions()
    prompts = packaged()
    data = CalibrationData(None, None, prompts, takes)
    samples = open_suites((DEFAULT,)).required_samples(takes)
    controls = vary(
        samples, takes, controls=True, attacks=False, control_requests=options.control_requests
    )
    cells = [(sample.modality, sample.harmful) for sample in samples]
    scaled = sum(min(MOST, cells.count(cell)) for cell in set(cells)) * (len(FACTORS) - 2)
    return {
        "requests": len(prompts.prompts) + requests_to_come(data),
        "answers": 3 * len(samples) + 2 * len(controls) + scaled,  # off, on, the safety prompt
    }


def page() -> str:
    """The page as it should be now."""
    text = PAGE.read_text("utf-8")
    said = "{requests} requests\nand {answers} answers"
    text = re.sub(said.format(requests=r"\w+", answers=r"\w+"), said.format(**counted()), text)
    for mark, table in {"memory": memory_table(), "time": time_table()}.items():
        text = replace_between(text, mark, table)
    return text


def memory_table() -> str:
    """What weights and batches take, and which GPUs hold them."""
    head = (
        "computed", "parameters", "weights", "largest layer", "calibration batch",
        "evaluation batch", "GPUs of 80 GB", "tensor parallel",
    )  # fmt: skip
    return _table(head, [_memory_row(shape) for shape in MODELS])


def _memory_row(shape: Shape) -> list[str]:
    memory, weights = shape.memory, shape.memory.weights
    answered = memory.batch(BatchSize(BATCH.rows, BATCH.tokens, ANSWER))
    return [
        shape.name,
        f"{shape.parameters / 1e9:.1f} B",
        in_bytes(weights.total),
        in_bytes(weights.largest),
        in_bytes(memory.batch(BATCH)),
        in_bytes(answered),
        str(ceil((weights.total + answered) / (GPU - KEPT))),
        _parts(shape),
    ]


def _parts(shape: Shape) -> str:
    if not shape.split:
        return NO_PLAN
    return f"{in_bytes(shape.memory.weights.part(shape.split))} on each of {shape.split}"


NO_PLAN: Final = "no plan"
ROOMS: Final[dict[str, dict[str, float]]] = {
    "on GPUs, one after the other": {"0": float("inf")},
    "one GPU, 512 GB of memory": {"0": GPU - KEPT, "cpu": 480e9},
    "one GPU, 64 GB of memory, disk": {"0": GPU - KEPT, "cpu": 48e9},
}
"""Bytes of weights that a device map may put where."""


def time_table() -> str:
    """Calibration and evaluation on several machines."""
    head = ("computed", *ROOMS, "tensor parallel, as many GPUs as above")
    rows = []
    for shape in MODELS:
        times = [_times(shape, rooms) for rooms in ROOMS.values()]
        split = NO_PLAN
        if shape.split:
            split = " + ".join(_duration(seconds / (GAIN * shape.split)) for seconds in times[0])
        rows.append([shape.name, *(" + ".join(map(_duration, each)) for each in times), split])
    return _table(head, rows)


def _times(shape: Shape, rooms: Mapping[str, float]) -> tuple[float, float]:
    """Seconds of a calibration and of an evaluation."""
    counts = counted()
    batches = {name: ceil(count / BATCH.rows) for name, count in counts.items()}
    prompt = _forward(shape, rooms, BATCH.rows * USUAL)
    token = _forward(shape, rooms, BATCH.rows)
    answers = prompt + (ANSWER - 1) * token
    return batches["requests"] * prompt, batches["answers"] * answers


def _forward(shape: Shape, rooms: Mapping[str, float], tokens: int) -> float:
    """Seconds of one forward: all weights are read once, those elsewhere are brought first."""
    shares = spread_over(shape.memory, {name: int(min(r, 1e15)) for name, r in rooms.items()})
    moved = sum(shares.get(place, 0) / RATES[place] for place in ("cpu", DISK))
    computed = 2 * shape.active * tokens / RATES["compute"]
    return float(moved + max(computed, shape.memory.weights.total / RATES["memory"]))


def _duration(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _table(head: tuple[str, ...], rows: list[list[str]]) -> str:
    rule = ["---", *("--:" for _ in head[1:])]
    return "\n".join(f"| {' | '.join(row)} |" for row in ([*head], rule, *rows))


def main(path: Path = PAGE) -> None:
    """Write the page."""
    path.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
