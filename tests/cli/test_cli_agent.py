"""What ``planner agent`` tells on stderr."""

from __future__ import annotations

import dataclasses
import json
import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import pytest

from planner.cli.logs import log_to_stderr
from planner.errors import ExecuteError, UsageError
from planner.execution.coordinator.coordinator import Coordinator
from planner.execution.wire.messages import COORDINATOR
from planner.execution.wire.zenoh import free_port, zenoh_connect
from tests.cli.command import planner
from tests.execution.rig import SPLIT, small_deployment, small_instance

LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d (debug|info|warning|error) +(.*)")


def told(folder: Path, *options: str) -> list[str]:
    """Give what agent ``a`` tells of a run that goes well, and of one by a policy that it does not know."""
    address = f"127.0.0.1:{free_port()}"
    deployment = small_deployment(small_instance(samples=3), SPLIT)
    agents = []
    try:
        with Coordinator(zenoh_connect(COORDINATOR, listen=address, connect=[])) as coordinator:
            for name in deployment.instance.workers:
                command = [sys.executable, "-m", "planner", "agent", "--name", name, "--connect", address, *options]
                command += ["--cache", str(folder / name), "--until-stdin-closes"]
                agents.append(subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
            coordinator.await_agents(deployment.instance.workers, 60.0)
            assert len(coordinator.run(deployment, ready_timeout_s=60.0).outputs) == 6
            with pytest.raises(ExecuteError, match="unknown policy"):
                coordinator.run(dataclasses.replace(deployment, policy="best"), ready_timeout_s=60.0)
            said = [agent.communicate(timeout=30.0)[1] for agent in agents]
    finally:
        for agent in agents:
            agent.kill()
            agent.communicate()
    assert [agent.returncode for agent in agents] == [0, 0, 0]
    return said[0].splitlines()


def matched(lines: list[str]) -> list[tuple[str, str]]:
    found = [LINE.fullmatch(line) for line in lines]
    return [(match[1], match[2]) for match in found if match]


def test_each_event_is_a_line_with_time_and_level(tmp_path: Path) -> None:
    lines = told(tmp_path, "--log-level", "info")
    events = matched(lines)
    assert len(events) == len(lines)
    text = "\n".join(f"{level}: {re.sub('[0-9a-f]{32}', 'RUN', event)}" for level, event in events)
    last = 0
    for event in (
        "info: a: started",
        "info: a: a coordinator is present",
        "info: a: held by ",
        "info: a: run RUN is deployed with policy planned",
        "info: a: ready for run RUN",
        "info: a: run RUN starts",
        "info: a: run RUN has ended",
        "info: a: run RUN is deployed with policy best",
        "warning: a: the run fails: ",
        "info: a: left",
    ):
        assert event in text[last:], text
        last = text.index(event, last)
    assert "unknown policy" in text
    assert "b is present" in text


def test_an_agent_that_was_started_by_another_command_speaks_of_trouble_only(tmp_path: Path) -> None:
    lines = told(tmp_path)
    ((level, event),) = matched(lines)
    assert len(lines) == 1
    assert level == "warning"
    assert event.startswith("a: the run fails: ")
    assert "unknown policy" in event


def test_debug_tells_where_an_exception_comes_from(tmp_path: Path) -> None:
    lines = told(tmp_path, "--log-level", "debug")
    place = lines.index("Traceback (most recent call last):")
    assert matched(lines[place - 1 : place])[0][1].startswith("a: the run fails: ")


def test_a_level_that_is_none_is_bad_input() -> None:
    ended = planner("agent", "--name", "a", "--log-level", "loud")
    assert ended.returncode == 2
    expected = "planner: error: --log-level: no such level; found 'loud'; expected debug | info | warning | error\n"
    assert ended.stderr == expected


@contextmanager
def logging_to_stderr(form: str) -> Iterator[logging.Logger]:
    root, own = logging.getLogger(), logging.getLogger("planner")
    before, level, own_level = list(root.handlers), root.level, own.level
    try:
        for handler in before:  # those of pytest are closed otherwise
            root.removeHandler(handler)
        log_to_stderr("info", form)
        yield logging.getLogger("planner.execution.agent.agent")
    finally:
        root.handlers[:] = before
        root.setLevel(level)
        own.setLevel(own_level)


def test_no_message_makes_up_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    with logging_to_stderr("text") as logger:
        logger.info("refused: %s", "x\n2026-01-01 info all is well\x1b[2J é")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith(r"info    refused: x\n2026-01-01 info all is well\x1b[2J é")


def test_each_line_of_a_log_in_json_is_an_event(capsys: pytest.CaptureFixture[str]) -> None:
    with logging_to_stderr("json") as logger:
        logger.info("refused: %s", "x\n{} é", extra={"worker": "a"})
        try:
            raise ValueError("of no use")
        except ValueError:
            logger.exception("it failed")
    first, second = map(json.loads, capsys.readouterr().err.splitlines())
    assert (first["level"], first["message"], first["worker"]) == ("info", "refused: x\n{} é", "a")
    assert (second["level"], second["message"], second["error"]) == ("error", "it failed", "ValueError: of no use")
    assert datetime.fromisoformat(first["time"]) <= datetime.fromisoformat(second["time"])


def test_a_form_of_logs_that_is_none_is_bad_input() -> None:
    with pytest.raises(UsageError, match=r"--log-format: no such form; found 'xml'; expected text \| json"):
        log_to_stderr("info", "xml")
