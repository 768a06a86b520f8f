"""The ``planner`` command: one file a command, each parses its options, calls the library and prints.

A command's file holds the function ``command``, or a Typer ``app`` where the command has commands of its own. Only the
file of the command that was asked for is imported, so that an agent starts at once and loads no solver.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

import typer

from planner.errors import Fault, PlannerError

# In the order of the work: data flows model -> profile -> scenario -> plan -> simulate | execute -> report.
COMMANDS = (
    "demo",
    "models",
    "inspect",
    "split",
    "profile",
    "solve",
    "compare",
    "frontier",
    "simulate",
    "validate",
    "run",
    "certs",
    "agent",
    "status",
    "probe",
)

# Which extra of the distribution brings a library that a command may miss.
EXTRAS = {"onnxruntime": "cpu", "onnx": "model", "matplotlib": "report", "cryptography": "certs"} | dict.fromkeys(
    ("pyomo", "highspy", "cvxpy", "networkx", "pint", "ruamel"), "plan"
)


def _build(words: Sequence[str]) -> typer.Typer:
    app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)

    @app.callback()
    def root(
        debug: bool = typer.Option(False, "--debug", help="Show the traceback of an error."),
    ) -> None:
        """Plan, simulate and run priority-aware model-distributed inference at the edge."""

    asked = next((word for word in words if not word.startswith("-")), None)
    for name in [asked] if asked in COMMANDS else COMMANDS:
        module = importlib.import_module(f"planner.cli.{name}")
        if hasattr(module, "app"):
            app.add_typer(module.app, name=name)
        else:
            app.command(name)(module.command)
    return app


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; bad input ends with one message on stderr and exit code 2."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        _build(words)(args=words, prog_name="planner")
    except (PlannerError, ModuleNotFoundError) as error:
        if "--debug" in words or (faults := _faults(error)) is None:
            raise
        for fault in faults:
            typer.echo(f"planner: error: {fault}", err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        typer.echo("planner: interrupted", err=True)
        sys.exit(130)


def _faults(error: PlannerError | ModuleNotFoundError) -> tuple[Fault, ...] | None:
    """Give what a user can mend; None for a module that no extra brings, which is a fault of ours."""
    if isinstance(error, PlannerError):
        return error.faults
    library = (error.name or "").partition(".")[0]
    if library not in EXTRAS:
        return None
    return (Fault(f"this needs {library}", expected=f'`pip install "mdi-planner[{EXTRAS[library]}]"`'),)
