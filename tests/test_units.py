from __future__ import annotations

import contextlib
import math
import re
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from planner.errors import UnitError
from planner.units import (
    EXAMPLES,
    SI_UNITS,
    describe_quantity,
    format_number,
    format_quantity,
    quantity_pattern,
    read_quantity,
)

ZEROS = ("0 s", "0 B", "0 bit/s", "0 /s", "0 %", "0 W", "0 J")
# The coarsest that is shown: three significant digits, or one decimal of a memory size.
ROUNDING = {
    "time": 0.006,
    "memory": 0.051,
    "bandwidth": 0.006,
    "rate": 0.006,
    "fraction": 0.006,
    "power": 0.006,
    "energy": 0.006,
}


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("54 Mbit/s", "bandwidth", 6.75e6),
        ("1 Gbit / s", "bandwidth", 1.25e8),
        ("10 MB/s", "bandwidth", 1e7),
        ("8 bit/s", "bandwidth", 1.0),
        ("60 MiB/min", "bandwidth", 2.0**20),
        ("4 GiB", "memory", 4 * 2.0**30),
        ("4GB", "memory", 4e9),
        ("1 kB", "memory", 1000.0),
        ("512 byte", "memory", 512.0),
        ("8 Mibit", "memory", 2.0**20),
        ("3 ms", "time", 3e-3),
        ("  1.5e2 us ", "time", 1.5e-4),
        ("2 µs", "time", 2e-6),
        ("2 μs", "time", 2e-6),
        (".5 s", "time", 0.5),
        ("2 min", "time", 120.0),
        ("1 hour", "time", 3600.0),
        ("3 seconds", "time", 3.0),
        ("0 s", "time", 0.0),
        ("10 /s", "rate", 10.0),
        ("10/s", "rate", 10.0),
        ("30 /min", "rate", 0.5),
        ("30 Hz", "rate", 30.0),
        ("12.7 fps", "rate", 12.7),
        ("85 %", "fraction", 0.85),
        ("85%", "fraction", 0.85),
        ("2.5 W", "power", 2.5),
        ("250mW", "power", 0.25),
        ("1.5 kJ", "energy", 1500.0),
    ],
)
def test_reads_what_people_write(text: str, kind: str, value: float) -> None:
    assert read_quantity(text, kind) == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize(
    ("value", "kind", "message"),
    [
        (54, "bandwidth", "a bare number needs a unit; found 54; expected a bandwidth such as 54 Mbit/s"),
        (0.85, "fraction", "a bare number needs a unit; found 0.85; expected a percentage such as 85 %"),
        ("5", "rate", "a bare number needs a unit; found '5'; expected a rate such as 10 /s"),
        (
            "5 /s",
            "bandwidth",
            "the unit '/s' does not fit a bandwidth; found '5 /s'; expected a bandwidth such as 54 Mbit/s",
        ),
        ("5 Mbit/s", "rate", "the unit 'Mbit/s' does not fit a rate; found '5 Mbit/s'; expected a rate such as 10 /s"),
        ("5 %", "time", "the unit '%' does not fit a time; found '5 %'; expected a time such as 3 ms"),
        (
            "54 mbit/s",
            "bandwidth",
            "unknown unit 'mbit/s'; found '54 mbit/s'; expected 54 Mbit/s",
        ),
        ("54 Mb/s", "bandwidth", "unknown unit 'Mb/s'; found '54 Mb/s'; expected 54 Mbit/s or 54 MB/s"),
        ("54 Mbit", "bandwidth", "the unit 'Mbit' does not fit a bandwidth; found '54 Mbit'; expected 54 Mbit/s"),
        ("5 GBps", "bandwidth", "unknown unit 'GBps'; found '5 GBps'; expected 5 GB/s"),
        ("8 mibps", "bandwidth", "unknown unit 'mibps'; found '8 mibps'; expected 8 Mibit/s or 8 MiB/s"),
        ("3 KB", "memory", "unknown unit 'KB'; found '3 KB'; expected 3 kB"),
        ("3 msec", "time", "unknown unit 'msec'; found '3 msec'; expected 3 ms"),
        ("30 FPS", "rate", "unknown unit 'FPS'; found '30 FPS'; expected 30 fps"),
        ("10 frames/s", "rate", "unknown unit 'frames/s'; found '10 frames/s'; expected 10 /s"),
        ("90 Samples / sec", "rate", "unknown unit 'Samples / sec'; found '90 Samples / sec'; expected 90 /s"),
        ("30 qps", "rate", "unknown unit 'qps'; found '30 qps'; expected 30 /s"),
        ("90 RPM", "rate", "unknown unit 'RPM'; found '90 RPM'; expected 90 /min"),
        ("6 per minute", "rate", "not a quantity; found '6 per minute'; expected 6 /minute"),
        ("6 frames per second", "rate", "not a quantity; found '6 frames per second'; expected 6 /second"),
        ("54 Mbit per s", "bandwidth", "not a quantity; found '54 Mbit per s'; expected 54 Mbit /s"),
        ("6 per metre", "rate", "not a quantity; found '6 per metre'; expected a rate such as 10 /s"),
        ("8G", "memory", "unknown unit 'G'; found '8G'; expected 8 GB or 8 GiB"),
        ("8G", "bandwidth", "unknown unit 'G'; found '8G'; expected a bandwidth such as 54 Mbit/s"),
        ("2.5 w", "power", "unknown unit 'w'; found '2.5 w'; expected 2.5 W"),
        ("3 metres", "time", "unknown unit 'metres'; found '3 metres'; expected a time such as 3 ms"),
        ("-3 ms", "time", "must not be negative; found '-3 ms'; expected a time such as 3 ms"),
        ("1e999 s", "time", "too large to be read; found '1e999 s'; expected a time such as 3 ms"),
        ("soon", "time", "not a quantity; found 'soon'; expected a time such as 3 ms"),
        ("inf s", "time", "not a quantity; found 'inf s'; expected a time such as 3 ms"),
        ("5 s s", "time", "not a quantity; found '5 s s'; expected a time such as 3 ms"),
        ("5 s**2", "time", "not a quantity; found '5 s**2'; expected a time such as 3 ms"),
        ("5 /", "rate", "not a quantity; found '5 /'; expected a rate such as 10 /s"),
        ("", "time", "not a quantity; found ''; expected a time such as 3 ms"),
        (None, "time", "not a quantity; expected a time such as 3 ms"),
        (True, "time", "not a quantity; found True; expected a time such as 3 ms"),
        (["3 ms"], "time", "not a quantity; found ['3 ms']; expected a time such as 3 ms"),
        ("4 Gib", "memory", "unknown unit 'Gib'; found '4 Gib'; expected 4 Gibit or 4 GiB"),
    ],
)
def test_refuses_with_value_and_example(value: object, kind: str, message: str) -> None:
    with pytest.raises(UnitError) as caught:
        read_quantity(value, kind)
    assert str(caught.value) == message


@pytest.mark.parametrize("kind", SI_UNITS)
def test_its_own_examples_are_read(kind: str) -> None:
    assert read_quantity(EXAMPLES[kind], kind) > 0
    assert EXAMPLES[kind] in describe_quantity(kind)


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        (6.75e6, "bandwidth", "54 Mbit/s"),
        (1.25e8, "bandwidth", "1 Gbit/s"),
        (0.0123, "time", "12.3 ms"),
        (0.99999, "time", "1 s"),
        (90.0, "time", "1.5 min"),
        (3 * 2**30, "memory", "3.0 GiB"),
        (200 * 2**20, "memory", "200 MiB"),
        (100, "memory", "100 B"),
        (1500, "rate", "1500 /s"),
        (0.25, "rate", "0.25 /s"),
        (0.853, "fraction", "85.3 %"),
        (1.0, "fraction", "100 %"),
        (-0.002, "time", "-2 ms"),
        *((0.0, kind, text) for kind, text in zip(SI_UNITS, ZEROS, strict=True)),
    ],
)
def test_writes_for_people(value: float, kind: str, text: str) -> None:
    assert format_quantity(value, kind) == text


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [(203.4, 2, "203"), (2.44, 2, "2.4"), (99.6, 2, "100"), (1234.5, 3, "1234"), (-1500.0, 3, "-1500"), (0.0, 3, "0")],
)
def test_large_numbers_are_written_in_full(value: float, digits: int, text: str) -> None:
    assert format_number(value, digits) == text


@given(kind=st.sampled_from(sorted(SI_UNITS)), value=st.floats(min_value=1e-9, max_value=1e15, allow_subnormal=False))
def test_what_is_written_can_be_read_back(kind: str, value: float) -> None:
    value = max(value, 1.0) if kind == "memory" else value
    tolerance = 0.5 if kind == "memory" and value < 1024 else ROUNDING[kind] * value
    assert math.isclose(read_quantity(format_quantity(value, kind), kind), value, rel_tol=0, abs_tol=tolerance)


@given(kind=st.sampled_from(sorted(SI_UNITS)), value=st.text())
def test_any_text_is_read_or_refused(kind: str, value: str) -> None:
    try:
        assert 0 <= read_quantity(value, kind) < math.inf
    except UnitError as error:
        assert "expected " in str(error)  # noqa: PT017 # most texts are refused, some are read


@settings(suppress_health_check=[HealthCheck.filter_too_much])  # earlier versions draw texts beside the pattern, too
@given(data=st.data(), kind=st.sampled_from(sorted(SI_UNITS)))
def test_what_fits_the_pattern_is_read(data: st.DataObject, kind: str) -> None:
    text = data.draw(st.from_regex(re.compile(quantity_pattern(kind), re.ASCII)))
    with contextlib.suppress(UnitError):  # only for a number that is too large
        assert 0 <= read_quantity(text, kind) < math.inf
        return
    assert float(re.match(r"[\s+]*([0-9.eE+-]+)", text)[1]) > 1e200  # type: ignore[index]


@given(kind=st.sampled_from(sorted(SI_UNITS)), value=st.floats(min_value=0, max_value=1e15, allow_subnormal=False))
def test_what_is_written_fits_the_pattern(kind: str, value: float) -> None:
    assert re.search(quantity_pattern(kind), format_quantity(value, kind))


def test_every_suggestion_is_read() -> None:
    for kind in SI_UNITS:
        for unit in (
            "Kb",
            "mB/S",
            "gbps",
            "TIB",
            "SEC",
            "hrs",
            "HZ",
            "Percent",
            "kw",
            "mj",
            "mbit",
            "Bps",
            "K",
            "rps",
            "per hour",
            "a/sec",
        ):
            try:
                read_quantity(f"3 {unit}", kind)
            except UnitError as error:
                expected = error.faults[0].expected or ""
                for text in expected.split(" or ") if expected.startswith("3 ") else []:
                    assert read_quantity(text, kind) > 0


@pytest.mark.slow
def test_writing_needs_no_pint() -> None:
    code = "import sys, planner.units as u; u.format_quantity(1.0, 'time'); sys.exit('pint' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
