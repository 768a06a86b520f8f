"""Temperature and power of this device, as far as Linux reports them.

Temperatures are those of thermal zones, or else of hardware monitors. Power is that of what covers most of the device:

1. a meter of the whole machine (``power_meter`` of ACPI);
2. on a Jetson, the INA3221 monitors: of JetPack 5 and later as hardware monitors, whose voltages and currents have
   labels, before that under ``iio``. Where one is the input of the module (``VDD_IN``), it is that, else the sum;
3. the sum of all other hardware monitors, such as of an INA219 or a graphics card.

The files and their units: https://docs.kernel.org/hwmon/sysfs-interface.html, https://docs.kernel.org/hwmon/ina3221.html.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path("/")

_INPUTS: Final = frozenset({"VDD_IN", "POM_5V_IN"})
"""Rails that feed a whole Jetson module."""

_PARTS: Final = frozenset({"VDDQ_VDD2_1V8AO"})
"""Rails that another rail feeds, which would count twice in a sum."""


def temperature_celsius(root: Path = ROOT) -> float | None:
    """Return the highest temperature that the system reports; None where it reports none.

    Parameters
    ----------
    root
        Root folder of the system's files.
    """
    found = read_numbers((root / "sys/class/thermal").glob("thermal_zone*/temp"))
    found = found or read_numbers((root / "sys/class/hwmon").glob("hwmon*/temp*_input"))
    return max(found) / 1e3 if found else None


def power_w(root: Path = ROOT) -> float | None:
    """Return the power that the device draws, in watts; None where the system reports none.

    Parameters
    ----------
    root
        Root folder of the system's files.
    """
    watts = _power_w(root)
    return None if watts is None else max(0.0, watts)  # a battery that is charged may count as negative


def _power_w(root: Path) -> float | None:
    chips = [(read_text(chip / "name") or "", chip) for chip in sorted((root / "sys/class/hwmon").glob("hwmon*"))]
    meters = [watts for name, chip in chips if name == "power_meter" for watts in _powers_w(chip)]
    if meters:
        return sum(meters)
    rails = [rail for name, chip in chips if name.startswith("ina3221") for rail in _rails(chip)]
    rails += _old_rails(root)
    if rails:
        whole = [watts for name, watts in rails if name in _INPUTS]
        return sum(whole or [watts for name, watts in rails if name not in _PARTS])
    others = [watts for _, chip in chips for watts in _powers_w(chip)]
    return sum(others) if others else None


def _powers_w(chip: Path) -> list[float]:
    """Return what each sensor of power of a hardware monitor measures: now, or else on average."""
    numbers = sorted({match[1] for file in chip.glob("power*_*") if (match := re.match(r"power(\d+)_", file.name))})
    found = []
    for number in numbers:
        values = [read_numbers([chip / f"power{number}_{kind}"]) for kind in ("input", "average")]
        found += [next(iter(value)) / 1e6 for value in values if value][:1]
    return found


def _rails(chip: Path) -> Iterator[tuple[str, float]]:
    """Yield name and power of each rail of an INA3221, which has three channels."""
    for number in (1, 2, 3):
        millivolts = read_numbers([chip / f"in{number}_input"])
        milliamperes = read_numbers([chip / f"curr{number}_input"])
        if millivolts and milliamperes:
            yield read_text(chip / f"in{number}_label") or "", millivolts[0] * milliamperes[0] / 1e6


def _old_rails(root: Path) -> Iterator[tuple[str, float]]:
    """Yield name and power of each rail of a Jetson before JetPack 5."""
    for device in sorted((root / "sys/bus/i2c/drivers/ina3221x").glob("*/iio:device*")):
        for number in (0, 1, 2):
            milliwatts = read_numbers([device / f"in_power{number}_input"])
            if milliwatts:
                yield read_text(device / f"rail_name_{number}") or "", milliwatts[0] / 1e3


def read_text(path: Path) -> str | None:
    """Return what a file of the system says; None if it cannot be read."""
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return None


def read_numbers(paths: Iterable[Path]) -> list[float]:
    """Return the numbers in files of the system, without those that cannot be read."""
    return [float(text) for path in paths if (text := read_text(path)) and re.fullmatch(r"-?\d+", text)]
