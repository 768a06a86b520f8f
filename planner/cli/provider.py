"""Options that choose an execution provider."""

from __future__ import annotations

from collections.abc import Sequence

import typer

PROVIDER_OPTION = typer.Option(
    "--provider",
    metavar="NAME",
    help="Execution provider: cpu, cuda, cuda-fp32, tensorrt, tensorrt-fp16, another one that onnxruntime was built "
    "with, or an installed plug-in onnxruntime-ep-NAME, such as openvino or webgpu.",
)
OPTIONS_OPTION = typer.Option(
    "--provider-option",
    metavar="KEY=VALUE",
    help="Option of the provider; repeatable. `device=GPU` chooses among the devices of a plug-in.",
)


def chosen(provider: str, options: Sequence[str] | None) -> str:
    """Return the name of a provider with its options, for the API.

    Raises
    ------
    RuntimeSessionError
        If an option is none.
    """
    from planner.runtime.providers import with_options

    return with_options(provider, options or ())
