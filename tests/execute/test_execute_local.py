"""Agent processes of this machine that do not come."""

from __future__ import annotations

import sys

import pytest

from planner.errors import ExecuteError
from planner.execute import local


def test_an_agent_that_ends_is_reported_with_its_last_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "_agent", lambda *_: [sys.executable, "-c", "raise SystemExit('no such wheel')"])
    with pytest.raises(ExecuteError, match=r"an agent ended; found 'a: no such wheel'"), local.local_agents(["a"]):
        pass
