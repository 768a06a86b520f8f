"""``planner run``: the user's own samples in, their results out."""

from __future__ import annotations

import json as json_library
import queue
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final
from zipfile import ZipFile

import numpy as np
import typer
from numpy.typing import NDArray

from planner.cli.live import RunView
from planner.cli.members import CERT_DIR_OPTION, INSECURE_OPTION
from planner.cli.output import milliseconds, print_table
from planner.errors import UsageError
from planner.files import open_atomic
from planner.trace.metrics import Distribution

FAILURES_SHOWN: Final = 5

if TYPE_CHECKING:
    from planner.execute.samples import Sample
    from planner.execute.session import Result, Source


def command(
    plan: Annotated[Path, typer.Argument(help="Plan file, by `planner solve`.")],
    *,
    source: Annotated[
        list[str],
        typer.Option(
            help="NAME=PLACE: a source's samples. PLACE is a folder of .npy or .npz files, an .npz file of arrays "
            "whose first axis counts the samples, or a command that writes .npy arrays to its standard output."
        ),
    ],
    connect: Annotated[
        list[str] | None,
        typer.Option(help="HOST:PORT of an agent that runs already.", show_default="agents on this machine"),
    ] = None,
    cert_dir: Path | None = CERT_DIR_OPTION,
    insecure: bool = INSECURE_OPTION,
    scenario: Annotated[Path | None, typer.Option(help="Scenario file, instead of the one the plan names.")] = None,
    policy: Annotated[str, typer.Option(help="A policy by name.")] = "planned",
    limit: Annotated[int, typer.Option(min=1, help="Samples of a source that are on their way at once.")] = 4,
    as_they_come: Annotated[
        bool, typer.Option("--as-they-come", help="Give results as they come, not in each source's order.")
    ] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for results: SOURCE/SAMPLE.npz.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one line of JSON a sample on stdout.")] = False,
) -> None:
    """Run a plan on your own samples.

    Samples are taken as fast as they are worked on. With --json and no -o the results themselves are on the lines.

    Exit code 0 when every sample has a result, 1 when some failed, 2 for bad input.
    """
    from planner.execute.samples import read_samples
    from planner.execute.session import Session

    places = read_places(source)
    view = RunView(dict.fromkeys(places))
    session = Session(
        plan,
        scenario=scenario,
        connect=connect or (),
        cert_dir=cert_dir,
        insecure=insecure,
        policy=policy,
        limit=limit,
        observer=view,
    )
    feeds = {session.source(name): place for name, place in places.items()}
    stream = _Stream(
        {feed: read_samples(place, feed.inputs) for feed, place in feeds.items()}, in_order=not as_they_come
    )
    tally = {name: _Tally() for name in places}
    with view, session:
        for outcome in stream.outcomes():
            tally[outcome.source].add(outcome)
            result = outcome.result
            file = _write(output, outcome, result) if output is not None and result is not None else None
            if json:
                _print_line(outcome, file)
    if not json:
        _print_tally(tally)
    if any(own.failures for own in tally.values()):
        raise typer.Exit(1)


def read_places(options: Iterable[str]) -> dict[str, str]:
    """Read ``NAME=PLACE`` options.

    Raises
    ------
    UsageError
        One has no name or no place, or names a source again.
    """
    places: dict[str, str] = {}
    for option in options:
        name, _, place = option.partition("=")
        if not name or not place:
            raise UsageError("not a source's samples", where="--source", value=option, expected="NAME=PLACE")
        if name in places:
            raise UsageError("a source is named twice", where="--source", value=name)
        places[name] = place
    return places


@dataclass(frozen=True)
class _Outcome:
    """A sample that ended: with a result, or without."""

    source: str
    place: int
    name: str
    future: Future[Result]

    @property
    def result(self) -> Result | None:
        return None if self.future.exception() else self.future.result()

    @property
    def reason(self) -> str:
        return str(self.future.exception() or "")


@dataclass(frozen=True)
class _End:
    """A source has no more samples than ``count``, or cannot go on."""

    source: str
    count: int
    error: BaseException | None


class _Stream:
    """Feeds the sources, each from a thread of its own, and gives what becomes of their samples.

    A sample keeps its slot until the caller comes for the next outcome, so that memory stays bounded however slow the
    caller is.
    """

    def __init__(self, feeds: Mapping[Source, Iterator[Sample]], *, in_order: bool) -> None:
        self._feeds = feeds
        self._in_order = in_order
        self._slots = {source.name: threading.Semaphore(2 * source.limit) for source in feeds}
        self._given = dict.fromkeys(self._slots, 0)
        self._held: dict[tuple[str, int], _Outcome] = {}
        self._items: queue.SimpleQueue[_Outcome | _End] = queue.SimpleQueue()

    def outcomes(self) -> Iterator[_Outcome]:
        """Submit all samples and give what becomes of each; raises what keeps a source from going on."""
        counts = dict.fromkeys(self._given, inf)
        for source, samples in self._feeds.items():
            threading.Thread(target=self._feed, args=(source, samples), daemon=True).start()
        while any(self._given[source] < count for source, count in counts.items()):
            item = self._items.get()
            if isinstance(item, _Outcome):
                for outcome in self._ready(item):
                    yield outcome
                    self._given[item.source] += 1
                    self._slots[item.source].release()
            elif item.error is not None:
                raise item.error
            else:
                counts[item.source] = item.count

    def _ready(self, item: _Outcome) -> Iterator[_Outcome]:
        """Give the outcomes whose turn it is."""
        if not self._in_order:
            yield item
            return
        self._held[item.source, item.place] = item
        while (following := self._held.pop((item.source, self._given[item.source]), None)) is not None:
            yield following

    def _feed(self, source: Source, samples: Iterator[Sample]) -> None:
        count, error = 0, None
        try:
            for place, sample in enumerate(samples):
                self._slots[source.name].acquire()
                future = source.submit(sample.inputs)
                future.add_done_callback(partial(self._on_done, source.name, place, sample.name))
                count += 1
        except BaseException as caught:  # noqa: BLE001 - the caller of outcomes raises it
            error = caught
        self._items.put(_End(source.name, count, error))

    def _on_done(self, source: str, place: int, name: str, future: Future[Result]) -> None:
        self._items.put(_Outcome(source, place, name, future))


def _write(folder: Path, outcome: _Outcome, result: Result) -> Path:
    path = folder / outcome.source / f"{outcome.name}.npz"
    with open_atomic(path) as file, ZipFile(file, "w") as archive:
        for name, array in result.outputs.items():
            with archive.open(f"{name}.npy", "w") as member:
                np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)
    return path


def _print_line(outcome: _Outcome, file: Path | None) -> None:
    line: dict[str, Any] = {"source": outcome.source, "sample": outcome.place, "name": outcome.name}
    result = outcome.result
    if result is None:
        line["error"] = outcome.reason
    else:
        line["delay_s"] = result.delay_s
        if file is None:
            line["outputs"] = {name: _numbers(array) for name, array in result.outputs.items()}
        else:
            line["file"] = str(file)
    sys.stdout.write(json_library.dumps(line, allow_nan=False) + "\n")
    sys.stdout.flush()


def _numbers(array: NDArray[Any]) -> Any:
    """Give nested lists; JSON has null in place of numbers that are not finite."""
    if array.dtype.kind != "f" or np.isfinite(array).all():
        return array.tolist()
    numbers = array.astype(object)
    numbers[~np.isfinite(array)] = None
    return numbers.tolist()


class _Tally:
    """What became of one source's samples."""

    def __init__(self) -> None:
        self.delays = Distribution()
        self.failures: list[str] = []

    def add(self, outcome: _Outcome) -> None:
        result = outcome.result
        if result is None:
            self.failures.append(outcome.reason)
        else:
            self.delays.add(result.delay_s)


def _print_tally(tally: Mapping[str, _Tally]) -> None:
    rows = []
    for name, own in tally.items():
        p95_s = own.delays.percentiles((95,))[0] if own.delays.count else None
        mean_s = own.delays.mean if own.delays.count else None
        rows.append((name, own.delays.count, len(own.failures), milliseconds(mean_s), milliseconds(p95_s)))
    print_table("Samples", ("source", ">completed", ">failed", ">mean delay", ">95 %"), rows)
    for own in tally.values():
        for reason in own.failures[:FAILURES_SHOWN]:
            typer.echo(reason)
