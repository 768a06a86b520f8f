"""A few malformed cases for each reader, always the same ones; ``make fuzz`` runs very many."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from planner.execution.wire.frames import Frame, encode
from planner.execution.wire.messages import COORDINATOR, Submit
from tests.fuzz.campaign import Campaign
from tests.fuzz.child import close_all
from tests.fuzz.targets import names, target
from tests.fuzz.targets.agent import Rig
from tests.fuzz.targets.frames import ROW, RUN, deliver

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


def test_a_sample_that_is_submitted_again_is_refused_and_its_sender_told() -> None:
    rig = Rig()
    try:
        told: list[tuple[str, str]] = []
        (run,) = rig.agent._runs
        assert run._driver is not None
        run._driver._refuse = lambda sender, what: told.append((sender, what))
        header, payload = encode(Frame(Submit(run=RUN, source="urgent", sample=3), {"t0": ROW}))
        for _ in range(2):
            deliver(rig.receiver, COORDINATOR, header, bytes(payload))
            rig.work()
        assert told == [(COORDINATOR, "sample 3 of urgent arrived twice")]
    finally:
        rig.close()
