"""Base class of all data that is read from files or sent between processes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict

_R = TypeVar("_R", bound="FrozenModel")


class FrozenModel(BaseModel):
    """An immutable record in which an unknown key is an error.

    Validators are built on first use: building all of them would dominate the start of an agent, which may never need
    most of them.

    Copies do not share cached properties. Pydantic would copy them, and after a change of fields they would be stale.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, defer_build=True)

    def __copy__(self: _R) -> _R:
        return _without_caches(super().__copy__())

    def __deepcopy__(self: _R, memo: dict[int, Any] | None = None) -> _R:
        return _without_caches(super().__deepcopy__(memo))

    def model_copy(self: _R, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> _R:
        """Return a copy with some fields changed; new values are not validated.

        Raises
        ------
        TypeError
            A name in ``update`` is not a field.
        """
        unknown = (update or {}).keys() - type(self).model_fields.keys()
        if unknown:
            raise TypeError(f"{type(self).__name__} has no field {', '.join(sorted(unknown))}")
        return super().model_copy(update=update, deep=deep)


def _without_caches(copied: _R) -> _R:
    for name in copied.__dict__.keys() - type(copied).model_fields.keys():
        del copied.__dict__[name]
    return copied
