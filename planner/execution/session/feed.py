"""Feeding of many samples to a session, with one thread per source, and the outcome of each sample by name."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from math import inf
from pathlib import Path

from planner.errors import explain
from planner.execution.session.samples import TRIES, Arrays, Sample
from planner.execution.session.source import AbsentError, Result, SampleError, SourceHandle


@dataclass(frozen=True)
class SampleOutcome:
    """Outcome of a sample that ended, with or without a result.

    Parameters
    ----------
    number
        Index of the sample among those of its source, from 0.
    name
        Name of its file, or its number.
    file
        File of the result, if it was written to one.
    """

    source: str
    number: int
    name: str
    future: Future[Result]
    file: Path | None = None

    def failed(self, error: Exception) -> SampleOutcome:
        """Return the outcome of a sample that failed in the end."""
        return replace(self, future=_failed(error), file=None)

    @property
    def result(self) -> Result | None:
        """Result of the source's model; None for a sample that failed."""
        return None if self.future.exception() else self.future.result()

    @property
    def reason(self) -> str:
        """Why the sample failed; empty if it did not."""
        error = self.future.exception()
        if isinstance(error, SampleError):
            return error.reason
        return explain(error) if error is not None else ""


@dataclass(frozen=True)
class _Ended:
    """An outcome with its index among the outcomes of its source."""

    index: int
    outcome: SampleOutcome


@dataclass(frozen=True)
class _End:
    """A source has no more samples than ``count``, or cannot continue."""

    source: str
    count: int
    error: BaseException | None


class Feed:
    """Submits the samples of sources, and yields their outcomes.

    A sample keeps its slot until the caller asks for the next outcome, so that memory is bounded even if the caller is
    slow. A sample that cannot be read, or whose source's worker has left, fails on its own. If the iteration over the
    samples of a source fails, that is the failure of one more sample, the last of this source. If none of the first
    samples of a source can be read (:data:`~planner.execution.session.samples.TRIES`), the feed ends.

    Parameters
    ----------
    in_order
        Whether to yield the outcomes of a source in the order of its samples, rather than as they end.
    skip
        ``skip(source, name)`` returns whether to leave out a sample.
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
        self._yielded = dict.fromkeys(self._slots, 0)
        self.submitted = dict.fromkeys(self._slots, 0)
        """Number of samples of each source that have been submitted, or failed before."""
        self._held: dict[tuple[str, int], _Ended] = {}
        self._items: queue.SimpleQueue[_Ended | _End] = queue.SimpleQueue()

    def outcomes(self) -> Iterator[SampleOutcome]:
        """Submit all samples and yield the outcome of each; raise the error that keeps a source from continuing."""
        counts = dict.fromkeys(self._yielded, inf)
        for source, samples in self._samples.items():
            threading.Thread(target=self._submit_all, args=(source, samples), daemon=True).start()
        while any(self._yielded[source] < count for source, count in counts.items()):
            item = self._items.get()
            if isinstance(item, _Ended):
                for outcome in self._ready(item):
                    yield outcome
                    self._yielded[outcome.source] += 1
                    self._slots[outcome.source].release()
            elif item.error is not None:
                raise item.error
            else:
                counts[item.source] = item.count

    def _ready(self, item: _Ended) -> Iterator[SampleOutcome]:
        """Yield the outcomes that are due once this one has arrived."""
        source = item.outcome.source
        if not self._in_order:
            yield item.outcome
            return
        self._held[source, item.index] = item
        while (following := self._held.pop((source, self._yielded[source]), None)) is not None:
            yield following.outcome

    def _submit_all(self, source: SourceHandle, samples: Iterable[Sample]) -> None:
        count, error = 0, None
        unread = _Unread()
        try:
            for number, sample in enumerate(_with_failure(samples)):
                if self._skip is not None and self._skip(source.name, sample.name):
                    unread.over = True
                    continue
                self._slots[source.name].acquire()
                future = _submit(source, sample, unread)
                future.add_done_callback(partial(self._on_done, count, source.name, number, sample.name))
                count += 1
                self.submitted[source.name] = count
            unread.end()
        except BaseException as caught:  # noqa: BLE001 - outcomes() raises it
            error = caught
        self._items.put(_End(source.name, count, error))

    def _on_done(self, index: int, source: str, number: int, name: str, future: Future[Result]) -> None:
        self._items.put(_Ended(index, SampleOutcome(source, number, name, future)))


class _Unread:
    """The errors of the first samples of a source, until one of its samples can be read."""

    def __init__(self) -> None:
        self.over = False
        self._errors: list[Exception] = []

    def add(self, error: Exception) -> None:
        """Add an error; raise the first one if there are too many."""
        if not self.over:
            self._errors.append(error)
        if len(self._errors) == TRIES:
            self.end()

    def end(self) -> None:
        """Raise the first error if no sample was read."""
        if self._errors and not self.over:
            raise self._errors[0]


def _with_failure(samples: Iterable[Sample]) -> Iterator[Sample]:
    """Yield the samples; if the iteration fails, then one that cannot be read for this reason."""
    number = 0
    try:
        for sample in samples:
            yield sample
            number += 1
    except Exception as error:  # noqa: BLE001 - the sample reports it
        yield Sample(f"{number:06d}", partial(_raise, error))


def _raise(error: Exception) -> Arrays:
    raise error


def _submit(source: SourceHandle, sample: Sample, unread: _Unread) -> Future[Result]:
    try:
        inputs = sample.read()
    except Exception as error:  # noqa: BLE001 - whatever it is, it fails this sample
        unread.add(error)
        return _failed(error)
    unread.over = True
    try:
        return source.submit(inputs)
    except AbsentError as error:
        return _failed(error)


def _failed(error: Exception) -> Future[Result]:
    future: Future[Result] = Future()
    future.set_exception(error)
    return future
