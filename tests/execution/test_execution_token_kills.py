"""Sequences generated while agents are killed are those of one onnxruntime session."""

from __future__ import annotations

import pytest

from benchmarks.tokens.kills import generate_under_kills


@pytest.mark.nightly
def test_killed_agents_cost_no_token_of_many_sequences() -> None:
    found = generate_under_kills(90, 3)
    assert (found.exact, found.wrong, found.failed.total()) == (90, 0, 0)
    assert found.kills == 3
    assert found.restarted > 0
