"""A part of the campaign, and that it finds what is wrong; ``make campaign`` runs the whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from planner.policy.base import PriorityPolicy
from planner.policy.registry import POLICIES
from planner.worker.events import Received
from planner.worker.home import Home
from tests.campaign.__main__ import failure, run_batch, shrunk
from tests.campaign.case import Case, Faults, draw_case
from tests.campaign.faulty import FaultySimulator
from tests.campaign.invariants import entries

SEEDS = range(200)


def test_random_runs_under_faults_keep_the_rules() -> None:
    outcome = run_batch(SEEDS)
    commands = [f"python -m tests.campaign --seed {seed}: {what}" for seed, what in outcome.failures]
    assert not commands, "\n".join(commands)


def test_the_seeds_meet_every_policy_and_kind_of_fault() -> None:
    cases = [draw_case(seed) for seed in SEEDS]
    for policy in POLICIES:
        own = [case for case in cases if case.policy == policy]
        assert any(case.cuts for case in own)
        assert any(case.steps for case in own)
        assert any(event.action == "join" for case in own for event in case.events)
        for kind in Faults.model_fields:
            assert any(getattr(case.faults, kind) for case in own), kind


def _messages(case: Case) -> int:
    """Return how many messages come to a worker in a run."""
    found: list[object] = []
    FaultySimulator(case, sink=_nothing, look=lambda _worker, _s, event, _effects: found.append(event)).run()
    return sum(isinstance(event, Received) for event in found)


@pytest.mark.parametrize("policy", [policy for policy in POLICIES if policy != "local"])
def test_where_all_messages_are_lost_none_comes(policy: str) -> None:
    own = (case for case in map(draw_case, range(1000)) if case.policy == policy)
    faultless = (case.model_copy(update={"faults": Faults(), "cuts": (), "events": ()}) for case in own)
    case = next(case for case in faultless if _messages(case))
    assert _messages(case.model_copy(update={"faults": Faults(loss=1.0)})) == 0


def _nothing(*_args: Any) -> None:
    return None


def _last(_policy: Any, _view: Any, heads: Any) -> Any:
    return min(heads, key=lambda queue: heads[queue].task.priority)


def _kept(home: Any, identity: tuple[str, int]) -> Any:
    return home._pending.get(identity)


@pytest.mark.parametrize(
    ("where", "what", "defect", "shows"),
    [
        (Home, "left", _nothing, ("planned", "no progress")),
        (Home, "_end", _kept, ("local", "ends twice")),
        (PriorityPolicy, "choose", _last, ("planned", "priority")),
    ],
)
def test_a_planted_defect_is_found_replays_and_shrinks(
    monkeypatch: pytest.MonkeyPatch, where: type, what: str, defect: Callable[..., Any], shows: tuple[str, str]
) -> None:
    policy, rule = shows
    monkeypatch.setattr(where, what, defect)
    own = [case for case in map(draw_case, range(1000)) if case.policy == policy]
    found = next(case for case in own if (failure(case) or "").startswith(f"{rule}:"))
    smallest = shrunk(Case.model_validate_json(found.model_dump_json()))
    assert (failure(smallest) or "").startswith(f"{rule}:")
    assert sum(source.samples for source in smallest.sources.values()) <= 10
    assert len(smallest.sources) <= 2
    assert len(smallest.events) + len(smallest.cuts) + len(smallest.steps) <= 2
    assert len(smallest.workers) <= 3


@pytest.mark.parametrize("policy", POLICIES)
def test_what_a_worker_keeps_does_not_grow_with_the_samples(policy: str) -> None:
    drawn = next(case for case in map(draw_case, range(1000)) if case.policy == policy and len(case.workers) == 3)

    def kept(samples: int) -> int:
        sources = {
            name: source.model_copy(update={"samples": samples, "rate_per_s": 4.0, "arrivals": "constant"})
            for name, source in drawn.sources.items()
        }
        case = drawn.model_copy(update={"sources": sources, "faults": Faults(late=0.2, late_s=0.1)})
        simulator = FaultySimulator(case, sink=_nothing, look=_nothing)
        simulator.run()
        return sum(map(entries, simulator.workers.values()))

    assert kept(180) <= kept(90) + 15
