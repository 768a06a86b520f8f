"""``python -m tests.simulation.fingerprints CASES``: what runs under all policies come to, as hashes to compare.

The cases are drawn here (:func:`draw`) and pickled, so that all builds that are compared simulate the same ones.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import planner.worker.worker
from planner.plan.types import PlanSpec
from planner.policy.registry import POLICIES, make_policy
from planner.scenario.instance import Instance
from planner.simulation.simulator import Simulation, simulate
from planner.trace.records import Record, decode_records, encode_records
from planner.worker.events import STEPS, Arrived, Step
from planner.worker.worker import Worker
from tests.simulation import test_simulation_sequences as sequences
from tests.simulation.churn import cases
from tests.worker import test_worker_batches as batches

EXAMPLES = 30


class Fingerprint:
    """A hash of runs, by every digit of their records; and their number."""

    def __init__(self) -> None:
        self._hash = sha256()
        self._records = 0

    def add(self, run: tuple[list[Record], Simulation]) -> None:
        """Add a run; its records have to survive being written and read."""
        records, simulation = run
        written = encode_records(records)
        assert decode_records(written) == records
        self._hash.update(written + f"{simulation.events} {simulation.end_s!r} {simulation.network_busy_s}".encode())
        self._records += len(records)

    def __str__(self) -> str:
        return f"{self._records} records, {self._hash.hexdigest()}"


def draw(path: Path) -> None:
    """Write random cases, always the same, to a file."""
    drawn = []

    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases(), seed=st.integers(0, 5))
    def keep(case: tuple[Instance, PlanSpec], seed: int) -> None:
        drawn.append((*case, seed))

    keep()
    path.write_bytes(pickle.dumps(drawn))


def main(path: Path) -> None:
    """Print the fingerprints."""
    sys.stdout.writelines(f"{line}\n" for line in _fingerprints(path))


def _fingerprints(path: Path) -> Iterator[str]:
    drawn = pickle.loads(path.read_bytes())  # noqa: S301  # written by draw
    for policy in POLICIES:
        found = Fingerprint()
        for instance, plan, seed in drawn:
            found.add(simulate(instance, policy=policy, plan=plan, seed=seed))
        yield f"{policy}: {found}"
    yield f"sequences: {_sequences()}"
    yield f"batches: {_batches()}"
    yield f"steps: {_steps()}"
    yield f"worker: {Path(planner.worker.worker.__file__).suffix}"


def _sequences() -> Fingerprint:
    found = Fingerprint()
    for others in (False, True):
        for decode in ({}, {"chunk": 16}, {"next": "argmax"}, {"concurrent": 4}):
            known = sequences.instance(1.0, 60, others=others, **decode)
            found.add(simulate(known, policy="planned", plan=sequences.plan(known), seed=2))
    return found


def _batches() -> Fingerprint:
    found = Fingerprint()
    for wait_s in (0.0, 0.004, 0.1):
        for most in (2, 4, 7):
            known = batches.instance(wait_s=wait_s, max_batch=most)
            sources = known.scenario.sources
            busy = {
                name: spec.model_copy(update={"rate_per_s": 40.0, "samples": 200}) for name, spec in sources.items()
            }
            known = known.model_copy(update={"scenario": known.scenario.model_copy(update={"sources": busy})})
            found.add(simulate(known, policy="planned", plan=batches.plan_of(known), seed=2))
    return found


def _steps() -> str:
    """Return the hash of a log of steps, which survives being written and read."""
    known = batches.instance()
    worker = Worker("a", known, make_policy("planned", known, batches.plan_of(known)))
    events = [Arrived("yard", 0), Arrived("urgent", 0, priority=9.0, within_s=2.0)]
    steps = [Step(0.1, event, worker.step(0.1, event)) for event in events]
    written = STEPS.dump_json(steps)
    assert STEPS.validate_json(written) == steps
    return sha256(written).hexdigest()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
