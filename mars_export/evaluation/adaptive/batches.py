"""Batches that fit into memory, and inputs that a processor makes; what cannot be done says so."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from mars_export.common.errors import ExportError
from mars_export.common.input_errors import InputError, is_out_of_memory
from mars_export.evaluation.generation import Loaded
from mars_export.families.loading import free_memory
from mars_export.inputs.requests import Request

__all__ = ["Batches", "UnreachableError", "inputs_of"]

_Row = TypeVar("_Row")
_Result = TypeVar("_Result")


class UnreachableError(ExportError):
    """An attack cannot be made on this model or on these requests; others may."""


class Batches:
    """Work on many rows, as many at once as fit into memory.

    Attributes:
        size: Most rows at once; halved for good when memory runs out.
    """

    def __init__(self, size: int) -> None:
        self.size = size

    def map(
        self, work: Callable[[Sequence[_Row]], Sequence[_Result]], rows: Sequence[_Row]
    ) -> list[_Result]:
        """Results of the rows, in their order.

        Args:
            work: On one batch, forwards and backwards included; repeated with half of it when
                memory runs out, so it changes nothing before it is done.
            rows: All of them.

        Raises:
            UnreachableError: One row alone does not fit.
        """
        results: list[_Result] = []
        while len(results) < len(rows):
            batch = rows[len(results) : len(results) + self.size]
            done: Sequence[_Result] = ()
            try:
                done = work(batch)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if len(batch) == 1:
                    raise UnreachableError("one request alone does not fit into memory") from error
                self.size = len(batch) // 2
            if not done:  # not in the handler: the error holds the tensors of the batch
                free_memory()
            results += done
        return results


def inputs_of(loaded: Loaded, requests: Sequence[Request]) -> Any:
    """The requests as model inputs.

    Raises:
        UnreachableError: The processor refuses them.
    """
    try:
        return loaded.inputs(requests)
    except InputError as error:
        raise UnreachableError(str(error)) from error
