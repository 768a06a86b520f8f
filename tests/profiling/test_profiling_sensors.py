"""Temperature and power, from folders as Linux has them on several devices."""

from __future__ import annotations

from pathlib import Path

import pytest

from planner.profiling.sensors import power_w, temperature_celsius
from tests.profiling.test_profiling_environment import make_root

ORIN_NANO = {
    "sys/class/hwmon/hwmon0/name": "pwmfan\n",
    "sys/class/hwmon/hwmon1/name": "ina3221\n",
    "sys/class/hwmon/hwmon1/in1_label": "VDD_IN\n",
    "sys/class/hwmon/hwmon1/in1_input": "5000\n",
    "sys/class/hwmon/hwmon1/curr1_input": "1500\n",
    "sys/class/hwmon/hwmon1/in2_label": "VDD_CPU_GPU_CV\n",
    "sys/class/hwmon/hwmon1/in2_input": "5000\n",
    "sys/class/hwmon/hwmon1/curr2_input": "400\n",
    "sys/class/hwmon/hwmon1/in7_input": "12\n",
    "sys/class/hwmon/hwmon1/curr4_input": "2500\n",
}
AGX_ORIN = {
    "sys/class/hwmon/hwmon3/name": "ina3221\n",
    "sys/class/hwmon/hwmon3/in1_label": "VDD_GPU_SOC\n",
    "sys/class/hwmon/hwmon3/in1_input": "20000\n",
    "sys/class/hwmon/hwmon3/curr1_input": "200\n",
    "sys/class/hwmon/hwmon3/in3_label": "VIN_SYS_5V0\n",
    "sys/class/hwmon/hwmon3/in3_input": "5000\n",
    "sys/class/hwmon/hwmon3/curr3_input": "600\n",
    "sys/class/hwmon/hwmon4/name": "ina3221\n",
    "sys/class/hwmon/hwmon4/in2_label": "VDDQ_VDD2_1V8AO\n",
    "sys/class/hwmon/hwmon4/in2_input": "5000\n",
    "sys/class/hwmon/hwmon4/curr2_input": "300\n",
}
OLD_XAVIER = {
    "sys/bus/i2c/drivers/ina3221x/1-0040/iio:device0/rail_name_0": "GPU\n",
    "sys/bus/i2c/drivers/ina3221x/1-0040/iio:device0/in_power0_input": "1200\n",
    "sys/bus/i2c/drivers/ina3221x/1-0041/iio:device1/rail_name_2": "SYS5V\n",
    "sys/bus/i2c/drivers/ina3221x/1-0041/iio:device1/in_power2_input": "3000\n",
}
SERVER = {
    "sys/class/hwmon/hwmon0/name": "coretemp\n",
    "sys/class/hwmon/hwmon0/temp1_input": "61000\n",
    "sys/class/hwmon/hwmon0/temp2_input": "58000\n",
    "sys/class/hwmon/hwmon1/name": "power_meter\n",
    "sys/class/hwmon/hwmon1/power1_average": "240000000\n",
    "sys/class/hwmon/hwmon2/name": "amdgpu\n",
    "sys/class/hwmon/hwmon2/power1_average": "35000000\n",
}
DESKTOP = {name: text for name, text in SERVER.items() if "hwmon1" not in name} | {
    "sys/class/hwmon/hwmon2/power1_input": "36000000\n",
    "sys/class/hwmon/hwmon2/power1_cap": "90000000\n",
    "sys/class/hwmon/hwmon3/name": "ina219\n",
    "sys/class/hwmon/hwmon3/power1_input": "4000000\n",
}


@pytest.mark.parametrize(
    ("files", "watts", "celsius"),
    [
        (ORIN_NANO, 7.5, None),
        (AGX_ORIN, 7.0, None),
        (OLD_XAVIER, 4.2, None),
        (SERVER, 240.0, 61.0),
        (DESKTOP, 40.0, 61.0),
        (
            {"sys/class/thermal/thermal_zone0/temp": "41500\n", "sys/class/hwmon/hwmon0/temp1_input": "90000"},
            None,
            41.5,
        ),
        ({"sys/class/hwmon/hwmon0/power1_input": "N/A\n", "sys/class/thermal/thermal_zone0/temp": ""}, None, None),
        ({}, None, None),
    ],
)
def test_what_devices_report(tmp_path: Path, files: dict[str, str], watts: float | None, celsius: float | None) -> None:
    root = make_root(tmp_path, files)
    assert power_w(root) == (None if watts is None else pytest.approx(watts))
    assert temperature_celsius(root) == celsius


def test_this_machine_is_read_without_an_error() -> None:
    assert (power_w() or 0.0) >= 0.0
    temperature_celsius()
