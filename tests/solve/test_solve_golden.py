from __future__ import annotations

from tests.solve.golden import FOLDER, golden_texts


def test_every_constraint_is_as_it_was_looked_over() -> None:
    """After a wanted change: ``python -m tests.solve.golden``, and read the difference."""
    assert golden_texts() == {path.stem: path.read_text() for path in FOLDER.glob("*.lp")}
