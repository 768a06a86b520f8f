"""What the README tells people to type works, in the order in which it stands there."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from datetime import timedelta
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from planner.errors import ProfileError
from planner.execution.wire.certificates import make_certificates
from planner.execution.wire.zenoh import free_port
from planner.scenario.load import load_instance, load_scenario

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DEVICE = "192.0.2.7:7447"
COMMANDS = re.findall(r"^    (planner .+)$", README, flags=re.MULTILINE)
(SCENARIO,) = re.findall(r"^    profiles: .*\n(?:    .+\n)+", README, flags=re.MULTILINE)
(PROGRAM,) = re.findall(r"^    import numpy as np\n(?:(?:    .*)?\n)+", README, flags=re.MULTILINE)


def test_the_readme_has_commands() -> None:
    assert [command.split()[1] for command in COMMANDS] == [
        "models", "inspect", "profile", "solve", "compare", "simulate", "validate", "split",
        "validate", "run",
    ]  # fmt: skip


def test_its_scenario_is_sound_and_names_the_command_that_makes_its_profile(tmp_path: Path) -> None:
    path = tmp_path / "scenario.yaml"
    path.write_text(textwrap.dedent(SCENARIO))
    assert load_scenario(path).sources["door"].priority == 3
    with pytest.raises(ProfileError, match=r"planner profile measure .*detector\.onnx --device-class this-machine"):
        load_instance(path)


def test_type_checkers_may_use_its_annotations() -> None:
    assert resources.files("planner").joinpath("py.typed").is_file()


@pytest.fixture
def agents(tmp_path: Path) -> Iterator[str]:
    """Agents of the scenario's three workers on this machine, with certificates; gives the address of one of them."""
    make_certificates(tmp_path / "certs", ["camera-box", "cabinet", "office"], life=timedelta(days=2))
    address = f"127.0.0.1:{free_port()}"
    common = [sys.executable, "-m", "planner", "agent", "--cache", str(tmp_path / "blocks"), "--until-stdin-closes"]
    ways = (("camera-box", "--listen"), ("cabinet", "--connect"), ("office", "--connect"))
    started = [
        subprocess.Popen(
            [*common, "--name", name, way, address, "--cert-dir", str(tmp_path / "certs" / name)],
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        for name, way in ways
    ]
    yield address
    for process in started:
        process.communicate(timeout=20)


def test_its_commands_and_its_program_work_one_after_the_other(tmp_path: Path, agents: str) -> None:
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    (tmp_path / "frames").mkdir()
    for index in range(3):
        np.save(tmp_path / "frames" / f"{index}.npy", np.zeros((3, 224, 224), np.float32))
    for command in COMMANDS:
        words = [sys.executable, "-m", *shlex.split(command.replace(DEVICE, agents))]
        found = subprocess.run(words, capture_output=True, text=True, check=False, cwd=tmp_path, timeout=240)
        # On a busy machine delays may be off, and then a validation ends with 1; what must hold is asked below.
        allowed = {0, 1} if "validate" in words else {0}
        assert found.returncode in allowed, f"{command}\n{found.stdout}\n{found.stderr}"
    for made in (
        "chain.svg",
        "plan.json",
        "runs/first/timeline.png",
        "parts/manifest.json",
        "results/gate-camera/2.npz",
    ):
        assert (tmp_path / made).is_file(), made
    program = textwrap.dedent(PROGRAM).replace(DEVICE, agents)
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=tmp_path, timeout=120
    )
    assert found.returncode == 0, found.stderr
    assert re.fullmatch(r"(\d+: class \d+ after \d\.\d{3} s\n){20}", found.stdout), found.stdout
    result = json.loads((tmp_path / "runs/first/result.json").read_text())
    assert (result["lost"], result["failed"]) == (0, 0)
    assert result["numerics"]["max_rel_error"] <= 1e-4


@pytest.mark.parametrize("target", ["demo", "test"])
def test_its_two_commands_are_targets_of_the_makefile(target: str) -> None:
    assert f"make {target}" in README
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)


def test_its_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert links
    for link in links:
        assert (ROOT / link).exists(), link


def test_its_table_of_packages_is_whole() -> None:
    named = set(re.findall(r"^\| `(\w+)/` \|", README, flags=re.MULTILINE))
    there = {path.parent.name for path in (ROOT / "planner").glob("*/__init__.py")}
    assert named == there - {"cli"}
