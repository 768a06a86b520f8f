"""Many samples through a session: each source from a thread of its own, and what becomes of every sample by name."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from math import inf

from planner.errors import PlannerError
from planner.execution.session.samples import Sample
from planner.execution.session.session import AbsentError, Result, SampleError, SourceHandle


@dataclass(frozen=True)
class SampleOutcome:
    """A sample that ended: with a result, or without.

    Parameters
    ----------
    number
        Its place among the samples that its source is fed with, from 0.
    name
        The file it came from, or its number.
    """

    source: str
    number: int
    name: str
    future: Future[Result]

    @property
    def result(self) -> Result | None:
        """What the source's model gave; None for a sample that failed."""
        return None if self.future.exception() else self.future.result()

    @property
    def reason(self) -> str:
        """Why there is no result; empty where there is one."""
        error = self.future.exception()
        return error.reason if isinstance(error, SampleError) else str(error or "")


@dataclass(frozen=True)
class _Turn:
    """An outcome, with its place among those that are to be given."""

    turn: int
    outcome: SampleOutcome


@dataclass(frozen=True)
class _End:
    """A source has no more samples than ``count``, or cannot go on."""

    source: str
    count: int
    error: BaseException | None


class Feed:
    """Feeds sources, and gives what becomes of their samples.

    A sample keeps its slot until the caller comes for the next outcome, so that memory stays bounded however slow the
    caller is. A sample that cannot be read, or whose source's worker is gone, fails by itself; but where the very first
    of a source cannot be read, the rest will hardly fit either, and the feed ends.

    Parameters
    ----------
    in_order
        Whether outcomes of a source are given in the order of its samples, not as they come.
    skip
        Tells by source and name which samples to leave out.
    """

    def __init__(
        self,
        samples: Mapping[SourceHandle, Iterable[Sample]],
        *,
        in_order: bool = True,
        skip: Callable[[str, str], bool] | None = None,
    ) -> None:
        self._samples = samples
        self._in_order = in_order
        self._skip = skip
        self._slots = {source.name: threading.Semaphore(2 * source.limit) for source in samples}
        self._given = dict.fromkeys(self._slots, 0)
        self._held: dict[tuple[str, int], _Turn] = {}
        self._items: queue.SimpleQueue[_Turn | _End] = queue.SimpleQueue()

    def outcomes(self) -> Iterator[SampleOutcome]:
        """Hand in all samples and give what becomes of each; raises what keeps a source from going on."""
        counts = dict.fromkeys(self._given, inf)
        for source, samples in self._samples.items():
            threading.Thread(target=self._hand_in_all, args=(source, samples), daemon=True).start()
        while any(self._given[source] < count for source, count in counts.items()):
            item = self._items.get()
            if isinstance(item, _Turn):
                for outcome in self._ready(item):
                    yield outcome
                    self._given[outcome.source] += 1
                    self._slots[outcome.source].release()
            elif item.error is not None:
                raise item.error
            else:
                counts[item.source] = item.count

    def _ready(self, item: _Turn) -> Iterator[SampleOutcome]:
        """Give the outcomes whose turn it is."""
        source = item.outcome.source
        if not self._in_order:
            yield item.outcome
            return
        self._held[source, item.turn] = item
        while (following := self._held.pop((source, self._given[source]), None)) is not None:
            yield following.outcome

    def _hand_in_all(self, source: SourceHandle, samples: Iterable[Sample]) -> None:
        count, error = 0, None
        try:
            for number, sample in enumerate(samples):
                if self._skip is not None and self._skip(source.name, sample.name):
                    continue
                self._slots[source.name].acquire()
                future = _hand_in(source, sample, first=number == 0)
                future.add_done_callback(partial(self._on_done, count, source.name, number, sample.name))
                count += 1
        except BaseException as caught:  # noqa: BLE001 - the caller of outcomes raises it
            error = caught
        self._items.put(_End(source.name, count, error))

    def _on_done(self, turn: int, source: str, number: int, name: str, future: Future[Result]) -> None:
        self._items.put(_Turn(turn, SampleOutcome(source, number, name, future)))


def _hand_in(source: SourceHandle, sample: Sample, *, first: bool) -> Future[Result]:
    try:
        inputs = sample.read()
    except PlannerError as error:
        if first:
            raise
        return _failed(error)
    try:
        return source.submit(inputs)
    except AbsentError as error:
        return _failed(error)


def _failed(error: PlannerError) -> Future[Result]:
    future: Future[Result] = Future()
    future.set_exception(error)
    return future
