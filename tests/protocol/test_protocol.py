"""Small runs of real workers, explored exhaustively; ``python -m tests.protocol`` explores larger ones too."""

from __future__ import annotations

from typing import Any

import pytest

from planner.worker.clearance_handshake import ClearanceHandshake
from planner.worker.home import Home
from tests.protocol.__main__ import FAILURES, HAND_OVER, explore
from tests.protocol.explore import Failure, ProtocolViolationError

LARGE = frozenset(("ddi", "adaptive", "pa-mdi"))
"""Explored with one sample here, since two take many seconds; so are those in which a worker is killed."""


@pytest.mark.parametrize("policy", HAND_OVER)
@pytest.mark.parametrize("failure", FAILURES)
def test_every_interleaving_keeps_the_rules(policy: str, failure: Failure) -> None:
    small = policy in LARGE or (failure == "crash" and policy != "planned")
    found = explore(policy, failure, samples=1 if small else 2)
    assert found.ends > 0
    assert found.states > found.ends


def test_a_sample_of_each_of_two_workers_that_hand_over_to_each_other() -> None:
    assert explore("pa-mdi", "none", sources=2).states > 1000


def _nothing(*_args: Any) -> None:
    return None


def _kept(home: Any, identity: tuple[str, int]) -> Any:
    return home._pending.get(identity)


@pytest.mark.parametrize(
    ("where", "what", "defect", "shows"),
    [
        (Home, "left", _nothing, ("planned", "crash")),
        (Home, "_end", _kept, ("planned", "loss")),
        (Home, "look", _nothing, ("mdi", "loss")),
        (ClearanceHandshake, "release", _nothing, ("pa-mdi", "none")),
    ],
)
def test_a_planted_defect_is_found(
    monkeypatch: pytest.MonkeyPatch, where: type, what: str, defect: Any, shows: tuple[str, Failure]
) -> None:
    monkeypatch.setattr(where, what, defect)
    with pytest.raises(ProtocolViolationError, match="\n"):
        explore(*shows, samples=1)
