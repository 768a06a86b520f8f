"""Quantities with units as values of options."""

from __future__ import annotations

from planner.errors import UnitError, UsageError


def read_option(text: str, kind: str, option: str) -> float:
    """Read the value of an option, such as ``30 s``, in SI units.

    Raises
    ------
    UsageError
        If it is no quantity of this kind; names the option.
    """
    from planner.units import read_quantity

    try:
        return read_quantity(text, kind)
    except UnitError as error:
        (fault,) = error.faults
        raise UsageError(fault.what, where=option, value=fault.value, expected=fault.expected) from error


def read_time_limit(text: str) -> float:
    """Read the value of ``--time-limit``, in seconds."""
    return read_option(text, "time", "--time-limit")
