"""``planner serve``: run a plan as a service that answers standard protocols."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Final

import typer

from planner.cli.logs import FORMATS, LEVELS, log_to_stderr
from planner.cli.members import (
    CERT_DIR_OPTION,
    HOME_TIMEOUT_OPTION,
    INSECURE_OPTION,
    LATER_OPTION,
    RUN_ON_OPTION,
    SHARE_OPTION,
    TAKE_OVER_OPTION,
    read_share,
)
from planner.cli.names import POLICIES
from planner.cli.output import echo_faults
from planner.cli.quantities import read_option
from planner.errors import UsageError

if TYPE_CHECKING:
    from planner.plan.drift import DriftRules

_LOG = logging.getLogger(__name__)

_SWITCH_S: Final = 0.0002
"""How long a thread computes while another waits for the interpreter; a request passes through several threads."""

_LOOK_S: Final = 0.2
"""Time after which a request to end is seen, at most."""


def command(
    plan: Annotated[Path, typer.Argument(help="Plan file from `planner solve`.")],
    *,
    connect: list[str] | None = RUN_ON_OPTION,
    local: Annotated[
        bool, typer.Option("--local", help="Start an agent for each worker on this machine, as without --connect.")
    ] = False,
    listen: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Address of the HTTP server; port 0 is a free one.")
    ] = "127.0.0.1:8000",
    grpc_listen: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Address of the gRPC server; `off` for none.")
    ] = "127.0.0.1:8001",
    cert_dir: Path | None = CERT_DIR_OPTION,
    insecure: bool = INSECURE_OPTION,
    scenario: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Scenario to use instead of the plan's.")
    ] = None,
    policy: Annotated[str, typer.Option(metavar="NAME", help=f"One of {POLICIES}.")] = "planned",
    limit: Annotated[
        int, typer.Option(min=1, metavar="N", help="Maximum number of requests in flight per source.")
    ] = 32,
    name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Name of the service.", show_default="that of the plan's file"),
    ] = None,
    grace: Annotated[
        str, typer.Option(metavar="TIME", help="Time for requests in flight when the service is told to end.")
    ] = "30 s",
    later: list[str] | None = LATER_OPTION,
    share: str | None = SHARE_OPTION,
    take_over: bool = TAKE_OVER_OPTION,
    home_timeout: str = HOME_TIMEOUT_OPTION,
    log_level: Annotated[
        str, typer.Option(metavar="LEVEL", help=f"Lowest level to log on stderr: {', '.join(LEVELS)}.")
    ] = "info",
    log_format: Annotated[
        str, typer.Option(metavar="FORMAT", help=f"Form of each line of the log: {', '.join(FORMATS)}.")
    ] = FORMATS[0],
    access_log: Annotated[bool, typer.Option("--access-log", help="Log each request.")] = False,
    auto: Annotated[
        bool,
        typer.Option("--auto", help="Make the plan again when rates or workers' speeds differ from the planned ones."),
    ] = False,
    auto_drift: Annotated[
        str | None,
        typer.Option(metavar="PERCENT", help="With --auto: by how much they must differ.", show_default="30 %"),
    ] = None,
    auto_interval: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="With --auto: shortest time between two changes.", show_default="60 s"),
    ] = None,
    apply: Annotated[
        str,
        typer.Option(
            metavar="WHO",
            help="Who may have the service follow another plan by `planner apply`: local (programs on this machine), "
            "anyone (who reaches it, with models in the folder of the plan's scenario), none.",
        ),
    ] = "local",
    tokenizer: Annotated[
        list[str] | None,
        typer.Option(metavar="SOURCE=FILE", help="tokenizer.json of a source that generates. Repeatable."),
    ] = None,
) -> None:
    """Run a plan as a service: the Open Inference Protocol by HTTP and gRPC, metrics, and its state.

    Each source is a model. The service runs until it is interrupted, or asked to end by SIGTERM; it then answers the
    requests in flight, refuses others, and releases the agents. A second time ends it at once.

    Exit code 0: it ended as asked; 1: the run ended, such as by another that took the agents over; 2: invalid input.
    """
    from planner.api.service import Service
    from planner.errors import PlannerError

    log_to_stderr(log_level, log_format)
    if local and connect:
        raise UsageError("where to run is said twice", where="planner serve", expected="--local or --connect")
    sys.setswitchinterval(_SWITCH_S)
    service = Service(
        plan,
        listen=listen,
        grpc_listen=None if grpc_listen == "off" else grpc_listen,
        name=name,
        grace_s=read_option(grace, "time", "--grace"),
        limit=limit,
        access_log=access_log,
        appliers=apply,
        tokenizers=_tokenizers(tokenizer or ()),
        insecure=insecure,
        scenario=scenario,
        connect=connect or (),
        cert_dir=cert_dir,
        policy=policy,
        later=later or (),
        share=read_share(share),
        take_over=take_over,
        home_timeout_s=read_option(home_timeout, "time", "--home-timeout"),
        auto=_drift_rules(auto_drift, auto_interval, auto=auto),
    )
    with _Signals().handled() as signals:
        _LOG.info("starting %s on %s", plan, f"the agents at {', '.join(connect)}" if connect else "this machine")
        with service:
            signals.told = False
            _tell(service.address, service.grpc_address)
            error: PlannerError | None = None
            try:
                while not signals.told and not service.wait(_LOOK_S):
                    pass
            except PlannerError as ended:
                error = ended
            _LOG.info("ending: requests in flight are answered")
    _LOG.info("ended")
    if error is not None:
        echo_faults(error)
        raise typer.Exit(1)


def _drift_rules(drift: str | None, interval: str | None, *, auto: bool) -> DriftRules | None:
    """Return when the plan is made again; None for never."""
    from planner.plan.drift import DriftRules

    if not auto:
        for option, value in (("--auto-drift", drift), ("--auto-interval", interval)):
            if value is not None:
                raise UsageError("nothing to set", where=option, value=value, expected="with --auto")
        return None
    factors = {"drift": 1 + read_option(drift, "fraction", "--auto-drift")} if drift is not None else {}
    times = {"interval_s": read_option(interval, "time", "--auto-interval")} if interval is not None else {}
    return DriftRules(**factors, **times)


def _tokenizers(options: Iterable[str]) -> dict[str, str]:
    files: dict[str, str] = {}
    for option in options:
        name, _, file = option.partition("=")
        if not name or not file:
            raise UsageError("not a source's tokenizer", where="--tokenizer", value=option, expected="SOURCE=FILE")
        files[name] = file
    return files


def _tell(http: str, grpc: str | None) -> None:
    where = f"HTTP at {http}" + (f", gRPC at {grpc}" if grpc is not None else "")
    _LOG.info("serving: %s", where, extra={"http": http, "grpc": grpc})


class _Signals:
    """Ctrl-C and requests to end: an interruption of what cannot be ended in order, else noted for who looks."""

    def __init__(self) -> None:
        self.told: bool | None = None
        """Whether the process was told to end; None while that is to interrupt it."""

    def _handle(self, _signal: int, _frame: FrameType | None) -> None:
        if self.told is False:
            self.told = True
        else:
            raise KeyboardInterrupt

    @contextmanager
    def handled(self) -> Iterator[_Signals]:
        """Handle the signals inside the context."""
        before = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
