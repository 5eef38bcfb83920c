"""Choices of an evaluation, with their defaults. Free of torch."""

from pydantic import BaseModel, ConfigDict, PositiveInt

from mars_export.families.placement import Device

__all__ = ["EvaluationOptions"]


class EvaluationOptions(BaseModel):
    """How a suite is run; the command line takes its defaults from here."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    batch_size: PositiveInt = 16
    """Requests at once, halved when memory runs out."""
    max_new_tokens: PositiveInt = 64
    """Longest answer, in tokens."""
    device: Device = "auto"
    """For example `cpu`; `auto` takes a GPU when there is one. A placement, where one device cannot
    hold the model."""
    dtype: str | None = None
    """Name of a torch dtype; None for the one that the checkpoint is saved in."""
    controls: bool = True
    """Whether to ask some requests of each kind in harmless other ways too; see `CONTROLS`."""
    control_requests: PositiveInt = 32
    """Requests of one label and modality that a control is put to, at most."""
    attacks: bool = False
    """Whether to put every request through the attacks too."""
    doses: bool = True
    """Whether to scale the steering for some requests; it goes with the controls."""
    arms: tuple[str, ...] = ()
    """Further arms: names of baselines, or `NAME=DIR`. The safety prompt is one
    without being named, where the chat template takes it; `none` leaves it out."""
