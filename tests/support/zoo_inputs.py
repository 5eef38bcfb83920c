"""Left-padded batches with random pixels for the tiny checkpoints of `support.zoo`."""

import torch

from support.tiny import (
    AUDIO,
    AUDIO_END,
    AUDIO_START,
    HEADER,
    IMAGE,
    VIDEO,
    VISION_END,
    VISION_START,
)
from support.zoo import LOW_RES_START, MEL_BINS, VIDEO_END, VIDEO_START

_QWEN = {
    "qwen2_5_omni_thinker", "qwen2_5_vl", "qwen3_5", "qwen3_5_moe", "qwen3_vl", "qwen3_vl_moe",
    "glm46v",
}  # fmt: skip
_TYPED = (_QWEN | {"gemma4", "molmo2"}) - {"qwen2_5_omni_thinker"}
_MARKED_IMAGE = [VISION_START, *[IMAGE] * 4, VISION_END]

# What stands before the text, where it is not placeholders between two marks.
_SHOWN = {
    "image": {
        # Two crops of 2 x 2 patches and a newline behind each row of the tile.
        "llava_onevision": [IMAGE] * 10,
        "molmo2": [LOW_RES_START, *[IMAGE] * 4, VISION_END, *_MARKED_IMAGE],
    },
    "video": {
        # One frame, pooled to one patch, and a newline behind the clip.
        "llava_onevision": [VIDEO] * 2,
        "molmo2": [VIDEO_START, *[IMAGE] * 4, VIDEO_END],
        # The placeholders inside a clip are those of images.
        "glm46v": [VIDEO_START, *_MARKED_IMAGE, VIDEO_END],
    },
    "audio": {},
}
MARKED = {
    "image": _MARKED_IMAGE,
    "video": [VISION_START, *[VIDEO] * 4, VISION_END],
    "audio": [AUDIO_START, *[AUDIO] * 4, AUDIO_END],
}
"""A picture, a clip and a sound of most families."""
_FRAMES = 16
"""Of spectrum, that four tokens of a sound are made of."""


def prompt(model_type: str, text: list[int], visual: str | None) -> list[int]:
    """Token ids of a one-turn request, generation prompt included."""
    shown = _SHOWN[visual].get(model_type, MARKED[visual]) if visual else []
    return [1, *shown, *text, *HEADER]


def _types(row: list[int], visual: str | None) -> list[int]:
    code = {None: 0, "image": 1, "video": 2, "audio": 3}[visual]
    return [code if token in (IMAGE, VIDEO, AUDIO) else 0 for token in row]


def inputs(model_type: str, rows: list[tuple[list[int], str | None]], seed: int = 1) -> dict:
    """Batch of `(text ids, visual)` rows."""
    ids = [prompt(model_type, text, visual) for text, visual in rows]
    types = [_types(row, visual) for row, (_, visual) in zip(ids, rows, strict=True)]
    shown = [visual for _, visual in rows]
    counts = {visual: shown.count(visual) for visual in MARKED}
    return _batch(model_type, ids, types, counts, seed)


def padded(model_type: str, rows: list[list[int]], right: bool = False, seed: int = 1) -> dict:
    """Batch of token ids that hold any number of pictures and clips, as `MARKED` has them."""
    code = {IMAGE: 1, VIDEO: 2, AUDIO: 3}
    types = [[code.get(token, 0) for token in row] for row in rows]
    every = [token for row in rows for token in row]
    tokens = {"image": IMAGE, "video": VIDEO, "audio": AUDIO}
    counts = {visual: every.count(token) // 4 for visual, token in tokens.items()}
    return _batch(model_type, rows, types, counts, seed, right)


def _batch(
    model_type: str,
    ids: list[list[int]],
    types: list[list[int]],
    counts: dict[str, int],
    seed: int,
    right: bool = False,
) -> dict:
    generator = torch.Generator().manual_seed(seed)
    width = max(map(len, ids))

    def padded(values):
        rows = [(row, [0] * (width - len(row))) for row in values]
        return torch.tensor([row + zeros if right else zeros + row for row, zeros in rows])

    batch = {"input_ids": padded(ids), "attention_mask": padded([[1] * len(row) for row in ids])}
    if model_type in _TYPED:
        batch["mm_token_type_ids"] = padded(types).int()
    elif model_type == "gemma3":
        batch["token_type_ids"] = padded(types)
    for visual, count in counts.items():
        if count:
            batch |= _pixels(model_type, visual, count, generator)
    return batch


def _pixels(model_type: str, visual: str, count: int, generator: torch.Generator) -> dict:
    def random(*shape):
        return torch.randn(*shape, generator=generator)

    def rows(*row):
        return torch.tensor([row] * count)

    if visual == "audio":
        return _spectrum(model_type, count, random)
    image = visual == "image"
    name = "pixel_values" if image else "pixel_values_videos"
    if model_type in _QWEN:
        grid = "image_grid_thw" if image else "video_grid_thw"
        pixels = {name: random(count * 16, 3 * 2 * 14 * 14), grid: rows(1, 4, 4)}
        if model_type == "qwen2_5_omni_thinker" and not image:
            pixels["video_second_per_grid"] = torch.ones(count)
        return pixels
    if model_type == "gemma4":
        places = [[x, y] for y in range(4) for x in range(4)]
        pixels = {name: random(count, 16, 3 * 4 * 4), f"{visual}_position_ids": rows(*places)}
        return pixels if image else {**pixels, "num_frames_per_video": rows(1)[:, 0]}
    if model_type == "molmo2":
        return _molmo2_pixels(visual, count, random)
    if model_type == "llava_onevision":
        sizes = {"image_sizes": rows(28, 28)} if image else {}
        return {name: random(count, 2 if image else 1, 3, 28, 28), **sizes}
    sizes = {"image_sizes": rows(28, 28)} if model_type == "mistral3" else {}
    tiles = (1,) if model_type in ("smolvlm", "idefics3") else ()
    return {name: random(count, *tiles, 3, 28, 28), **sizes}


def _spectrum(model_type: str, count: int, random) -> dict:
    """Mel features of sounds; those of Gemma 4 have time before frequency."""
    if model_type == "voxtral":
        return {"input_features": random(count, MEL_BINS, 2 * _FRAMES)}
    if model_type == "gemma4":
        mask = torch.ones(count, _FRAMES, dtype=torch.bool)
        return {
            "input_features": random(count, _FRAMES, MEL_BINS),
            "input_features_mask": mask,
        }
    mask = torch.ones(count, _FRAMES, dtype=torch.long)
    name = "input_features_mask" if model_type == "audioflamingo3" else "feature_attention_mask"
    return {"input_features": random(count, MEL_BINS, _FRAMES), name: mask}


def _molmo2_pixels(visual: str, count: int, random) -> dict:
    """A low-resolution crop of 2 x 2 patches; of a picture a high-resolution one as well."""
    crops = 2 if visual == "image" else 1
    patches = torch.arange(count * crops * 4).reshape(-1, 1)
    pixels = random(count * crops, 4, 14 * 14 * 3)
    if visual == "video":
        grid = torch.tensor([[1, 2, 2]] * count)
        return {
            "pixel_values_videos": pixels,
            "video_token_pooling": patches,
            "video_grids": grid,
        }
    return {
        "pixel_values": pixels,
        "image_token_pooling": patches,
        "image_grids": torch.tensor([[2, 2, 2, 2]] * count),
        "image_num_crops": torch.tensor([crops] * count),
    }
