"""``planner models``: reference models, built offline."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from planner.cli.examples import epilog
from planner.cli.output import JSON_OPTION, print_json, print_table
from planner.cli.places import file_to_write
from planner.errors import UsageError

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="List and build reference models: real architectures with random weights, suited for costs and numerical "
    "checks, not for accuracy.",
)


@app.command("list", epilog=epilog("models", "list"))
def list_models(*, json: bool = JSON_OPTION) -> None:
    """List the reference models."""
    from planner.model.decoders import DECODERS
    from planner.model.reference import REFERENCE
    from planner.runtime.quantise import QUANTISED

    rows: dict[str, dict[str, Any]] = {
        name: {
            "summary": model.summary,
            "input_shape": list(model.input_shape),
            "parameters": model.parameters,
            "macs": model.macs,
        }
        for name, model in REFERENCE.items()
    }
    rows |= {
        name: {**rows[original], "summary": f"{original} in int8 (QDQ), quantised by onnxruntime"}
        for name, original in QUANTISED.items()
    }
    # A decoder takes any number of tokens, on which its work depends.
    rows |= {
        name: {"summary": model.summary, "input_shape": None, "parameters": model.parameters, "macs": None}
        for name, model in DECODERS.items()
    }
    if json:
        print_json({"models": [{"name": name, **row} for name, row in rows.items()]})
    else:
        print_table(
            "Reference models",
            ["name", "description", ">parameters", ">MACs"],
            [
                (
                    name,
                    row["summary"],
                    f"{row['parameters'] / 1e6:.3f} M",
                    "–" if row["macs"] is None else f"{row['macs'] / 1e6:.1f} M",
                )
                for name, row in rows.items()
            ],
        )


@app.command(epilog=epilog("models", "build"))
def build(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name from `planner models list`.")],
    *,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE",
            help="Model file to write.",
            show_default="models/NAME.onnx",
            callback=file_to_write,
        ),
    ] = None,
    json: bool = JSON_OPTION,
) -> None:
    """Build a reference model. Its weights are the same every time."""
    from planner.model.decoders import DECODERS, build_decoder
    from planner.model.reference import REFERENCE, build_model
    from planner.runtime.quantise import QUANTISED, build_quantised

    if name not in (known := [*REFERENCE, *QUANTISED, *DECODERS]):
        raise UsageError("no such reference model", where="NAME", value=name, expected=f"one of {', '.join(known)}")
    path = output or Path("models") / f"{name}.onnx"
    (build_quantised if name in QUANTISED else build_decoder if name in DECODERS else build_model)(name, path)
    if json:
        print_json({"name": name, "file": str(path), "bytes": path.stat().st_size})
    else:
        typer.echo(f"wrote {path} ({path.stat().st_size / 1e6:.1f} MB)")
