"""A coordinator's claims to agents, which it holds alone or in part (:mod:`planner.execution.agent.hold`)."""

from __future__ import annotations

import functools
import os
import shlex
import socket
import sys
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from planner.errors import ExecuteError, Fault
from planner.execution.wire.diagnostics import Holder, Holding
from planner.execution.wire.messages import Body, Claim, Claimed, Held, Taken

_COMMAND_CHARACTERS: Final = 80
"""Maximum length of a command line that is sent; a message has room for it, the host, the process and the run."""


class TakenOverError(ExecuteError):
    """Another coordinator has taken over an agent of the run."""


@functools.cache
def this_process() -> Holder:
    """Return what agents tell others about this process while it holds them."""
    program = Path(sys.argv[0])
    name = program.parent.name if program.name == "__main__.py" else program.name
    words = [name or "python", *sys.argv[1:]]
    return Holder(host=socket.gethostname(), process=os.getpid(), command=shlex.join(words)[:_COMMAND_CHARACTERS])


class Claims:
    """The agents that a coordinator holds, from one run to the next.

    Parameters
    ----------
    send
        ``send(worker, body)`` sends a message to an agent.
    share
        The share of each agent that is enough; None to hold agents alone.
    take_over
        Whether to take agents from other coordinators. An agent that was lost to another coordinator is not taken back.
    """

    def __init__(
        self, send: Callable[[str, Body], None], *, share: float | None = None, take_over: bool = False
    ) -> None:
        self._send = send
        self._share = share
        self._take_over = take_over
        self._run = ""
        self._owned: set[str] = set()
        """Agents that have granted a claim, which may be lost since."""
        self._waiting: set[str] = set()
        self._held: dict[str, Held] = {}

    def another(self) -> Claims:
        """Return the claims of a run beside this one, by the same coordinator."""
        other = Claims(self._send, share=self._share, take_over=self._take_over)
        other._owned = self._owned
        return other

    def begin(self, run: str) -> None:
        """Claim agents for another run from now on."""
        self._run = run
        self._waiting.clear()
        self._held.clear()

    def ask(self, worker: str) -> None:
        """Claim an agent; its answer is passed to :meth:`on_claimed` or :meth:`on_held`."""
        self._waiting.add(worker)
        take_over = self._take_over and worker not in self._owned
        self._send(worker, Claim(run=self._run, holder=this_process(), share=self._share, take_over=take_over))

    @property
    def waiting(self) -> list[str]:
        """Agents that have not answered."""
        return sorted(self._waiting)

    def on_claimed(self, claimed: Claimed) -> bool:
        """Record that an agent is held by this coordinator; return whether it was claimed for this run."""
        if claimed.run != self._run or claimed.worker not in self._waiting:
            return False
        self._waiting.discard(claimed.worker)
        self._owned.add(claimed.worker)
        return True

    def on_held(self, held: Held) -> bool:
        """Record that an agent is held by another coordinator; return whether it was claimed for this run.

        Raises
        ------
        TakenOverError
            If it had granted a claim before.
        """
        if held.run != self._run or held.worker not in self._waiting:
            return False
        self._waiting.discard(held.worker)
        if held.worker in self._owned:
            raise _taken_over(held.worker, held.holdings[-1].holder)
        self._held[held.worker] = held
        return True

    def on_taken(self, taken: Taken) -> None:
        """Raise :class:`TakenOverError` if an agent of this run is taken over: the run cannot go on."""
        if taken.run == self._run and taken.worker in self._owned:
            raise _taken_over(taken.worker, taken.by)

    def refuse_held(self) -> None:
        """Refuse agents that other coordinators hold.

        Raises
        ------
        ExecuteError
            Names them, with who holds them and since when.
        """
        if self._held:
            raise held_error(self._held, self._share)


def describe_holding(holding: Holding) -> str:
    """Return who holds an agent, what share, and since when."""
    since = datetime.now().astimezone() - timedelta(seconds=holding.held_s)
    share = f"{holding.share * 100:g} % for " if holding.share is not None else ""
    what = f"{share}{holding.holder}, run {holding.run[:8]}"
    return f"{what}, since {since:%Y-%m-%d %H:%M:%S} ({holding.held_s:.0f} s)"


def held_error(held: Mapping[str, Held], share: float | None = None) -> ExecuteError:
    """Return the error that other coordinators hold some agents; one fault for those that the same ones hold.

    Parameters
    ----------
    share
        What was asked for; None for whole agents.
    """
    by_holders: dict[tuple[tuple[Holder, str], ...], list[str]] = {}
    for worker, answer in sorted(held.items()):
        holders = tuple((holding.holder, holding.run) for holding in answer.holdings)
        by_holders.setdefault(holders, []).append(worker)
    faults = []
    for workers in by_holders.values():
        holdings = held[workers[0]].holdings
        what, way = "held by another run", "wait for its end"
        if share is not None and all(holding.share is not None for holding in holdings):
            free = max(0.0, 1 - sum(holding.share or 0.0 for holding in holdings))
            what = f"{free * 100:.3g} % is left, and --share asks for {share * 100:g} %"
            way = "a smaller --share"
        elif share is not None:
            what = "held by a run that does not share, having no --share"
        expected = f"agents that no run holds: {way}, or say --take-over (take_over=True) to end it"
        faults.append(Fault(what, _named(workers), "; ".join(map(describe_holding, holdings)), expected))
    return ExecuteError(faults)


def _taken_over(worker: str, by: Holder) -> TakenOverError:
    return TakenOverError("taken over by another run, so this run ends", where=_named([worker]), value=str(by))


def _named(workers: Iterable[str]) -> str:
    names = list(workers)
    return f"{'worker' if len(names) == 1 else 'workers'} {', '.join(names)}"
