"""Shrink a failing case: fewer sources, workers, events, samples and faults, as long as the same thing goes wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tests.campaign.case import Case, Faults

Fails = Callable[[Case], bool]


def shrink(case: Case, fails: Fails) -> Case:
    """Return a case that fails likewise, of which nothing can be left out."""
    while True:
        simpler = next((candidate for candidate in _simpler(case) if fails(candidate)), None)
        if simpler is None:
            return case
        case = simpler


def _simpler(case: Case) -> Iterator[Case]:
    """Yield cases with something left out, the larger cuts first."""

    for name in case.sources if len(case.sources) > 1 else ():
        sources = {other: source for other, source in case.sources.items() if other != name}
        yield _changed(case, sources=sources, events=tuple(event for event in case.events if event.source != name))
    for name in case.workers if len(case.workers) > 1 else ():
        yield _without_worker(case, name)
    yield from _fewer_faults(case)
    yield from _smaller_sources(case)
    if case.blocks > 1:
        sources = {
            name: source.model_copy(update={"routes": tuple(route[:-1] for route in source.routes)})
            for name, source in case.sources.items()
        }
        yield _changed(case, blocks=case.blocks - 1, sources=sources)


def _fewer_faults(case: Case) -> Iterator[Case]:
    for field in ("events", "cuts", "steps"):
        entries = getattr(case, field)
        size = len(entries)
        while size:
            for first in range(0, len(entries), size):
                yield _changed(case, **{field: entries[:first] + entries[first + size :]})
            size //= 2
    for index, event in enumerate(case.events):
        if event.at_s > 0.01:  # fewer samples arrive before
            sooner = event.model_copy(update={"at_s": event.at_s / 2})
            yield _changed(case, events=(*case.events[:index], sooner, *case.events[index + 1 :]))
    for name, value in case.faults:
        if value != Faults.model_fields[name].default:
            yield _changed(case, faults=case.faults.model_copy(update={name: Faults.model_fields[name].default}))
    if case.offsets_s:
        yield _changed(case, offsets_s={})
    if case.replans:
        yield _changed(case, replans=False)


def _changed(case: Case, **fields: object) -> Case:
    return case.model_copy(update=fields)


def _smaller_sources(case: Case) -> Iterator[Case]:
    for name, source in case.sources.items():
        smaller: list[dict[str, object]] = [{"samples": less} for less in (source.samples // 2, source.samples - 1)]
        smaller = smaller if source.samples > 1 else []
        if source.in_flight is not None:
            smaller.append({"in_flight": None})
        if len(source.routes) > 1:
            smaller.append({"routes": source.routes[:1]})
        if source.arrivals != "batch":
            smaller.append({"arrivals": "batch"})
        for fields in smaller:
            if fields.get("samples") != 0:
                yield case.model_copy(update={"sources": case.sources | {name: source.model_copy(update=fields)}})


def _without_worker(case: Case, name: str) -> Case:
    """Return the case without a worker; another takes its blocks and its sources."""
    other = next(worker for worker in case.workers if worker != name)

    def instead(worker: str) -> str:
        return other if worker == name else worker

    sources = {
        key: source.model_copy(
            update={
                "home": instead(source.home),
                "routes": tuple(tuple(map(instead, route)) for route in source.routes),
            }
        )
        for key, source in case.sources.items()
    }
    return case.model_copy(
        update={
            "workers": {worker: speed for worker, speed in case.workers.items() if worker != name},
            "offsets_s": {worker: ahead for worker, ahead in case.offsets_s.items() if worker != name},
            "sources": sources,
            "events": tuple(event for event in case.events if event.worker != name),
            "cuts": tuple(cut for cut in case.cuts if name not in cut.between),
            "steps": tuple(step for step in case.steps if step.worker != name),
        }
    )
