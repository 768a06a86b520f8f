"""A table of the messages that a member handles, in place of a chain of type tests."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, Generic, TypeVar

from planner.execution.wire.frames import Frame

Owner = TypeVar("Owner")
Result = TypeVar("Result")


class Dispatch(Generic[Owner, Result]):
    """The methods of a class by the type of message that each handles.

    It stands at the end of the class, where its methods have names, and is complete: what the class may receive and
    does not need is listed as ignored. A test compares :attr:`kinds` with the union of
    :mod:`planner.execution.wire.messages` that this side receives.

    Parameters
    ----------
    handlers
        ``method(self, body, frame)`` for each type of body.
    ignored
        Types of body without a handler.
    """

    def __init__(
        self, handlers: Mapping[type, Callable[[Owner, Any, Frame], Result]], *, ignored: Collection[type] = ()
    ) -> None:
        self._handlers = dict(handlers)
        self.kinds = frozenset((*handlers, *ignored))

    def handle(self, owner: Owner, frame: Frame) -> Result | None:
        """Call the handler of the frame's body, and return what it returns; None for a body that has no handler."""
        handler = self._handlers.get(type(frame.body))
        return handler(owner, frame.body, frame) if handler is not None else None
