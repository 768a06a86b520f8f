"""Sequences generated while agents are killed are those of one onnxruntime session."""

from __future__ import annotations

from typing import get_args

import pytest

from benchmarks.tokens.kills import Loop, generate_under_kills


@pytest.mark.nightly
@pytest.mark.parametrize("loop", get_args(Loop))
def test_killed_agents_cost_no_token_of_many_sequences(loop: Loop) -> None:
    found = generate_under_kills(90, 3, loop)
    assert (found.exact, found.wrong, found.failed.total()) == (90, 0, 0)
    assert found.kills == 3
    assert found.restarted > 0
