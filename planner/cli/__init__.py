"""The ``planner`` command: one file a command, each parses its options, calls the library and prints.

A command's file holds the function ``command``, or a Typer ``app`` where the command has commands of its own. Only the
file of the command that was asked for is imported, so that an agent starts at once and loads no solver.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import Any, Final

import typer
from typer.core import TyperGroup

from planner.cli.examples import epilog
from planner.errors import Fault, PlannerError

# In the order of the work: data flows model -> profile -> scenario -> plan -> simulate | execute -> report.
COMMANDS: Final = {
    "demo": "Do all of it, end to end, on this machine.",
    "models": "Build reference models.",
    "inspect": "Show the blocks and cut points of a model.",
    "split": "Split a model into stage models.",
    "profile": "Find what each block of a model costs on a device.",
    "solve": "Find which worker runs which blocks for which source.",
    "compare": "Solve a scenario by every method and by the baselines.",
    "pareto": "Find the trade-off between delay and accuracy.",
    "simulate": "Run a scenario in virtual time.",
    "validate": "Run a plan for real, and compare with its prediction.",
    "run": "Run a plan on your own samples.",
    "certs": "Make certificates for workers and coordinator.",
    "agent": "Be one worker, on a device.",
    "status": "Ask running agents what they are and do.",
    "probe": "Measure the network between running agents.",
}

INTERRUPTED: Final = 130
"""Exit code after an interrupt from the keyboard, as shells have it."""

# Which extra of the distribution brings a library that a command may miss.
EXTRAS = {"onnxruntime": "cpu", "onnx": "model", "matplotlib": "report", "cryptography": "certs"} | dict.fromkeys(
    ("pyomo", "highspy", "cvxpy", "networkx", "pint", "ruamel"), "plan"
)

# What Typer raises for a command line that it cannot read; which library it has this from hangs on its version.
_USAGE: type[Exception] = typer.BadParameter.__mro__[1]


class _Commands(TyperGroup):
    """Lists commands, and those that have commands of their own, in the order of :data:`COMMANDS`."""

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(super().list_commands(ctx), key=list(COMMANDS).index)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:  # of which Typer would say nothing
            _say_interrupted()
            raise typer.Exit(INTERRUPTED) from None


def _build(words: Sequence[str]) -> typer.Typer:
    app = typer.Typer(
        cls=_Commands,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    @app.callback()
    def root(
        version: bool = typer.Option(False, "--version", help="Print the version, and end.", callback=_print_version),
        debug: bool = typer.Option(False, "--debug", help="Show the traceback of an error."),
    ) -> None:
        """Plan, simulate and run priority-aware model-distributed inference at the edge.

        The commands stand in the order of the work; `planner COMMAND --help` has the options of one, and examples.
        With --json they print JSON alone on stdout.

        Exit code 0: done and passed; 1: it ran, but the answer is no; 2: bad input, said in one message a fault.
        """

    asked = _asked(words)
    for name in [asked] if asked is not None else COMMANDS:
        module = importlib.import_module(f"planner.cli.{name}")
        if hasattr(module, "app"):
            app.add_typer(module.app, name=name, short_help=COMMANDS[name], epilog=epilog(name))
        else:
            app.command(name, short_help=COMMANDS[name], epilog=epilog(name))(module.command)
    return app


def _asked(words: Sequence[str]) -> str | None:
    """Give the command that a command line asks for, if it is one."""
    first = next((word for word in words if not word.startswith("-")), None)
    return first if first in COMMANDS else None


def _print_version(wanted: bool) -> None:
    if wanted:
        from planner.version import installed_version

        typer.echo(f"planner {installed_version('mdi-planner')}")
        raise typer.Exit


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; bad input ends with one message on stderr and exit code 2."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        sys.exit(_build(words)(args=words, prog_name="planner", standalone_mode=False))
    except _USAGE as error:
        told = str(error)  # the whole help where a command of commands stands alone
        typer.echo(told if told.startswith("Usage: ") else f"planner: error: {_usage_fault(error, words)}", err=True)
        sys.exit(2)
    except (PlannerError, ModuleNotFoundError, OSError) as error:
        if "--debug" in words or (faults := _faults(error)) is None:
            raise
        for fault in faults:
            typer.echo(f"planner: error: {fault}", err=True)
        sys.exit(2)
    except (KeyboardInterrupt, typer.Abort):  # while the command's libraries were imported
        _say_interrupted()
        sys.exit(INTERRUPTED)


def _say_interrupted() -> None:
    typer.echo("planner: interrupted", err=True)


def _faults(error: PlannerError | ModuleNotFoundError | OSError) -> tuple[Fault, ...] | None:
    """Give what a user can mend; None for a module that no extra brings, or no file's error: a fault of ours."""
    if isinstance(error, PlannerError):
        return error.faults
    if isinstance(error, OSError):
        what = error.strerror or type(error).__name__
        return None if error.filename is None else (Fault(_lowered(what), where=str(error.filename)),)
    library = (error.name or "").partition(".")[0]
    if library not in EXTRAS:
        return None
    return (Fault(f"this needs {library}", expected=f'`pip install "mdi-planner[{EXTRAS[library]}]"`'),)


def _usage_fault(error: Any, words: Sequence[str]) -> Fault:
    """Say what Typer says of a command line in the form of all other faults."""
    what, _, expected = _lowered(error.format_message().rstrip(".")).partition(": Input should be ")
    # Newer versions of Typer read values by pydantic, whose error knows what it found.
    found: list[Any] = getattr(error.__cause__, "errors", list)()
    # Typer does not say where an option lacks its value.
    where = error.ctx.command_path if error.ctx else " ".join(["planner", *filter(None, [_asked(words)])])
    if not expected and not what.endswith(("?", ")")):  # which says itself what may have been meant
        expected = f"what `{where} -h` tells"
    return Fault(what, where, found[0]["input"] if found else None, expected)


def _lowered(what: str) -> str:
    return what[:1].lower() + what[1:]
