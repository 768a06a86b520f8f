"""What the guide shows works as it stands there, but for the ports."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

import planner
from tests.serve.case import tiny_model, write_plan

GUIDE = (Path(__file__).parents[2] / "docs/guides/serve.md").read_text(encoding="utf-8")
PROGRAMS = re.findall(r"^```python\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)
SHELL = re.findall(r"^```sh\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_plan(tmp_path_factory.mktemp("guide"), tiny_model(), "urgent")


@pytest.fixture(scope="module")
def service(plan: Path) -> Iterator[planner.Service]:
    with planner.Service(plan, listen="127.0.0.1:0", grpc_listen="127.0.0.1:0") as opened:
        yield opened


def here(text: str, service: planner.Service) -> str:
    return text.replace("127.0.0.1:8000", service.address).replace("127.0.0.1:8001", str(service.grpc_address))


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_gets_a_result(service: planner.Service) -> None:
    (command,) = SHELL
    answer = subprocess.run(["/bin/sh", "-c", here(command, service)], capture_output=True, check=True)
    (output,) = json.loads(answer.stdout)["outputs"]
    assert output["data"] == pytest.approx([0.2, 0.4, 0.6, 0.8])


def test_the_client_s_program_prints_a_result(service: planner.Service) -> None:
    names: dict[str, Any] = {}
    with redirect_stdout(StringIO()) as printed:
        exec(here(PROGRAMS[0], service), names)  # noqa: S102 - the guide is ours
    names["client"].close()
    assert printed.getvalue().strip() == "[[0. 0. 0. 0.]]"


def test_the_service_runs_within_a_program(plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(plan.parent)
    with redirect_stdout(StringIO()) as printed:
        exec(PROGRAMS[1], {})  # noqa: S102 - the guide is ours
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+ 127\.0\.0\.1:\d+\n", printed.getvalue())


def test_the_guide_lists_the_metrics(service: planner.Service) -> None:
    with urlopen(f"{service.url}/metrics") as response:
        families = text_string_to_metric_families(response.read().decode())
    found = {
        family.name + ("_total" if family.type == "counter" else "")
        for family in families
        if family.name.startswith("planner_") and not family.name.startswith("planner_build")
    }
    assert set(re.findall(r"`(planner_\w+)`", GUIDE)) == found
