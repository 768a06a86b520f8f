"""A few malformed cases for each reader, always the same ones; ``make fuzz`` runs very many."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fuzz.campaign import Campaign
from tests.fuzz.child import close_all
from tests.fuzz.targets import names, target

CASES = 60
"""Of a target; about a quarter of a minute for all of them."""


@pytest.fixture(autouse=True)
def no_child_is_left() -> Iterator[None]:
    yield
    close_all()


@pytest.mark.parametrize("name", names())
def test_malformed_input_is_one_message_in_bounded_time_and_memory(name: str) -> None:
    campaign = Campaign(target(name))
    campaign.run(round(CASES * target(name).share), seed=21)
    assert campaign.done
    assert {where: (case, defect.how) for where, (case, defect) in campaign.defects.items()} == {}
