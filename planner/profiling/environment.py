"""Environment of a measurement: what the costs depend on, as far as the system reports it."""

from __future__ import annotations

import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from planner.profiling.sensors import ROOT, read_numbers, read_text, temperature_celsius

SLOWER_CLOCK: Final = 0.9


def device_environment(root: Path = ROOT) -> dict[str, Any]:
    """Return a description of the device and its operating system.

    Parameters
    ----------
    root
        Root folder of the system's files.

    Returns
    -------
    dict
        Keys ``device``, ``architecture``, ``cores`` and ``system``; with an NVIDIA card also ``gpu``; on a Jetson also
        ``l4t`` and ``power_mode``.
    """
    values = {
        "device": _device(root),
        "architecture": platform.machine(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "gpu": _gpu(root),
        "l4t": _l4t(root),
        "power_mode": _power_mode(root),
    }
    return {key: value for key, value in values.items() if value is not None}


@dataclass(frozen=True)
class Thermals:
    """Clock and temperature at one moment; None where the system does not report them."""

    clock_hz: float | None
    temperature_celsius: float | None
    throttle_count: int | None


def thermals(root: Path = ROOT) -> Thermals:
    """Return the mean clock of the cores, the highest zone temperature, and the number of throttling events so far."""
    system = root / "sys/devices/system/cpu"
    clocks = read_numbers(system.glob("cpu[0-9]*/cpufreq/scaling_cur_freq"))
    throttled = read_numbers(system.glob("cpu[0-9]*/thermal_throttle/core_throttle_count"))
    return Thermals(
        clock_hz=1e3 * sum(clocks) / len(clocks) if clocks else None,
        temperature_celsius=temperature_celsius(root),
        throttle_count=int(sum(throttled)) if throttled else None,
    )


def thermal_environment(before: Thermals, after: Thermals) -> dict[str, Any]:
    """Return clock and temperature before and after a measurement, where both values are known."""
    pairs = {
        "clock_hz": [before.clock_hz, after.clock_hz],
        "temperature_celsius": [before.temperature_celsius, after.temperature_celsius],
    }
    return {key: pair for key, pair in pairs.items() if None not in pair}


def throttle_warnings(before: Thermals, after: Thermals) -> list[str]:
    """Return a warning for each sign that the device reduced its clock during a measurement."""
    warnings = []
    if before.throttle_count is not None and (after.throttle_count or 0) > before.throttle_count:
        warnings.append("the device was too hot and throttled its clock during the measurement")
    if before.clock_hz and after.clock_hz and after.clock_hz < SLOWER_CLOCK * before.clock_hz:
        warnings.append(
            f"the clock fell from {before.clock_hz / 1e6:.0f} to {after.clock_hz / 1e6:.0f} MHz during the measurement"
        )
    return warnings


def _device(root: Path) -> str | None:
    # Boards with a device tree (Jetson, Raspberry Pi) give their name there; on a PC the processor is most informative.
    tree = read_text(root / "proc/device-tree/model")
    if tree:
        return tree.rstrip("\0")
    match = re.search(r"^model name\s*:\s*(.+)$", read_text(root / "proc/cpuinfo") or "", re.MULTILINE)
    return match[1] if match else platform.processor() or None


def _gpu(root: Path) -> str | None:
    cards = sorted((root / "proc/driver/nvidia/gpus").glob("*/information"))
    names = [
        match[1] for card in cards if (match := re.search(r"^Model:\s*(.+)$", read_text(card) or "", re.MULTILINE))
    ]
    return ", ".join(names) or None


def _l4t(root: Path) -> str | None:
    release = re.search(r"R(\d+).*?REVISION:\s*([\d.]+)", read_text(root / "etc/nv_tegra_release") or "")
    return f"{release[1]}.{release[2]}" if release else None


def _power_mode(root: Path) -> str | None:
    status = re.search(r"pmode:(\d+)", read_text(root / "var/lib/nvpmodel/status") or "")
    if status is None:
        return None
    number = int(status[1])
    modes = re.findall(r"<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+)\s*>", read_text(root / "etc/nvpmodel.conf") or "")
    return next((name for identity, name in modes if int(identity) == number), str(number))
