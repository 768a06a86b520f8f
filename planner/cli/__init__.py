"""The ``planner`` command: one module per command, which parses options, calls the library and prints results.

A command's module defines the function ``command``, or a Typer ``app`` if the command has sub-commands. Only the module
of the requested command is imported, so that an agent starts fast and loads no solver.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any, Final, NoReturn, TextIO

import typer
from typer.core import TyperGroup

from planner.cli.examples import epilog
from planner.errors import Fault, PlannerError, PlannerWarning
from planner.version import installation

# In the order of a typical workflow: data flows model -> profile -> scenario -> plan -> simulate | execute -> report.
COMMANDS: Final = {
    "demo": "Profile, plan, simulate and run an example on this machine.",
    "new": "Write a scenario to start from.",
    "models": "List and build reference models.",
    "inspect": "Show the blocks and cut points of a model.",
    "split": "Split a model into stage models.",
    "profile": "Determine what each block of a model costs on a device.",
    "probe-device": "Time small models on this device, to fit estimates to it.",
    "convert": "Make a scenario of another project's files.",
    "solve": "Find which worker runs which blocks for which source.",
    "size": "Find the cheapest devices that a scenario needs.",
    "diff": "Show how one plan differs from another.",
    "export": "Write a plan into a model, or as another project's schedule.",
    "compare": "Solve a scenario with all methods and baselines.",
    "pareto": "Find the trade-off between delay and accuracy.",
    "simulate": "Simulate a scenario in virtual time.",
    "validate": "Run a plan on real agents and compare with its prediction.",
    "run": "Run a plan on your own samples.",
    "generate": "Continue a prompt, token by token, on a plan's workers.",
    "apply": "Have a running service follow another plan.",
    "report": "Show plans and runs as one HTML page.",
    "serve": "Run a plan as a service that answers standard protocols.",
    "certs": "Create certificates for workers and coordinator.",
    "agent": "Run the worker agent on this device.",
    "status": "Show the state of running agents.",
    "probe": "Measure the network between running agents.",
    "schema": "Print the JSON Schema of a kind of file.",
}

INTERRUPTED: Final = 130
"""Exit code after Ctrl-C, by the convention of shells."""

# The extra of the distribution that installs a library.
EXTRAS = (
    {"onnxruntime": "cpu", "onnx": "model", "matplotlib": "report", "cryptography": "certs"}
    | dict.fromkeys(("pyomo", "highspy", "cvxpy", "joblib", "pint", "ruamel"), "plan")
    | dict.fromkeys(("starlette", "uvicorn", "uvloop", "grpc", "prometheus_client", "jinja2"), "serve")
)

# What a command needs, so that all that is missing is told at once. Those that are absent need no extra.
NEEDS = {
    **dict.fromkeys(
        ("new", "schema", "solve", "size", "compare", "pareto", "simulate", "convert", "diff", "apply"), ("plan",)
    ),
    **dict.fromkeys(("models", "inspect"), ("model",)),
    **dict.fromkeys(("split", "profile", "probe-device"), ("model", "cpu")),
    "export": ("plan", "model"),
    **dict.fromkeys(("run", "generate"), ("plan", "model", "cpu")),
    "report": ("plan",),
    "serve": ("plan", "model", "cpu", "serve"),
    **dict.fromkeys(("demo", "validate"), ("plan", "model", "cpu", "report")),
    "certs": ("certs",),
    "agent": ("cpu",),
}


class _Commands(TyperGroup):
    """Lists commands in the order of :data:`COMMANDS`."""

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(super().list_commands(ctx), key=list(COMMANDS).index)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:  # for which Typer prints nothing
            _print_interrupted()
            raise typer.Exit(INTERRUPTED) from None


def _build(words: Sequence[str]) -> typer.Typer:
    app = typer.Typer(
        cls=_Commands,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    @app.callback()
    def root(
        version: bool = typer.Option(False, "--version", help="Print the version and exit.", callback=_print_version),
        debug: bool = typer.Option(False, "--debug", help="Show tracebacks of errors."),
    ) -> None:
        """Plan, simulate and run priority-aware model-distributed inference at the edge.

        Commands are listed in the order of a typical workflow. `planner COMMAND --help` shows the options of a command
        and examples. With --json, commands print only JSON on stdout.

        Exit codes: 0: success; 1: no plan was found, or a check failed; 2: invalid input, one message per error;
        130: interrupted.
        """

    requested = _requested(words)
    for name in [requested] if requested is not None else COMMANDS:
        module = importlib.import_module(f"planner.cli.{name.replace('-', '_')}")
        if hasattr(module, "app"):
            app.add_typer(module.app, name=name, short_help=COMMANDS[name], epilog=epilog(name))
        else:
            app.command(name, short_help=COMMANDS[name], epilog=epilog(name))(module.command)
    return app


def _requested(words: Sequence[str]) -> str | None:
    """Return the command that a command line names; None if there is no such command.

    A shell that asks for completions tells the command line in the environment.
    """
    typed = os.environ.get("COMP_WORDS") or os.environ.get("_TYPER_COMPLETE_ARGS")
    if "_PLANNER_COMPLETE" in os.environ and typed:
        words = typed.split()[1:]
    first = next((word for word in words if not word.startswith("-")), None)
    return first if first in COMMANDS else None


def _print_version(requested: bool) -> None:
    if requested:
        from planner.version import installed_version

        typer.echo(f"planner {installed_version('mdi-planner')}")
        raise typer.Exit


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; on invalid input, print one message per error on stderr and exit with code 2."""
    try:
        _run(list(sys.argv[1:] if arguments is None else arguments))
    except SystemExit as end:
        solvers = sys.modules.get("planner.solvers.core.deadline")
        if arguments is None and solvers is not None and solvers.runs_left_behind():
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(end.code if isinstance(end.code, int) else 0)  # its library would keep the process for seconds
        raise


def _run(words: Sequence[str]) -> NoReturn:
    other = warnings.showwarning

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if issubclass(category, PlannerWarning):
            typer.echo(f"planner: warning: {message}", err=True)
        else:
            other(message, category, filename, lineno, file, line)

    with warnings.catch_warnings():
        warnings.showwarning = show
        _run_command(words)


def _run_command(words: Sequence[str]) -> NoReturn:
    try:
        sys.exit(_build(words)(args=words, prog_name="planner", standalone_mode=False))
    except typer.TyperException as error:
        text = str(error)  # the help, if a command with sub-commands is called without one
        typer.echo(text if text.startswith("Usage: ") else f"planner: error: {_usage_fault(error, words)}", err=True)
        sys.exit(2)
    except (PlannerError, ModuleNotFoundError, OSError) as error:
        if "--debug" in words or (faults := _faults(error, _requested(words))) is None:
            raise
        for line in PlannerError(faults).lines():
            typer.echo(f"planner: error: {line}", err=True)
        sys.exit(2)
    except (KeyboardInterrupt, typer.Abort):  # while the command's libraries are imported
        _print_interrupted()
        sys.exit(INTERRUPTED)


def _print_interrupted() -> None:
    typer.echo("planner: interrupted", err=True)


def _faults(error: PlannerError | ModuleNotFoundError | OSError, command: str | None) -> tuple[Fault, ...] | None:
    """Return what the user can fix; None if the error is a defect of planner, such as an unknown missing module."""
    if isinstance(error, PlannerError):
        return error.faults
    if isinstance(error, OSError):
        what = error.strerror or type(error).__name__
        return None if error.filename is None else (Fault(_lowered(what), where=str(error.filename)),)
    library = (error.name or "").partition(".")[0]
    if library not in EXTRAS:
        return None
    missing = {EXTRAS[library], *(extra for extra in NEEDS.get(command or "", ()) if not _complete(extra))}
    return (Fault(f"this command requires {library}", expected=installation(*sorted(missing))),)


def _complete(extra: str) -> bool:
    """Return whether all libraries of an extra are installed."""
    libraries = [library for library, needed in EXTRAS.items() if needed == extra]
    return all(sys.modules.get(library) or importlib.util.find_spec(library) for library in libraries)


def _usage_fault(error: Any, words: Sequence[str]) -> Fault:
    """Return an error of Typer in the form of all other errors."""
    what, _, expected = _lowered(error.format_message().rstrip(".")).partition(": Input should be ")
    # Newer versions of Typer parse values with pydantic, whose errors hold the value.
    details: list[Any] = getattr(error.__cause__, "errors", list)()
    # Typer does not tell which command lacks the value of an option.
    where = error.ctx.command_path if error.ctx else " ".join(["planner", *filter(None, [_requested(words)])])
    if not expected and not what.endswith(("?", ")")):  # which end a suggestion
        if what.startswith("no such command "):
            expected = f"one of {', '.join(error.ctx.command.list_commands(error.ctx))}"
        else:
            expected = f"the usage shown by `{where} -h`"
    return Fault(what, where, details[0]["input"] if details else None, expected)


def _lowered(what: str) -> str:
    return what[:1].lower() + what[1:]
