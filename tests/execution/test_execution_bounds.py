"""What a process keeps for others is bounded, whoever they say they are, and what exceeds the bounds is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from planner.errors import ExecuteError
from planner.execution.agent.block_cache import BlockCache
from planner.execution.wire.diagnostics import Echo
from planner.execution.wire.fragments import Fragment, split
from planner.execution.wire.frames import Frame, encode
from planner.execution.wire.limits import Limits
from planner.execution.wire.messages import Refused, Stop
from planner.execution.wire.presence import Roster
from planner.execution.wire.transport import Receiver
from planner.execution.wire.whereabouts import Whereabouts
from planner.execution.wire.zenoh import free_port
from tests.execution.raw import agent_process, raw_member
from tests.execution.rig import FILES, HASHES

HEADER, _ = encode(Frame(Stop(run="r")))
PIECE = bytes(2**18)


def begin(receiver: Receiver, sender: str, stream: int, piece: bytes = PIECE) -> None:
    receiver.receive(sender, Fragment(stream, 0, 2**20, HEADER).attachment, piece)


def refusals(received: list[Frame]) -> list[tuple[str, str]]:
    return [(frame.body.sender, frame.body.what) for frame in received if isinstance(frame.body, Refused)]


def test_unfinished_messages_of_all_senders_together_are_bounded() -> None:
    received: list[Frame] = []
    receiver = Receiver("a", received.append, Limits(unfinished_bytes=2 * 2**20))
    begin(receiver, "modest", 1)
    for stream in range(100):
        begin(receiver, "greedy", 100 + stream)
    assert {sender for sender, _ in refusals(received)} == {"greedy"}
    assert "unfinished messages of more than 2097152 bytes" in refusals(received)[0][1]
    assert receiver._unfinished_bytes <= 2 * 2**20
    assert receiver._unfinished_bytes == sum(one.unfinished_bytes for one in receiver._assemblers.values())
    receiver.forget("greedy")
    receiver.receive("modest", Fragment(1, len(PIECE), 2**20).attachment, bytes(2**20 - len(PIECE)))
    assert "does not match its header" in refusals(received)[-1][1]  # it has been put together
    assert receiver._unfinished_bytes == 0


def test_senders_are_bounded_and_one_that_has_finished_makes_room() -> None:
    received: list[Frame] = []
    receiver = Receiver("a", received.append, Limits(members=3))
    for sender in "bcd":
        begin(receiver, sender, 1)
    begin(receiver, "e", 1)
    assert refusals(received) == [("e", "frame: too many senders; expected at most 3")]
    (whole,) = split(*encode(Frame(Echo(number=1))))
    receiver.forget("b")
    for number in range(50):
        receiver.receive(f"other {number}", whole.attachment, b"")
    assert len(received) == 51
    assert len(receiver._assemblers) == 3


def test_members_are_bounded() -> None:
    reported: list[tuple[str, bool]] = []
    roster = Roster(("own", "1"), lambda *told: reported.append(told), most=3)
    for name in "abcde":
        roster.add(name, "1", Whereabouts())
    roster.remove("a", "1")
    roster.add("f", "1", Whereabouts())
    assert [name for name, present in reported if present] == ["a", "b", "c", "f"]


def test_bounds_are_set_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLANNER_MAX_UNFINISHED_MIB", "64")
    monkeypatch.setenv("PLANNER_MAX_MEMBERS", "7")
    assert Limits.from_environment() == Limits(7, 64 * 2**20)
    for wrong in ("", "-1", "0", "1e3", "many", "9" * 30):
        monkeypatch.setenv("PLANNER_MAX_MEMBERS", wrong)
        with pytest.raises(ExecuteError, match="PLANNER_MAX_MEMBERS: not a bound"):
            Limits.from_environment()


def test_messages_in_made_up_names_cost_an_agent_no_thread(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    with (
        raw_member(listen=address) as coordinator,
        agent_process("b", "--connect", address, "--cache", str(tmp_path)) as agent,
    ):
        coordinator.wait_for("b")
        coordinator.alive("b")
        tasks = Path(f"/proc/{agent.pid}/task")
        before = len(list(tasks.iterdir()))
        for number in range(200):
            coordinator.put_frame("b", Frame(Echo(number=1)), sender=f"stranger-{number}")
        refused = coordinator.expect(Refused)
        assert refused.what == f"echo: no such member is present: {refused.sender}"
        coordinator.alive("b")
        assert len(list(tasks.iterdir())) <= before + 2
        with raw_member("c", connect=address) as other:
            other.wait_for("b")
            while "c" not in coordinator.alive("b").present:
                pass
            other.send("b", Frame(Echo(number=5)))
            assert other.expect(Echo).back
        assert coordinator.alive("b").worker == "b"


def test_an_agent_that_can_write_no_file_keeps_the_block_models_of_one_run(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    cache = BlockCache(tmp_path / "file" / "blocks")
    for sha256, content in zip(HASHES, FILES, strict=True):
        assert "keeping it in memory" in (cache.add(sha256, content) or "")
    cache.forget_others(HASHES[:1])
    assert [cache.has(sha256) for sha256 in HASHES] == [True, False, False]
    assert cache.block(HASHES[0]) == FILES[0]
