"""Base of all data that is read from files or sent between processes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict

_R = TypeVar("_R", bound="FrozenModel")


class FrozenModel(BaseModel):
    """Base of all data read from files: immutable, and an unknown key is an error.

    Validators are built on first use. Building all of them would dominate an agent's start, although it may never need
    most of them.

    A copy, with fields changed or not, computes its cached properties anew: pydantic would copy those of the original.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, defer_build=True)

    def __copy__(self: _R) -> _R:
        return _without_caches(super().__copy__())

    def __deepcopy__(self: _R, memo: dict[int, Any] | None = None) -> _R:
        return _without_caches(super().__deepcopy__(memo))

    def model_copy(self: _R, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> _R:
        """Give a copy with some fields changed; new values are taken as they are, unchecked.

        Raises
        ------
        TypeError
            There is no field of such a name.
        """
        unknown = (update or {}).keys() - type(self).model_fields.keys()
        if unknown:
            raise TypeError(f"{type(self).__name__} has no field {', '.join(sorted(unknown))}")
        return super().model_copy(update=update, deep=deep)


def _without_caches(copied: _R) -> _R:
    for name in copied.__dict__.keys() - type(copied).model_fields.keys():
        del copied.__dict__[name]
    return copied
