"""The numbers of both methods, and their options. Free of torch."""

from mars_export.methods.base import ArtefactRecord
from mars_export.methods.mars.record import MarsOptions, MarsRecord
from mars_export.methods.rai.record import RaiOptions, RaiRecord

__all__ = ["MarsRaiOptions", "MarsRaiRecord", "rai_part"]


class MarsRaiOptions(MarsOptions, RaiOptions):
    """Those of MARS and those of RAI."""


class MarsRaiRecord(MarsRecord):
    """What MARS measured on the model with RAI in place, and RAI."""

    rai: RaiRecord


def rai_part(artefact: ArtefactRecord) -> ArtefactRecord:
    """The record with what it says of RAI alone."""
    assert isinstance(artefact.record, MarsRaiRecord)
    return artefact.model_copy(update={"method": "rai", "record": artefact.record.rai})
