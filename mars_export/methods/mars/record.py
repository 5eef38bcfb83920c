"""What calibration decided and why, as JSON. Free of torch, so that a card renders without it."""

from pydantic import BaseModel, ConfigDict, Field

from mars_export.common.vocabulary import Modality

__all__ = ["CalibrationRecord", "LayerScore", "Probe", "PromptSource", "VisualSource"]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PromptSource(_Record):
    """Where one set of calibration prompts came from."""

    name: str
    """Packaged set or file name, without its directory."""
    sha256: str
    """Digest of the file's bytes."""
    license: str
    train: int
    """Prompts used for directions and centroids, after the filter."""
    validation: int
    """Prompts used for layer, gate and cap, after the filter."""
    dropped: int
    """Prompts that the model handled the other way (refused harmless, answered harmful)."""


class VisualSource(_Record):
    """The neutral pictures or clips of one modality."""

    generator: str
    """For example `uniform random color`."""
    seed: int
    count: int
    width: int
    height: int
    frames: int
    """1 for an image."""


class LayerScore(_Record):
    """Text-only scores of one decoder layer (method A3.5) and its causal tie-break."""

    layer: int
    consistency: float
    """Mean cosine of harmful validation states, from the harmless centroid, with the direction."""
    separability: float
    """d' of the projections of harmful and harmless validation text."""
    margin: float
    """Gap between the 5 % quantile of harmful and the 95 % quantile of harmless text, over R."""
    combined: float | None
    """Equal-weight mean of the min-max normalized scores; None for an excluded layer."""
    excluded: str | None
    """Why the layer cannot be chosen; None when it can."""
    separation: float
    """R, the distance of the two text centroids, residual-stream units."""
    shift: dict[Modality, float]
    """Modality shift along the direction over R."""
    groups: dict[str, tuple[float, float, float]] = Field(default_factory=dict)
    """10 %, 50 % and 90 % quantiles of the validation coordinates, keyed as `projections`, where 0
    is the harmless and 1 the harmful text centroid; empty in records without them."""
    induced: float | None = None
    """Refusal log-odds on harmless text after adding the direction; only for finalists."""
    kl: float | None = None
    """First-token KL(base || steered) on harmless text with neutral visuals, nats; finalists."""
    lift: float | None = None
    """Refusal log-odds that the bounded push adds beside a neutral visual; finalists."""


class Probe(_Record):
    """A request with a known gate, to check that a loaded checkpoint still steers."""

    modality: Modality
    prompt: str
    visual: int | None
    """Index into the seeded neutral visuals of the modality; None for text."""
    projection: float
    """Re-centered coordinate along the direction, residual-stream units."""
    gate: float
    strength: float
    """Length of the push, residual-stream units; at least one probe has a positive one."""


class CalibrationRecord(_Record):
    """Everything about a calibration except its tensors."""

    method: str = "mars"
    model_type: str
    layer: int
    """Chosen decoder layer, 0-based; the edit is made to its output."""
    layers: int
    hidden_size: int
    dtype: str
    quantization: str = "none"
    """A scheme of `--quantization`, or `own` where the base is stored quantized."""
    separation: float
    """R = |mean harmful - mean harmless|, residual-stream units."""
    harmful: float
    """p_u, coordinate of the harmful text centroid along the direction."""
    harmless: float
    """p_s, coordinate of the harmless text centroid."""
    shift: dict[Modality, float]
    """beta, subtracted from the coordinate of a request of that modality; 0 for text."""
    origin: float
    """o, re-centered coordinate at which the gate opens."""
    cap: float
    """c, edge of the harmful text data; no push goes beyond it."""
    gain: float
    """kappa: the push grows by kappa * R * gate."""
    radius: float
    """rho: no push is longer than rho * R."""
    layer_forced: bool = False
    """Whether the user named the layer."""
    layer_failures: list[str] = Field(default_factory=list)
    """Causal checks that the layer failed, each with value and threshold; only a forced layer
    can have any."""
    reached: float | None = None
    """Mean refusal log-odds of harmful text beside neutral visuals, steered; least over the
    modalities. None without visual modalities."""
    goal: float | None = None
    """What `reached` should be at least: that of harmful text alone, less a tolerance."""
    refusal_tokens: list[int]
    """First tokens of the refusal openers, for the refusal log-odds."""
    scores: list[LayerScore]
    prompts: dict[str, PromptSource]
    """Keys `harmful` and `harmless`."""
    visuals: dict[Modality, VisualSource]
    header_suffixes: list[list[int]]
    """Token suffixes that end an assistant header of the chat template."""
    probes: list[Probe]
    projections: dict[str, list[float]] = Field(default_factory=dict)
    """Validation coordinates at the chosen layer, for plots: `harmful text`, `harmless text`,
    `harmless text + neutral image`, ... (re-centered)."""
    seed: int
    seconds: float
