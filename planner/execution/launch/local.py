"""Agents as processes on this machine, which end when the process that started them ends for any reason."""

from __future__ import annotations

import logging
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Final

from planner.errors import ExecuteError
from planner.execution.coordinator.coordinator import Coordinator
from planner.execution.launch.netns import network_namespaces
from planner.execution.launch.scratch import Scratch, scratch_folder
from planner.execution.wire.messages import COORDINATOR
from planner.execution.wire.zenoh import free_port, zenoh_connect
from planner.runtime.processors import available_processors
from planner.scenario.instance import Instance

_LOG = logging.getLogger(__name__)

_PATIENCE_S: Final = 60.0
_LOOK_S: Final = 1.0
"""Interval of the checks for agents that end during the start."""

_GRACE_S: Final = 5.0
"""How long agents may take to leave."""

_GRACE_AFTER_FAILURE_S: Final = 0.5
"""The same after an exception, such as an interruption."""

_PORT: Final = 7447
"""Port of members in namespaces, where no other process listens."""


@contextmanager
def local_agents(names: Sequence[str], cache: Path | None = None, options: Sequence[str] = ()) -> Iterator[Coordinator]:
    """Start one agent process per worker, and return a coordinator that has found them all.

    Parameters
    ----------
    cache
        Folder for block models; by default a temporary one.
    options
        Further options of ``planner agent``.

    Raises
    ------
    ExecuteError
        If an agent does not start; the message quotes its output.
    """
    address = f"127.0.0.1:{free_port()}"
    with (
        _folder(cache) as blocks,
        Coordinator(zenoh_connect(COORDINATOR, listen=address, connect=[])) as coordinator,
        ExitStack() as processes,
    ):

        def start(finder: Coordinator, further: Sequence[str]) -> None:
            commands = {name: [*command, *options] for name, command in _agents(further, address, blocks.path).items()}
            processes.enter_context(_processes(commands, finder, blocks))

        start(coordinator, names)
        coordinator.start_agents = start
        yield coordinator


@contextmanager
def namespaced_agents(instance: Instance, cache: Path | None = None) -> Iterator[Coordinator]:
    """Start one agent process per worker in separate network namespaces, joined as in the scenario.

    The parameters are those of :func:`local_agents`.

    Raises
    ------
    ExecuteError
        If this machine does not support network namespaces, or an agent does not start.
    """
    with network_namespaces(instance) as layout, _folder(cache) as blocks:
        # Insecure, since no other machine can reach the namespaces.
        address = f"{layout.coordinator}:{_PORT}"
        commands = {
            name: [
                *layout.command(name),
                *command,
                *("--listen", f"{layout.addresses[name]}:{_PORT}", "--insecure"),
            ]
            for name, command in _agents(instance.workers, address, blocks.path).items()
        }
        connect = zenoh_connect(COORDINATOR, listen=address, connect=[], insecure=True)
        with Coordinator(connect) as coordinator, _processes(commands, coordinator, blocks):
            yield coordinator


@contextmanager
def _folder(cache: Path | None) -> Iterator[Scratch]:
    if cache is not None:
        yield Scratch(cache)
        return
    with scratch_folder() as scratch:
        yield scratch


def _agents(names: Sequence[str], address: str, cache: Path) -> dict[str, list[str]]:
    """Return the commands that start the agents.

    If there are enough processors, each agent gets its own, as on separate devices. Otherwise the system would run the
    thread that a message wakes near its sender, which may be where another agent computes.
    """
    available = available_processors()
    share = len(available) // len(names)
    commands = {}
    for index, name in enumerate(names):
        processors = available[index * share : (index + 1) * share]
        commands[name] = [
            *(sys.executable, "-m", "planner", "agent", "--name", name, "--connect", address),
            *("--cache", str(cache), "--until-stdin-closes"),
            *(("--processors", ",".join(map(str, processors))) if processors else ()),
        ]
    return commands


@contextmanager
def _processes(commands: Mapping[str, Sequence[str]], coordinator: Coordinator, blocks: Scratch) -> Iterator[None]:
    """Run agents until the context ends.

    The standard input of each agent is a pipe from this process; an agent leaves when the pipe closes, which happens
    even if this process is killed.
    """
    logs = {name: tempfile.TemporaryFile() for name in commands}  # noqa: SIM115 - closed below
    processes: dict[str, subprocess.Popen[bytes]] = {}
    grace_s = _GRACE_AFTER_FAILURE_S
    try:
        for name, command in commands.items():
            processes[name] = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=logs[name],
                stderr=logs[name],
                start_new_session=True,
                pass_fds=blocks.descriptors,
            )
        deadline_s = time.monotonic() + _PATIENCE_S
        while coordinator.absent(commands) and time.monotonic() < deadline_s - _LOOK_S:
            with suppress(ExecuteError):
                coordinator.await_agents(list(commands), _LOOK_S)
            ended = [name for name, process in processes.items() if process.poll() is not None]
            if ended:
                output = "; ".join(f"{name}: {_last_words(logs[name])}" for name in ended)
                raise ExecuteError("an agent ended", where="local agents", value=output)
        coordinator.await_agents(list(commands), deadline_s - time.monotonic())
        yield
        grace_s = _GRACE_S
    finally:
        killed = _stop(processes, grace_s)
        for name, process in processes.items():
            if process.returncode and name not in killed:
                _LOG.warning("agent %s ended with %d: %s", name, process.returncode, _last_words(logs[name]))
        for log in logs.values():
            log.close()


def _last_words(log: IO[bytes]) -> str:
    log.seek(0)
    return log.read().decode(errors="replace").strip()[-500:]


def _stop(processes: Mapping[str, subprocess.Popen[bytes]], grace_s: float) -> set[str]:
    """End agents; return the names of those that did not leave in time and were killed."""
    killed = set()
    for process in processes.values():
        if process.stdin is not None:
            process.stdin.close()
    deadline_s = time.monotonic() + grace_s
    for name, process in processes.items():
        try:
            process.wait(timeout=max(deadline_s - time.monotonic(), 0.1))
        except subprocess.TimeoutExpired:
            killed.add(name)
            process.kill()
            process.wait()
    return killed
