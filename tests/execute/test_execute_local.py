"""Agent processes of this machine that do not come at the first attempt, or not at all."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from planner.errors import ExecuteError
from planner.execute import local

_DEAF_AT_FIRST = """
import os, pathlib, sys
flag = pathlib.Path(sys.argv[1])
if not flag.exists():
    flag.touch()
    sys.stdin.read()
else:
    os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "_SECOND_START_S", 1.0)


def test_an_agent_that_is_not_found_is_started_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = local._agent

    def deaf_at_first(name: str, address: str, cache: Path) -> list[str]:
        python, *words = agent(name, address, cache)
        return [python, "-c", _DEAF_AT_FIRST, str(tmp_path / name), *words]

    monkeypatch.setattr(local, "_agent", deaf_at_first)
    with local.local_agents(["a"]) as coordinator:
        assert coordinator.absent(["a"]) == []
    assert (tmp_path / "a").exists()


def test_an_agent_that_ends_is_reported_with_its_last_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "_agent", lambda *_: [sys.executable, "-c", "raise SystemExit('no such wheel')"])
    with pytest.raises(ExecuteError, match=r"an agent ended; found 'a: no such wheel'"), local.local_agents(["a"]):
        pass
