"""What `--quantization` names, and how a checkpoint is loaded quantized. Light until it is used."""

from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final

from mars_export.common.errors import ExportError
from mars_export.common.installation import install_extra
from mars_export.families.placement import Device

__all__ = [
    "NONE",
    "OWN",
    "SCHEMES",
    "Scheme",
    "loading_options",
    "own_method",
    "refuse_unfit_layers",
    "scheme_for",
]

NONE: Final = "none"
OWN: Final = "own"
"""The base is stored quantized, and loads so without being asked."""


@dataclass(frozen=True)
class Scheme:
    """A configuration class of Transformers and what it is given; steering stays in float32."""

    config: str
    package: str
    """Distribution that holds the kernels; its version decides the numbers."""
    width: float
    """Bytes of a weight, with the scales of its block."""
    arguments: dict[str, Any] = field(default_factory=dict)
    compute: str | None = None
    """Argument that takes the dtype of products, which is that of the model."""
    recipe: str | None = None
    """Class of `torchao.quantization`, given instead of arguments."""

    def build(self, dtype: str) -> Any:
        """The value of `quantization_config`, for a model of a dtype such as `bfloat16`."""
        import transformers

        made = (
            [getattr(import_module("torchao.quantization"), self.recipe)()] if self.recipe else []
        )
        return getattr(transformers, self.config)(*made, **self._named(dtype))

    def code(self, dtype: str) -> str:
        """The Python expression of `build`."""
        named = [f"{name}={value!r}" for name, value in self._named(dtype).items()]
        recipe = [f"{self.recipe}()"] if self.recipe else []
        return f"{self.config}({', '.join([*recipe, *named])})".replace("'", '"')

    @property
    def imports(self) -> str:
        """What `code` imports besides `config` from Transformers; a line, or nothing."""
        return f"from torchao.quantization import {self.recipe}\n" if self.recipe else ""

    def _named(self, dtype: str) -> dict[str, Any]:
        return {**self.arguments, **({self.compute: dtype} if self.compute else {})}


SCHEMES: Final = {
    "bnb-8bit": Scheme("BitsAndBytesConfig", "bitsandbytes", 1.0, {"load_in_8bit": True}),
    "bnb-4bit": Scheme(
        "BitsAndBytesConfig",
        "bitsandbytes",
        0.5625,
        {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
        compute="bnb_4bit_compute_dtype",
    ),
    "torchao-int8": Scheme("TorchAoConfig", "torchao", 1.0, recipe="Int8WeightOnlyConfig"),
}


def own_method(config: dict[str, Any]) -> str | None:
    """How a model with this config.json is stored quantized, for example `bitsandbytes`."""
    stated = _stated(config, "quantization_config")
    return stated and str(stated.get("quant_method") if isinstance(stated, dict) else stated)


def scheme_for(config: dict[str, Any], asked: str) -> str:
    """What a base with this config.json is calibrated in: `none`, `own` or a name of `SCHEMES`.

    Raises:
        ExportError: if a scheme is asked for and the base is stored quantized, or the packages that
            are needed are not installed.
    """
    own = own_method(config)
    if own is not None and asked != NONE:
        raise ExportError(
            f"--quantization {asked}: the base is stored quantized already ({own}); leave the "
            "option out to calibrate it as it is, or give the full-precision model"
        )
    needed = ["accelerate"] if own or asked != NONE else []
    needed += [SCHEMES[asked].package] if asked != NONE else []
    missing = [name for name in needed if find_spec(name) is None]
    if missing:
        raise ExportError(
            f"a quantized model needs {' and '.join(missing)}; run `{install_extra('quantized')}`"
        )
    return asked if own is None else OWN


def loading_options(
    config: dict[str, Any], scheme: str, *, dtype: str, device: Device
) -> dict[str, Any]:
    """Arguments of `from_pretrained`; a quantized model is put on its device while it loads.

    Those of a `Placement` come from `offloading`.

    Args:
        config: The config.json of the directory.
        scheme: `none`, `own` or a name of `SCHEMES`.
        dtype: Name of a torch dtype, or `auto` for the one the checkpoint is saved in.
        device: Torch device that holds the whole model, or another placement.
    """
    options: dict[str, Any] = {"dtype": dtype}
    stored = own_method(config) is not None
    if isinstance(device, str) and (scheme != NONE or stored):
        options["device_map"] = {"": device}
    if scheme in SCHEMES and not stored:  # saved again after loading, it is quantized already
        computed = _stored_dtype(config) if dtype == "auto" else dtype
        options["quantization_config"] = SCHEMES[scheme].build(computed)
    return options


def _stored_dtype(config: dict[str, Any]) -> str:
    """The dtype that `auto` stands for; configs of older Transformers call it `torch_dtype`."""
    return _stated(config, "dtype", "torch_dtype") or "float32"


def refuse_unfit_layers(model: Any) -> None:
    """Stop before the first forward where bitsandbytes cannot run a layer in 4 bits.

    On a CPU with bfloat16 instructions it packs 32 rows and blocks of 64 columns, and fails on any
    other shape with a message about neither.

    Raises:
        ExportError: if there is such a layer.
    """
    unfit = [
        name
        for name, layer in model.named_modules()
        if getattr(layer, "support_avx512bf16_for_cpu", False)
        and layer.weight.device.type == "cpu"
        and (layer.out_features % 32 or layer.in_features % 64)
    ]
    if unfit:
        raise ExportError(
            f"bitsandbytes cannot run {len(unfit)} layers in 4 bits on this CPU, for example "
            f"{unfit[0]} (their sizes are no multiples of 32 and 64); use a GPU, or another "
            "--quantization"
        )


def _stated(config: dict[str, Any], *names: str) -> Any:
    """The first that a config.json states of the whole model or of its text model, or None."""
    texts = (part for part in (config, config.get("text_config")) if isinstance(part, dict))
    return next(filter(None, (text.get(name) for text in texts for name in names)), None)
