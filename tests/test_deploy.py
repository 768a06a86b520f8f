"""What the containers and units name exists: files, programs, extras, options."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from planner import __file__ as package_file
from planner.cli import COMMANDS, _build
from planner.execution.launch.systemd import MARK, unit_name, unit_path, unit_text
from tests.cli.command import planner

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
DOCKERFILES = sorted((ROOT / "deploy").glob("*.Dockerfile"))
UNITS = [*sorted((ROOT / "deploy").glob("*.service")), ROOT / "examples/jetsons/planner-agent.service"]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def compose() -> dict[str, dict[str, object]]:
    from ruamel.yaml import YAML

    loaded = YAML(typ="safe").load((ROOT / "deploy/compose.yaml").read_text(encoding="utf-8"))
    return dict(loaded["services"])


def instructions(file: Path) -> Iterator[tuple[str, str]]:
    text = re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", file.read_text(encoding="utf-8"), flags=re.MULTILINE))
    for line in filter(None, map(str.strip, text.splitlines())):
        word, _, rest = line.partition(" ")
        yield word, rest.strip()


def json_words(rest: str) -> list[str]:
    return [str(word) for word in json.loads(rest)]


def check_options(words: list[str]) -> None:
    """Check a command's options, as far as the command is there."""
    name, *options = words
    command: Any = get_command(_build([name]))
    known = {option for parameter in command.commands[name].params for option in parameter.opts}
    assert {word for word in options if word.startswith("--") and word != "--help"} <= known


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: file.name)
def test_a_container_copies_what_there_is_and_installs_extras_that_there_are(file: Path) -> None:
    found = list(instructions(file))
    elsewhere = {"wheels"} | ({"planner"} if "site-packages" in str(package_file) else set())
    for word, rest in found:
        if word == "COPY" and "--from" not in rest:
            for source in rest.split()[:-1]:
                # The user's own wheel is there for a container only, and the package for tests of the checkout.
                assert source in elsewhere or (ROOT / source).exists(), source
    installed = next(rest for word, rest in found if word == "RUN" and "pip install" in rest)
    extras = re.findall(r'"\.\[([a-z,]+)\]"', installed)
    known = set(PROJECT["optional-dependencies"])
    assert {extra for group in extras for extra in group.split(",")} <= known | ({"serve"} - set(COMMANDS))


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: file.name)
def test_a_container_is_no_root_ends_cleanly_and_starts_a_command_that_there_is(file: Path) -> None:
    found = dict(instructions(file))
    assert int(found["USER"]) > 0
    assert found["STOPSIGNAL"] == "SIGTERM"
    program, *words = json_words(found["ENTRYPOINT"])
    assert Path(program).name in PROJECT["scripts"]
    if words[0] in COMMANDS:
        check_options([*words, *json_words(found["CMD"])])


@pytest.mark.slow
def test_what_a_container_copies_is_enough_to_build_the_package(tmp_path: Path) -> None:
    if not (ROOT / "planner").is_dir():
        pytest.skip("these are the tests of an installed wheel")
    copied = {
        tuple(rest.split()[:-1])
        for file in DOCKERFILES
        for word, rest in instructions(file)
        if word == "COPY" and "--from" not in rest and not rest.startswith("wheels")
    }
    for source in {name for names in copied for name in names}:
        place = tmp_path / source
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, place, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / source, place)
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel"]
    built = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    assert list((tmp_path / "dist").glob("*.whl"))


@pytest.mark.slow
def test_the_compose_file_is_valid() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    checked = subprocess.run([*command, str(ROOT / "deploy/compose.yaml")], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout


def test_three_agents_and_the_service_stand_together() -> None:
    services = compose()
    agents = {name: service for name, service in services.items() if service["image"] == "planner-agent"}
    assert len(agents) == 3
    for name, service in services.items():
        build = service["build"]
        assert isinstance(build, dict)
        assert (ROOT / "deploy" / build["context"] / build["dockerfile"]).is_file()
        command = service["command"]
        assert isinstance(command, list)
        if name in agents:
            assert command[command.index("--name") + 1] == name
            check_options(["agent", *map(str, command)])
        for place, word in enumerate(command):
            if word == "--connect":
                assert str(command[place + 1]).partition(":")[0] in services


@pytest.mark.parametrize("file", UNITS, ids=lambda file: file.name)
def test_a_unit_starts_a_command_that_there_is(file: Path) -> None:
    start = next(line for line in file.read_text(encoding="utf-8").splitlines() if line.startswith("ExecStart="))
    program, *words = shlex.split(start.removeprefix("ExecStart="))
    assert Path(program).name in PROJECT["scripts"]
    if words[0] in COMMANDS:
        check_options(words)


# ---- the agent's own unit -------------------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    return tmp_path


OPTIONS = ("agent", "--name", "nano", "--connect", "192.0.2.7:7447", "--connect", "192.0.2.8:7447", "--threads", "2")


def test_a_service_is_written_once_and_removed_again(home: Path) -> None:
    first = planner(*OPTIONS, "--install-service", "user")
    path = unit_path("nano", "user")
    assert path.is_relative_to(home)
    assert first.returncode == 0, first.stderr
    assert str(path) in first.stdout
    written, changed_ns = path.read_text(encoding="utf-8"), path.stat().st_mtime_ns
    words = shlex.split(next(line for line in written.splitlines() if line.startswith("ExecStart=")).partition("=")[2])
    assert words[1:4] == ["-m", "planner", "agent"]
    assert words[4:] == [*OPTIONS[1:7], "--provider", "cpu", *OPTIONS[7:]]
    assert planner(*OPTIONS, "--install-service", "user").returncode == 0
    assert path.stat().st_mtime_ns == changed_ns
    assert planner(*OPTIONS, "--insecure", "--install-service", "user").returncode == 0
    assert "--insecure" in path.read_text(encoding="utf-8")
    for _ in range(2):
        assert planner("agent", "--name", "nano", "--remove-service", "user").returncode == 0
        assert not path.exists()


@pytest.mark.usefixtures("home")
def test_a_service_is_shown_without_being_written() -> None:
    shown = planner(*OPTIONS, "--cert-dir", "certs", "--install-service", "print")
    assert shown.stdout.startswith(MARK)
    assert f"--cert-dir {Path('certs').absolute()}" in shown.stdout
    assert not unit_path("nano", "user").exists()


@pytest.mark.usefixtures("home")
def test_files_and_services_of_others_are_left_alone() -> None:
    path = unit_path("nano", "user")
    path.parent.mkdir(parents=True)
    path.write_text("[Unit]\n", encoding="utf-8")
    for option in ("--install-service", "--remove-service"):
        refused = planner("agent", "--name", "nano", option, "user")
        assert refused.returncode == 2
        assert "was not written by --install-service" in refused.stderr
    assert path.read_text(encoding="utf-8") == "[Unit]\n"
    path.unlink()
    assert planner(*OPTIONS, "--install-service", "user").returncode == 0
    wanted = path.parent / "default.target.wants" / path.name
    wanted.parent.mkdir()
    wanted.symlink_to(path)
    enabled = planner("agent", "--name", "nano", "--remove-service", "user")
    assert enabled.returncode == 2
    assert f"disable --now {unit_name('nano')}" in enabled.stderr
    assert path.exists()


@pytest.mark.parametrize(
    "words",
    [
        ("--install-service", "all"),
        ("--remove-service", "print"),
        ("--install-service", "user", "--remove-service", "user"),
    ],
)
def test_scopes_that_are_none_are_refused(words: tuple[str, ...]) -> None:
    assert planner("agent", "--name", "nano", *words).returncode == 2


def test_words_are_as_systemd_reads_them() -> None:
    text = unit_text("nano", ["/usr/bin/planner", "a b", "50%", "$HOME", 'say "x"', "back\\slash"], "user")
    start = next(line for line in text.splitlines() if line.startswith("ExecStart="))
    assert start == r'ExecStart=/usr/bin/planner "a b" 50%% "$$HOME" "say \"x\"" "back\\slash"'
