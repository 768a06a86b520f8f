from __future__ import annotations

from pathlib import Path

from planner.profiling.environment import Thermals, device_environment, thermal_environment, thermals, throttle_warnings

JETSON = {
    "proc/device-tree/model": "NVIDIA Jetson Xavier NX Developer Kit\0",
    "etc/nv_tegra_release": "# R35 (release), REVISION: 4.1, GCID: 33958178, BOARD: t186ref, EABI: aarch64",
    "var/lib/nvpmodel/status": "pmode:0002 fmode:quiet",
    "etc/nvpmodel.conf": "< POWER_MODEL ID=0 NAME=MODE_15W_2CORE >\n< POWER_MODEL ID=2 NAME=MODE_15W_6CORE >\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1400000\n",
    "sys/devices/system/cpu/cpu1/cpufreq/scaling_cur_freq": "1000000\n",
    "sys/class/thermal/thermal_zone0/temp": "41500\n",
    "sys/class/thermal/thermal_zone1/temp": "-256000\n",
    "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": "3\n",
}


def make_root(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


def test_a_jetson_reports_its_name_release_and_power_mode(tmp_path: Path) -> None:
    environment = device_environment(make_root(tmp_path, JETSON))
    assert environment["device"] == "NVIDIA Jetson Xavier NX Developer Kit"
    assert environment["l4t"] == "35.4.1"
    assert environment["power_mode"] == "MODE_15W_6CORE"


def test_an_unknown_power_mode_is_reported_by_number(tmp_path: Path) -> None:
    root = make_root(tmp_path, JETSON | {"etc/nvpmodel.conf": ""})
    assert device_environment(root)["power_mode"] == "2"


def test_a_pc_reports_its_processor_and_gpu(tmp_path: Path) -> None:
    files = {
        "proc/cpuinfo": "processor\t: 0\nmodel name\t: Fast CPU @ 3 GHz\n",
        "proc/driver/nvidia/gpus/0000:01:00.0/information": "Model: \t\t NVIDIA RTX 2000\nIRQ: 50\n",
    }
    environment = device_environment(make_root(tmp_path, files))
    assert environment["gpu"] == "NVIDIA RTX 2000"
    assert environment["device"] == "Fast CPU @ 3 GHz"
    assert "l4t" not in environment
    assert "power_mode" not in environment


def test_thermals(tmp_path: Path) -> None:
    assert thermals(make_root(tmp_path, JETSON)) == Thermals(1.2e9, 41.5, 3)


def test_a_system_that_reports_nothing(tmp_path: Path) -> None:
    nothing = thermals(tmp_path)
    assert nothing == Thermals(None, None, None)
    assert thermal_environment(nothing, nothing) == {}
    assert throttle_warnings(nothing, nothing) == []


def test_this_machine_can_be_described() -> None:
    assert device_environment()["cores"] >= 1
    assert thermals() is not None


def test_throttling_causes_a_warning() -> None:
    before = Thermals(1.2e9, 40.0, 3)
    assert throttle_warnings(before, Thermals(1.19e9, 60.0, 3)) == []
    assert "too hot" in throttle_warnings(before, Thermals(1.2e9, 90.0, 5))[0]
    assert "1200 to 800 MHz" in throttle_warnings(before, Thermals(0.8e9, 90.0, 3))[0]
    assert thermal_environment(before, Thermals(0.8e9, 90.0, 3)) == {
        "clock_hz": [1.2e9, 0.8e9],
        "temperature_celsius": [40.0, 90.0],
    }
