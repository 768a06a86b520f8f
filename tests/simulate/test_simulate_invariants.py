from __future__ import annotations

from collections import Counter, defaultdict
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from planner.plan.types import Plan, Route, SourcePlan, Stage
from planner.scenario.instance import Instance
from planner.simulate.run import Simulator
from planner.trace.records import BlockRecord, Record, SampleRecord
from planner.worker.events import Effect, Event, RunBlock
from tests.instances import random_instance

BLOCKS = 4


@st.composite
def cases(draw: st.DrawFn) -> tuple[Instance, Plan]:
    """A random instance and any plan for it, good or bad: routes may return to a worker."""
    instance = random_instance(
        draw(st.integers(0, 10_000)),
        sources=draw(st.integers(1, 3)),
        workers=draw(st.integers(1, 4)),
        blocks=BLOCKS,
        load=draw(st.floats(0.1, 1.5)),
        links=draw(st.booleans()),
    )
    sources = {}
    for source in instance.sources:
        routes = []
        count = draw(st.integers(1, 2))
        for _ in range(count):
            cuts = sorted(draw(st.sets(st.integers(1, BLOCKS - 1), max_size=BLOCKS - 1)))
            stages = tuple(
                Stage(worker=draw(st.sampled_from(instance.workers)), first_block=first, last_block=after - 1)
                for first, after in zip([0, *cuts], [*cuts, BLOCKS], strict=True)
            )
            model = instance.scenario.sources[source].models[0]
            routes.append(Route(share=1 / count, model=model, stages=stages))
        sources[source] = SourcePlan(accuracy=1.0, delay_s=0.1, surrogate_delay_s=0.1, routes=tuple(routes))
    plan = Plan(
        status="feasible", method="test", goal="delay", objective=1.0, bound=0.0, gap=1.0, solve_s=0.0,
        provenance="measured", sources=sources, workers={}, networks={},
    )  # fmt: skip
    return instance, plan


@settings(max_examples=60, deadline=None)
@given(cases(), st.sampled_from(["planned", "local"]), st.integers(0, 5))
def test_every_sample_ends_once_and_no_worker_runs_two_blocks(
    case: tuple[Instance, Plan], policy: str, seed: int
) -> None:
    instance, plan = case
    records: list[Record] = []
    Simulator(instance, policy=policy, plan=plan, seed=seed, sink=records.append).run()
    ended = Counter((r.source, r.sample) for r in records if isinstance(r, SampleRecord))
    offered = {(source, k) for source in instance.sources for k in range(instance.samples(source))}
    assert set(ended) == offered
    assert set(ended.values()) == {1}
    busy = defaultdict(list)
    work: dict[tuple[str, int], list[BlockRecord]] = defaultdict(list)
    for record in records:
        if isinstance(record, BlockRecord):
            busy[record.worker].append((record.start_s, record.end_s))
            work[record.source, record.sample].append(record)
    for spans in busy.values():
        spans.sort()
        assert all(before[1] <= after[0] for before, after in pairwise(spans))
    for blocks in work.values():
        blocks.sort(key=lambda record: record.start_s)
        assert [record.block for record in blocks] == list(range(BLOCKS))


@settings(max_examples=40, deadline=None)
@given(cases(), st.integers(0, 5))
def test_under_planned_no_block_starts_while_more_urgent_work_waits(case: tuple[Instance, Plan], seed: int) -> None:
    """Waiting work is told from outside: a task that was placed here and whose next block did not start."""
    instance, plan = case
    priority = {source: spec.priority for source, spec in instance.scenario.sources.items()}
    waiting: dict[str, Counter[str]] = defaultdict(Counter)

    def watch(worker: str, _now_s: float, event: Event, effects: list[Effect]) -> None:
        if event.kind == "arrived" and not any(effect.kind == "send" for effect in effects):
            waiting[worker][event.source] += 1
        elif event.kind == "received" and event.message.kind == "task":
            waiting[worker][event.message.key.source] += 1
        elif event.kind == "block_ended" and not any(e.kind in {"send", "complete"} for e in effects):
            waiting[worker][event.key.source] += 1
        for effect in effects:
            if isinstance(effect, RunBlock):
                waiting[worker][effect.key.source] -= 1
                urgent = max((priority[s] for s, n in waiting[worker].items() if n > 0), default=0.0)
                assert priority[effect.key.source] >= urgent

    Simulator(instance, policy="planned", plan=plan, seed=seed, sink=lambda _record: None, observe=watch).run()
