"""Making the next thing while the last one is used."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, TypeVar

__all__ = ["Ahead"]

Item = TypeVar("Item")
Made = TypeVar("Made")


class Ahead(Generic[Item, Made]):
    """Makes things of items in one thread, one ahead of the caller.

    While it is entered. What fails fails where it is asked for; what is not asked for is dropped.
    """

    def __init__(self, make: Callable[[Item], Made]) -> None:
        """make: runs in the thread, never twice at once."""
        self._make = make
        self._thread = ThreadPoolExecutor(1, "ahead")
        self._begun: tuple[Item, Future[Made]] | None = None

    def __enter__(self) -> Ahead[Item, Made]:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._begun = None
        self._thread.shutdown(cancel_futures=True)

    def of(self, item: Item, after: Item | None = None) -> Made:
        """What is made of an item; that of the one after it is begun.

        Args:
            item: Compared with what was begun.
            after: What will most likely be asked for next; None at the end.
        """
        begun, self._begun = self._begun, None
        if begun is None or begun[0] != item:
            begun = item, self._thread.submit(self._make, item)
        made = begun[1].result()
        if after is not None:
            self._begun = after, self._thread.submit(self._make, after)
        return made
