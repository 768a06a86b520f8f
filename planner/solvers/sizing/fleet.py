"""Kinds of devices, and how many of each: the terms of sizing, without a solver library."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Counts = Mapping[str, int]
"""Number of devices of each kind."""


@dataclass(frozen=True)
class Kind:
    """A kind of device.

    Parameters
    ----------
    price
        Price of one device.
    most
        How many there may be at most.
    worker
        Name of the worker that stands for the kind in the instance with one device of each.
    """

    name: str
    price: float
    most: int
    worker: str


@dataclass(frozen=True)
class Fleet:
    """Result of the program: the cheapest fleet that it does not exclude, if any, and a lower bound on the price."""

    end: Literal["optimal", "infeasible", "stopped"]
    counts: dict[str, int] | None
    bound: float
