"""Refusals are reported at a limited rate."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from planner.execution.wire import checks as admission
from planner.execution.wire.checks import Refusals


def test_a_flood_of_refusals_causes_few_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now_s=100.0)
    monkeypatch.setattr(admission, "time", SimpleNamespace(monotonic=lambda: clock.now_s))
    told: list[tuple[str, str]] = []
    refusals = Refusals(lambda sender, what: told.append((sender, what)))
    for number in range(1000):
        refusals.add("a", f"message {number}")
    assert told == [("a", f"message {number}") for number in range(20)]
    clock.now_s += 1.0
    for _ in range(10):
        refusals.add("b", "another")
    assert told[20:] == [("b", "another (980 more were refused before)")]
    clock.now_s += 3600.0
    for _ in range(100):
        refusals.add("a", "later")
    assert told[21:] == [("a", "later (9 more were refused before)"), *[("a", "later")] * 19]
