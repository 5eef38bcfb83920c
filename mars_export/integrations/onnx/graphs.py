"""The graphs of a steered model: which there are, and how each is exported."""

from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
from torch import nn
from torch.export import Dim

from mars_export.common.progress import Tick
from mars_export.common.quiet import without_advice
from mars_export.integrations.onnx.decoder import Decoder
from mars_export.integrations.onnx.encoders import Embedding, vision_of
from mars_export.integrations.onnx.record import About
from mars_export.integrations.onnx.routes import Route

__all__ = ["about", "write_components", "write_graph"]

_ROWS: Final = 2
_NEW: Final = 7
_PAST: Final = 5
_ANY: Final = Dim.DYNAMIC
_BOTH: Final = {0: _ANY, 1: _ANY}
_COLUMNS: Final = ("batch", "new")
_ALL: Final = ("batch", "past + new")
_FEATURES: Final = {"features": ("placeholders",), "deepstack": ("", "placeholders")}
_TOLD: Final = ("steered", "modality", "gate", "strength", "calibrated")


class _Graph(NamedTuple):
    """A module, an example of its inputs, the axes that vary, and names of leaves and axes."""

    module: nn.Module
    example: dict[str, Any]
    dynamic: dict[str, Any]
    names: dict[str, str]
    axes: dict[str, tuple[str, ...]]


def about(model: Any, route: Route) -> About:
    """What the runner must know of a model."""
    config, rules = model.config, model.config.steering
    known = set(rules["placeholders"]) - set(rules["refused"].values())
    visual = known & set(route.shown) if route.vision else set()
    placeholders = {
        modality: getattr(config, attribute)
        for modality, attribute in rules["placeholders"].items()
        if modality in visual
    }
    stop = model.generation_config.eos_token_id
    stop = [] if stop is None else stop if isinstance(stop, list) else [stop]
    vision = getattr(config, "vision_config", None)
    deep = route.deepstack and placeholders
    levels = len(config.vision_config.deepstack_visual_indexes) if deep else 0
    return About(
        model_type=type(model).config_class.model_type,
        layers=rules["layers"],
        modalities=rules["modalities"],
        headers=rules["headers"],
        placeholders=placeholders,
        hidden_size=config.get_text_config().hidden_size,
        rotary_axes=route.rotary_axes,
        deepstack_levels=levels,
        vision=route.vision if placeholders else None,
        left_out=route.vision_lacking,
        merge=getattr(vision, "spatial_merge_size", 1) if route.vision == "grid" else 1,
        stop_tokens=stop,
    )


def write_components(model: Any, route: Route, folder: Path, tick: Tick) -> None:
    """Write every graph of a model in float32 to `folder`."""
    about_model = about(model, route)
    made = {"decoder": _decoder, "embedding": _embedding}
    if about_model.placeholders:
        made["vision"] = _vision
    for number, (name, graph) in enumerate(made.items()):
        tick(number, len(made))
        write_graph(*graph(model, route, about_model), folder / f"{name}.onnx")


def _decoder(model: Any, route: Route, about_model: About) -> _Graph:
    text = model.config.get_text_config()
    heads = text.num_key_value_heads
    size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    layers, d = text.num_hidden_layers, text.hidden_size
    example: dict[str, Any] = {
        "input_ids": torch.full((_ROWS, _PAST + _NEW), 1),
        "attention_mask": torch.ones(_ROWS, _PAST + _NEW, dtype=torch.long),
        "inputs_embeds": torch.randn(_ROWS, _NEW, d),
        "past_key_values": [
            (torch.randn(_ROWS, heads, _PAST, size), torch.randn(_ROWS, heads, _PAST, size))
            for _ in range(layers)
        ],
    }
    dynamic: dict[str, Any] = {
        "input_ids": _BOTH,
        "attention_mask": _BOTH,
        "inputs_embeds": _BOTH,
        "past_key_values": [({0: _ANY, 2: _ANY},) * 2] * layers,
    }
    if about_model.rotary_axes == 3:
        example["position_ids"] = torch.arange(_NEW).expand(3, _ROWS, _NEW).clone()
        dynamic["position_ids"] = {1: _ANY, 2: _ANY}
    if about_model.deepstack_levels:
        example["deepstack"] = torch.randn(about_model.deepstack_levels, _ROWS, _NEW, d)
        dynamic["deepstack"] = {1: _ANY, 2: _ANY}
    names = {}
    axes: dict[str, tuple[str, ...]] = {"input_ids": _ALL, "attention_mask": _ALL}
    axes |= {
        "inputs_embeds": _COLUMNS,
        "position_ids": ("", *_COLUMNS),
        "deepstack": ("", *_COLUMNS),
    }
    axes |= dict.fromkeys(("logits", "answering"), ("batch",)) | dict.fromkeys(_TOLD, _COLUMNS)
    for layer in range(layers):
        for leaf, part in enumerate(("key", "value")):
            names[f"past_key_values.{layer}.{leaf}"] = f"past_key_values.{layer}.{part}"
            names[f"present_{layer}_{part}"] = f"present.{layer}.{part}"
            axes[f"past_key_values.{layer}.{part}"] = ("batch", "", "past")
            axes[f"present.{layer}.{part}"] = ("batch", "", "past + new")
    return _Graph(Decoder(model, route), example, dynamic, names, axes)


def _embedding(model: Any, _: Route, about_model: About) -> _Graph:
    d, levels = about_model.hidden_size, about_model.deepstack_levels
    example: dict[str, Any] = {"input_ids": torch.full((_ROWS, _NEW), 1)}
    dynamic: dict[str, Any] = {"input_ids": _BOTH}
    if about_model.placeholders:
        # Sizes differ from one another, so that none is taken for another's.
        sizes = {m: 3 + i for i, m in enumerate(about_model.placeholders)}
        example["features"] = {m: torch.randn(size, d) for m, size in sizes.items()}
        dynamic["features"] = {m: {0: _ANY} for m in sizes}
    if levels:
        example["deepstack"] = {m: torch.randn(levels, size, d) for m, size in sizes.items()}
        dynamic["deepstack"] = {m: {1: _ANY} for m in sizes}
    kinds = ("features", "deepstack")
    names = {f"{kind}.{m}": f"{m}_{kind}" for kind in kinds for m in about_model.placeholders}
    axes = {"input_ids": _COLUMNS, "inputs_embeds": _COLUMNS, "deepstack": ("", *_COLUMNS)}
    axes |= {f"{m}_features": (f"{m} placeholders",) for m in about_model.placeholders}
    axes |= {f"{m}_deepstack": ("", f"{m} placeholders") for m in about_model.placeholders}
    return _Graph(Embedding(model, about_model.placeholders, levels), example, dynamic, names, axes)


def _vision(model: Any, route: Route, about_model: About) -> _Graph:
    vision = model.config.vision_config
    module = vision_of(model, route)
    assert module is not None
    if route.vision == "grid":
        channels = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
        example = {"patches": torch.randn(2, 3, 5, about_model.merge**2, channels)}
        axes = {"patches": ("frames", "rows", "columns"), **_FEATURES}
        return _Graph(module, example, {"patches": {0: _ANY, 1: _ANY, 2: _ANY}}, {}, axes)
    size = vision.image_size
    height, width = size if isinstance(size, list | tuple) else (size, size)
    many = route.vision == "pixels"
    pixels = torch.randn(_ROWS if many else 1, getattr(vision, "num_channels", 3), height, width)
    dynamic = {"pixel_values": {0: _ANY} if many else {}}
    axes = {"pixel_values": ("pictures",), **_FEATURES} if many else {}
    return _Graph(module, {"pixel_values": pixels}, dynamic, {}, axes)


def write_graph(
    module: nn.Module,
    example: dict[str, Any],
    dynamic: dict[str, Any],
    names: dict[str, str],
    axes: dict[str, tuple[str, ...]],
    path: Path,
) -> None:
    """Export a module, through the exporter of Transformers.

    Args:
        module: Takes the example as keywords and gives a dictionary of tensors.
        example: Sizes must be at least 2 and differ where they are not equal by nature.
        dynamic: Of every tensor the axes that vary, as `torch.export` takes them.
        names: Leaf of the example or output, as the exporter numbers them, to the name in the
            graph; those that are not there keep theirs.
        axes: Name in the graph to names of its leading axes, for people; "" keeps a number.
        path: File to write; its weights go beside it.
    """
    from transformers.exporters.exporter_onnx import OnnxConfig, OnnxExporter

    with without_advice(), torch.no_grad():
        exporter = OnnxExporter()
        program, _ = exporter.export_program(module, example, OnnxConfig(dynamic_shapes=dynamic))
    for value in (*program.graph.inputs, *program.graph.outputs):
        value.name = names.get(value.name, value.name)
        for number, axis in enumerate(axes.get(value.name, ())):
            if axis:
                value.shape[number] = axis
    exporter.save_program(program, path)
