"""Quantities with units, as people write and read them: ``54 Mbit/s``, ``4 GiB``, ``3 ms``, ``10 /s``, ``85 %``.

Reading requires pint. Writing requires no third-party package, so that an agent can print quantities.
"""

from __future__ import annotations

import math
import re
from functools import cache
from typing import TYPE_CHECKING, Final

from planner.errors import UnitError

if TYPE_CHECKING:
    import pint

SI_UNITS: Final = {
    "time": "second",
    "memory": "byte",
    "bandwidth": "byte / second",
    "rate": "1 / second",
    "fraction": "dimensionless",
    "power": "watt",
    "energy": "watt * second",
}
"""Kinds of quantity, each with the unit used inside the program."""

EXAMPLES: Final = {
    "time": "3 ms",
    "memory": "4 GiB",
    "bandwidth": "54 Mbit/s",
    "rate": "10 /s",
    "fraction": "85 %",
    "power": "8 W",
    "energy": "2 J",
}

_NOUNS: Final = {
    "time": "a time",
    "memory": "an amount of memory",
    "bandwidth": "a bandwidth",
    "rate": "a rate",
    "fraction": "a percentage",
    "power": "a power",
    "energy": "an energy",
}

# Units are listed one by one instead of with prefixes, because pint would read `54 mbit/s` as millibits. A bit has its
# own dimension; otherwise `5 /s` would be accepted as a bandwidth.
_DEFINITIONS: Final = (
    "second = [time] = s",
    "millisecond = 1e-3 * second = ms",
    "microsecond = 1e-6 * second = us = µs",
    "nanosecond = 1e-9 * second = ns",
    "minute = 60 * second = min",
    "hour = 3600 * second = h",
    "hertz = 1 / second = Hz",
    "frame_per_second = 1 / second = fps",
    "percent = 0.01 = %",
    "watt = [power] = W",
    "milliwatt = 1e-3 * watt = mW",
    "kilowatt = 1000 * watt = kW",
    "joule = watt * second = J",
    "millijoule = 1e-3 * joule = mJ",
    "kilojoule = 1000 * joule = kJ",
    "bit = [information]",
    "byte = 8 * bit = B",
    *(
        f"{prefix}{unit} = {1000**power} * {base}"
        for power, prefix in enumerate(("k", "M", "G", "T"), start=1)
        for unit, base in (("bit", "bit"), ("B", "byte"))
    ),
    *(
        f"{prefix}{unit} = {1024**power} * {base}"
        for power, prefix in enumerate(("Ki", "Mi", "Gi", "Ti"), start=1)
        for unit, base in (("bit", "bit"), ("B", "byte"))
    ),
)

_NUMBER: Final = r"(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_QUANTITY: Final = re.compile(
    rf"\s*(?P<number>[+-]?{_NUMBER})\s*(?P<unit>(?:[A-Za-zµμ]+|%)?\s*(?:/\s*[A-Za-zµμ]+)?)\s*", re.ASCII
)

_SCALES: Final = {
    "time": ((3600.0, "h"), (60.0, "min"), (1.0, "s"), (1e-3, "ms"), (1e-6, "us"), (1e-9, "ns")),
    "memory": ((2.0**40, "TiB"), (2.0**30, "GiB"), (2.0**20, "MiB"), (2.0**10, "KiB"), (1.0, "B")),
    "bandwidth": ((1.25e8, "Gbit/s"), (1.25e5, "Mbit/s"), (1.25e2, "kbit/s"), (0.125, "bit/s")),
    "rate": ((1.0, "/s"),),
    "fraction": ((1e-2, "%"),),
    "power": ((1e3, "kW"), (1.0, "W"), (1e-3, "mW")),
    "energy": ((1e3, "kJ"), (1.0, "J"), (1e-3, "mJ")),
}


LARGEST_IN_FULL: Final = 1e9
"""Larger numbers are written with a power of ten."""


@cache
def _registry() -> pint.UnitRegistry[float]:
    import pint

    registry: pint.UnitRegistry[float] = pint.UnitRegistry(None)
    for definition in _DEFINITIONS:
        registry.define(definition)
    return registry


def read_quantity(value: object, kind: str) -> float:
    """Parse a quantity with a unit.

    Parameters
    ----------
    value
        Text such as ``54 Mbit/s``. A bare number is rejected.
    kind
        A key of :data:`SI_UNITS`.

    Returns
    -------
    float
        Value in the SI unit of ``kind``; finite and not negative.

    Raises
    ------
    UnitError
        If ``value`` is not a valid quantity of ``kind``. The error names the value and an example of valid input.

    Examples
    --------
    >>> read_quantity("54 Mbit/s", "bandwidth")
    6750000.0
    >>> read_quantity("85 %", "fraction")
    0.85
    """
    expected = describe_quantity(kind)
    match = _QUANTITY.fullmatch(str(value))
    if match is None or isinstance(value, bool):
        raise UnitError("not a quantity", value=value, expected=_with_slash(value, kind) or expected)
    number, unit = float(match["number"]), match["unit"].replace("μ", "µ")
    if not unit:
        raise UnitError("a bare number needs a unit", value=value, expected=expected)
    try:
        result = number * _factor(unit, kind)
    except UnitError as error:
        spelling = " or ".join(f"{match['number']} {known}" for known in _spellings(unit, kind))
        raise UnitError(error.faults[0].what, value=value, expected=spelling or expected) from None
    if number < 0:
        raise UnitError("must not be negative", value=value, expected=expected)
    if not math.isfinite(result):
        raise UnitError("too large to be read", value=value, expected=expected)
    return result


def _with_slash(value: object, kind: str) -> str:
    """Return how to write a quantity with the word "per"; empty if it has none."""
    text = _PER.sub(" /", str(value))
    if text == value or not isinstance(value, str):
        return ""
    try:
        read_quantity(text, kind)
    except UnitError as error:
        return error.faults[0].expected or ""
    return text


def describe_quantity(kind: str) -> str:
    """Return a description of valid quantities of ``kind``, with an example."""
    return f"{_NOUNS[kind]} such as {EXAMPLES[kind]}"


def _factor(unit: str, kind: str) -> float:
    """Return the number of SI units of ``kind`` in one ``unit``."""
    import pint

    registry = _registry()
    try:
        parsed = registry.parse_units("1" + unit if unit.startswith("/") else unit)
        return float(registry.Quantity(1.0, parsed).m_as(SI_UNITS[kind]))
    except pint.DimensionalityError:
        raise UnitError(f"the unit {unit!r} does not fit {_NOUNS[kind]}") from None
    except pint.UndefinedUnitError:
        raise UnitError(f"unknown unit {unit!r}") from None


_OTHER_SPELLINGS: Final = {
    "sec": "s", "secs": "s", "msec": "ms", "millis": "ms", "usec": "us", "nsec": "ns", "mins": "min",
    "hr": "h", "hrs": "h", "percent": "%", "pct": "%", "qps": "x/s", "rps": "x/s", "rpm": "x/min",
}  # fmt: skip
_PER: Final = re.compile(r"\s+per\s+")
_EACH: Final = re.compile(r"[a-z]*/(?P<time>[a-z]+)")
"""Such as ``frames/s``: a rate counts things of any kind."""
_PER_SECOND: Final = re.compile(r"(?<=.)(ps|/s(ec)?|/second)$")
_INFORMATION: Final = re.compile(r"(?P<prefix>[kmgt]?)(?P<binary>i?)(?P<unit>b|bits?|bytes?|o)", re.IGNORECASE)


def _spellings(unit: str, kind: str) -> list[str]:
    """Return the units of ``kind`` that somebody who wrote ``unit`` may have meant, at most two."""
    compact = unit.replace(" ", "")
    amount = _PER_SECOND.sub("", compact)
    if kind in {"memory", "bandwidth"} and (match := _INFORMATION.fullmatch(amount)):
        prefix = match["prefix"].upper() + "i" if match["binary"] else match["prefix"].upper().replace("K", "k")
        # A small b is a bit in some texts and a byte in others.
        names = ("bit", "B") if match["unit"] == "b" else ("bit",) if match["unit"][1:2] == "i" else ("B",)
        return [prefix + name + ("/s" if kind == "bandwidth" else "") for name in names]
    if kind == "memory" and compact in {"K", "M", "G", "T"}:
        return [f"{compact.replace('K', 'k')}B", f"{compact}iB"]
    meant = _OTHER_SPELLINGS.get(compact.lower(), compact).lower()
    if kind == "rate" and (match := _EACH.fullmatch(meant)) and not _INFORMATION.fullmatch(amount):
        time = _OTHER_SPELLINGS.get(match["time"], match["time"])
        return [f"/{time}"] if time in _names("second") else []
    return [name for name in _names(SI_UNITS[kind]) if name.lower() == meant][:1]


@cache
def _names(dimension: str) -> tuple[str, ...]:
    """Return the names of all units of a dimension, which is given by one of them, shortest first."""
    registry = _registry()
    expected = registry.parse_units(dimension).dimensionality
    # A definition is `name = value = symbol = symbol …`.
    parts = [definition.split(" = ") for definition in _DEFINITIONS]
    names = [name for words in parts for name in (words[0], *words[2:]) if "_" not in name]
    return tuple(sorted((name for name in names if registry.parse_units(name).dimensionality == expected), key=len))


def quantity_pattern(kind: str) -> str:
    """Return a regular expression (ECMA-262) for quantities of ``kind``; whatever fits it is read."""

    def any_of(dimension: str) -> str:
        return "|".join(f"{name}s?" if len(name) > 3 else name for name in _names(dimension))

    if kind == "bandwidth":
        units = rf"({any_of('byte')})\s*/\s*({any_of('second')})"
    elif kind == "rate":
        units = rf"(/\s*({any_of('second')})|{any_of('1 / second')})"
    else:
        units = f"({any_of(SI_UNITS[kind])})"
    return rf"^\s*\+?{_NUMBER}\s*{units}\s*$"


def format_quantity(value: float, kind: str, *, digits: int | None = None) -> str:
    """Format an SI value, as in ``54 Mbit/s`` or ``3.0 GiB``.

    Parameters
    ----------
    digits
        Significant digits. By default there are three, and for memory one decimal.

    Examples
    --------
    >>> format_quantity(6.75e6, "bandwidth")
    '54 Mbit/s'
    >>> format_quantity(0.0125, "time")
    '12.5 ms'
    """
    scales = _SCALES[kind]
    size = abs(value) or 1.0
    # Use the next larger unit for a value that would round up to it.
    factor, unit = next((scale for scale in scales if size >= scale[0] * 0.9995), scales[-1])
    number = value / factor
    if digits is None and kind == "memory" and unit != "B" and abs(number) < 99.95:
        return f"{number:.1f} {unit}"
    return f"{format_number(number, digits or 3)} {unit}"


def format_number(value: float, digits: int = 3) -> str:
    """Format a number with at least so many significant digits, large ones in full.

    Examples
    --------
    >>> format_number(0.012345), format_number(12345.6)
    ('0.0123', '12346')
    """
    whole = 10.0**digits - 0.5 <= abs(value) < LARGEST_IN_FULL
    return f"{value:.0f}" if whole else f"{value:.{digits}g}"
