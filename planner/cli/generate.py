"""``planner generate``: continue a prompt with the model of a source, on agents."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import planner
from planner.cli.members import (
    CERT_DIR_OPTION,
    INSECURE_OPTION,
    RUN_ON_OPTION,
    SHARE_OPTION,
    TAKE_OVER_OPTION,
    read_share,
)
from planner.cli.output import JSON_OPTION, print_json
from planner.errors import UsageError

if TYPE_CHECKING:
    from planner.execution.session.generation import Generation


def command(
    plan: Annotated[Path, typer.Argument(help="Plan file from `planner solve`.")],
    *,
    source: Annotated[str, typer.Option(metavar="NAME", help="Source whose model generates.")],
    tokens: Annotated[str | None, typer.Option(metavar="LIST", help="Prompt as tokens, such as 5,17,99.")] = None,
    text: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Prompt as text; its bytes are the tokens, without --tokenizer.")
    ] = None,
    tokenizer: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="tokenizer.json of the model, for --text (package `tokenizers`)."),
    ] = None,
    max_new: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Largest number of tokens to generate.", show_default="the scenario's, or 256"
        ),
    ] = None,
    stop: Annotated[
        str | None,
        typer.Option(metavar="LIST", help="Tokens after which it ends.", show_default="the scenario's, or none"),
    ] = None,
    chunk: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Largest number of tokens of the prompt in a run.",
            show_default="the scenario's, or all",
        ),
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            metavar="X",
            help="Draw tokens at this temperature; 0 takes the likeliest.",
            show_default="the scenario's, or 0",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Seed of the drawn tokens.")] = 0,
    stream: Annotated[bool, typer.Option("--stream", help="Print each token as soon as it is known.")] = False,
    connect: list[str] | None = RUN_ON_OPTION,
    cert_dir: Path | None = CERT_DIR_OPTION,
    insecure: bool = INSECURE_OPTION,
    scenario: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Scenario to use instead of the plan's.")
    ] = None,
    share: str | None = SHARE_OPTION,
    take_over: bool = TAKE_OVER_OPTION,
    json: bool = JSON_OPTION,
) -> None:
    """Continue a prompt, token by token, with the model of a source on the workers of its route.

    The state of the model, such as the keys and values of attention, stays on the workers. When it is lost, since a
    worker left, the sequence starts again from its tokens.
    """
    from planner.execution.session.text import BytesCodec, TextCodec, TokenizerCodec

    if (tokens is None) == (text is None):
        raise UsageError("one prompt is needed", expected="--tokens LIST or --text TEXT")
    if tokenizer is not None and text is None:
        raise UsageError("nothing to tokenize", where="--tokenizer", value=str(tokenizer), expected="--text TEXT")
    words: TextCodec = TokenizerCodec(tokenizer, "--tokenizer") if tokenizer is not None else BytesCodec()
    prompt = _numbers(tokens, "--tokens") if tokens is not None else words.encode(text or "")
    ends = None if stop is None else _numbers(stop, "--stop") if stop else []
    session = planner.Session(
        plan,
        scenario=scenario,
        connect=connect or (),
        cert_dir=cert_dir,
        insecure=insecure,
        share=read_share(share),
        take_over=take_over,
    )
    with session:
        generation = session.source(source).generate(
            prompt, max_new=max_new, stop=ends, chunk=chunk, temperature=temperature, seed=seed
        )
        for token in generation:
            if stream and not json:
                sys.stdout.write(f"{token}\n" if text is None else words.decode([token]))
                sys.stdout.flush()
    if json:
        print_json(_as_json(generation))
        return
    if not stream:
        shown = words.decode(generation.tokens) if text is not None else ",".join(map(str, generation.tokens))
        typer.echo(shown)
    elif text is not None:
        typer.echo()
    typer.echo(_summary(generation), err=True)


def _numbers(text: str, option: str) -> list[int]:
    try:
        return [int(word) for word in text.split(",")]
    except ValueError:
        raise UsageError("not a list of tokens", where=option, value=text, expected="numbers such as 5,17") from None


def _as_json(generation: Generation) -> dict[str, object]:
    return {
        "source": generation.source.name,
        "prompt": list(generation.prompt),
        "tokens": generation.tokens,
        "ttft_s": generation.ttft_s,
        "tpot_s": generation.tpot_s,
        "restarts": generation.restarts,
    }


def _summary(generation: Generation) -> str:
    count = len(generation.tokens)
    parts = [f"{count} token{'s' if count > 1 else ''}", f"the first after {(generation.ttft_s or 0.0) * 1e3:.1f} ms"]
    if generation.tpot_s is not None:
        parts.append(f"then {generation.tpot_s * 1e3:.1f} ms each")
    if generation.restarts:
        parts.append(f"started again {generation.restarts} times")
    return ", ".join(parts)
