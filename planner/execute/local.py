"""Agents as processes of this machine: started together, and gone when their starter is, however it ends."""

from __future__ import annotations

import logging
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from planner.errors import ExecuteError
from planner.execute.coordinator import Coordinator
from planner.execute.messages import COORDINATOR
from planner.execute.wire import free_port_pair, zenoh_connect

_LOG = logging.getLogger(__name__)

_PATIENCE_S: Final = 60.0
_GRACE_S: Final = 5.0


@contextmanager
def local_agents(names: Sequence[str], cache: Path) -> Iterator[Coordinator]:
    """Start one agent process for each worker and give a coordinator that has found them all.

    Each agent holds the read end of a pipe from here as its standard input, and leaves when that closes: so none is
    left over even when this process is killed.

    Parameters
    ----------
    cache
        Folder for block models.

    Raises
    ------
    ExecuteError
        An agent did not start; says what it printed.
    """
    address = f"127.0.0.1:{free_port_pair()}"
    with Coordinator(zenoh_connect(COORDINATOR, listen=address, connect=[])) as coordinator:
        logs = {name: tempfile.TemporaryFile() for name in names}  # noqa: SIM115 - closed in _stop
        processes: dict[str, subprocess.Popen[bytes]] = {}
        try:
            for name in names:
                command = [sys.executable, "-m", "planner", "agent", "--name", name, "--connect", address]
                command += ["--cache", str(cache), "--until-stdin-closes"]
                processes[name] = subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=logs[name], stderr=logs[name], start_new_session=True
                )
            try:
                coordinator.await_agents(names, _PATIENCE_S)
            except ExecuteError as error:
                said = [
                    f"{name}: {_last_words(log)}" for name, log in logs.items() if processes[name].poll() is not None
                ]
                if said:
                    raise ExecuteError("an agent ended", where="local agents", value="; ".join(said)) from error
                raise
            yield coordinator
        finally:
            _stop(list(processes.values()))
            for name, process in processes.items():
                if process.returncode:
                    _LOG.warning("agent %s ended with %d: %s", name, process.returncode, _last_words(logs[name]))
            for log in logs.values():
                log.close()


def _last_words(log: IO[bytes]) -> str:
    log.seek(0)
    return log.read().decode(errors="replace").strip()[-500:]


def _stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        if process.stdin is not None:
            process.stdin.close()
    deadline_s = time.monotonic() + _GRACE_S
    for process in processes:
        try:
            process.wait(timeout=max(deadline_s - time.monotonic(), 0.1))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
