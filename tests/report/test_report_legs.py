"""The picture of where samples spend their time."""

from __future__ import annotations

from pathlib import Path

from planner.plan.journey import LegSite
from planner.report.legs import MAX_LEGS, draw_legs
from planner.validation.legs import LegComparison, Spent

STAGE = LegComparison(LegSite("office", 2, 7, transfer=False), Spent(0.001, 0.030), Spent(0.004, 0.0325))
TRANSFER = LegComparison(LegSite("lan", 8, 8, transfer=True), Spent(0.0, 0.0024), Spent(0.0, 0.00239))


def drawn(path: Path, **sources: list[LegComparison]) -> str:
    draw_legs(sources, path / "legs.svg")
    return (path / "legs.svg").read_text(encoding="utf-8")


def test_differences_of_legs_and_their_total_are_shown(tmp_path: Path) -> None:
    text = drawn(tmp_path, gate=[STAGE, TRANSFER])
    assert all(f">{label}<" in text for label in ("gate", "office: blocks 2-7", "lan: cut 8"))
    assert text.count(">+5.5 ms<") == 1
    assert text.count(">+0.0 ms<") == 1  # a value that rounds to zero has no minus sign
    assert ">total 38.9 ms (predicted 33.4 ms)<" in text
    assert all(text.count(f">{label}<") == 1 for label in ("waiting", "computing", "sending"))


def test_only_the_longest_legs_are_drawn_in_order(tmp_path: Path) -> None:
    many = [
        LegComparison(
            LegSite("box", block, block, transfer=False), Spent(0.0, 0.001), Spent(0.0, 0.001 * (1 + block % 3))
        )
        for block in range(2 * MAX_LEGS)
    ]
    text = drawn(tmp_path, gate=many, yard=[STAGE])
    shown = [block for block in range(2 * MAX_LEGS) if f">box: block {block}<" in text]
    assert len(shown) == MAX_LEGS
    assert set(shown).isdisjoint(range(0, 2 * MAX_LEGS, 3))
    positions = [text.index(f">box: block {block}<") for block in shown]
    assert positions == sorted(positions)
    assert f"; {MAX_LEGS} short legs omitted<" in text


def test_a_source_without_completed_samples_is_marked(tmp_path: Path) -> None:
    assert drawn(tmp_path, gate=[STAGE], lost=[]).count(">no sample completed<") == 1
    assert drawn(tmp_path)
