"""Fragments are assembled whatever their sizes; urgent frames overtake; the bytes in flight are bounded."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.errors import ExecuteError
from planner.execution.wire import lane
from planner.execution.wire.diagnostics import Chunk, Echo
from planner.execution.wire.fragments import MAX_PIECE_BYTES, Assembler, Fragment, Outgoing, read_fragment, split
from planner.execution.wire.frames import Frame, Payload, decode, encode
from planner.execution.wire.lanes import Lanes
from planner.execution.wire.send_window import PROBE_BYTES
from planner.execution.wire.transport import LEVELS, OnAcknowledged


@given(st.binary(max_size=400), st.lists(st.integers(1, 100), min_size=1), st.binary(max_size=30))
def test_a_frame_in_fragments_of_any_sizes_is_assembled(payload: bytes, sizes: list[int], header: bytes) -> None:
    outgoing, assembler, found = Outgoing(header, payload), Assembler(400), None
    while not outgoing.over:
        assert found is None
        fragment = outgoing.next(sizes[outgoing.left_bytes % len(sizes)], asks=True)
        assert read_fragment(fragment.attachment, fragment.payload) == fragment
        found = assembler.add(fragment)
    assert found == (header, payload)


@given(st.permutations([0, 0, 0, 1, 1, 1, 2, 2, 2]))
def test_interleaved_frames_are_assembled_separately(order: list[int]) -> None:
    frames = [Outgoing(b"%d" % index, bytes([index]) * 30) for index in range(3)]
    assembler = Assembler(100)
    came = [assembler.add(frames[index].next(10, asks=False)) for index in order]
    assert sorted(whole for whole in came if whole) == [(b"%d" % index, bytes([index]) * 30) for index in range(3)]


def test_unfinished_frames_are_bounded_and_later_fragments_of_dropped_ones_ignored() -> None:
    assembler = Assembler(100)
    frames = [Outgoing(b"", bytes(20)) for _ in range(100)]
    for outgoing in frames:
        assert assembler.add(outgoing.next(10, asks=False)) is None
    assert len(assembler._unfinished) == 64
    assert assembler.add(frames[0].next(10, asks=False)) is None
    assert assembler.add(frames[-1].next(10, asks=False)) == (b"", bytes(20))
    with pytest.raises(ExecuteError, match="oversize message; found 101; expected at most 100"):
        assembler.add(Outgoing(b"", bytes(101)).next(10, asks=False))


def test_split_keeps_to_the_largest_fragment() -> None:
    payload = bytes(MAX_PIECE_BYTES + 1)
    assert [len(fragment.payload) for fragment in split(b"", payload)] == [MAX_PIECE_BYTES, 1]


class Slow:
    """A medium of a given rate with an unlimited queue, which acknowledges each fragment once it has passed."""

    def __init__(self, bytes_per_s: float) -> None:
        self.sent: list[tuple[str, int, Fragment]] = []
        self.peak_bytes = 0
        self._queue_bytes = 0
        self._rate = bytes_per_s
        self._changed = threading.Condition()
        self._due: list[Fragment] = []
        self._acknowledged: OnAcknowledged = lambda _fragment: None
        self._over = False
        self._thread = threading.Thread(target=self._carry, daemon=True)
        self._thread.start()

    def send_fragment(self, to: str, fragment: Fragment, level: int) -> None:
        with self._changed:
            self.sent.append((to, level, fragment))
            self._queue_bytes += len(fragment.payload)
            self.peak_bytes = max(self.peak_bytes, self._queue_bytes)
            self._due.append(fragment)
            self._changed.notify()

    def _carry(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._due or self._over)
                if self._over:
                    return
                fragment = self._due.pop(0)
                self._changed.wait_for(lambda: self._over, len(fragment.payload) / self._rate)
            with self._changed:
                self._queue_bytes -= len(fragment.payload)
            self._acknowledged(fragment.acknowledgement)

    def on_acknowledged(self, call: OnAcknowledged) -> None:
        self._acknowledged = call

    def close(self) -> None:
        with self._changed:
            self._over = True
            self._changed.notify_all()
        self._thread.join()


@pytest.fixture
def slow() -> Iterator[Callable[[float], Slow]]:
    """Return a factory of media of a given rate, which end with the test."""
    made: list[Slow] = []

    def make(bytes_per_s: float) -> Slow:
        made.append(Slow(bytes_per_s))
        return made[-1]

    yield make
    for medium in made:
        medium.close()


def bulk(size_bytes: int) -> Frame:
    return Frame(Chunk(flood="f"), {"bytes": np.zeros(size_bytes, np.uint8)})


def counted(total: int) -> tuple[Callable[[], None], threading.Event]:
    """Return a callback, and an event set by its ``total``-th call."""
    left, over = iter(range(total - 1)), threading.Event()
    return lambda: None if next(left, None) is not None else over.set(), over


def test_urgent_frames_overtake(slow: Callable[[float], Slow]) -> None:
    medium = slow(20e6)
    sender = Lanes(medium)
    sent, over = counted(8)
    for _ in range(8):
        sender.send("b", bulk(1_000_000), LEVELS, sent)
    time.sleep(0.1)
    urgent = threading.Event()
    before = len(medium.sent)
    sender.send("b", bulk(1000), 3, urgent.set)
    assert urgent.wait(20.0)
    following = [level for _, level, _ in medium.sent[before:]]
    # A fragment may just have been on its way out; nothing else goes before the urgent one.
    assert following.index(3) <= 1
    assert sum(level == LEVELS for _, level, _ in medium.sent) < len(medium.sent)
    assert over.wait(20.0)
    assert medium.peak_bytes < 3_000_000  # of the 8 MB that were handed over
    sender.close()
    whole = Assembler(2_000_000)
    came = [found for *_, fragment in medium.sent if (found := whole.add(fragment))]
    assert len([decode(*found) for found in came]) == 9


@pytest.mark.parametrize("overtaken", [True, False], ids=["overtaken", "its member left"])
def test_a_frame_is_not_sent_if_it_is_not_the_first_any_more_once_it_is_encoded(
    slow: Callable[[float], Slow], monkeypatch: pytest.MonkeyPatch, *, overtaken: bool
) -> None:
    encoding, go_on = threading.Event(), threading.Event()

    def gated(frame: Frame) -> tuple[bytes, Payload]:
        if isinstance(frame.body, Chunk):
            encoding.set()
            assert go_on.wait(20.0)
        return encode(frame)

    monkeypatch.setattr(lane, "encode", gated)
    medium = slow(1e8)
    sender, arrived = Lanes(medium), threading.Event()
    sender.route({"b": "wifi", "c": "wifi"})
    sender.send("b", bulk(lane._AT_ONCE_BYTES + 1), LEVELS)
    assert encoding.wait(20.0)
    if not overtaken:
        sender.forget("b")
    sender.send("c", Frame(Echo(number=1)), 1, arrived.set)
    go_on.set()
    assert arrived.wait(20.0)
    sender.close()
    assert [to for to, _ in itertools.groupby(medium.sent, lambda sent: sent[0])] == (
        ["c", "b"] if overtaken else ["c"]
    )


class Threads:
    """A medium that acknowledges nothing, refuses some fragments, and knows which threads sent the others."""

    def __init__(self, refuses: Callable[[int], bool] = lambda _number: False) -> None:
        self.by: list[tuple[str, int]] = []
        self.went, self.held, self.holding = threading.Event(), threading.Event(), ""
        self._refuses, self._calls = refuses, itertools.count()

    def send_fragment(self, to: str, fragment: Fragment, level: int) -> None:  # noqa: ARG002 - all go the same way
        if self._refuses(next(self._calls)):
            raise OSError("no buffers")
        if to == self.holding:
            assert self.held.wait(20.0)
        self.by.append((threading.current_thread().name, len(fragment.payload)))
        self.went.set()

    def on_acknowledged(self, call: OnAcknowledged) -> None:
        pass


def test_a_small_frame_with_nothing_in_its_way_is_sent_by_the_thread_that_hands_it_over() -> None:
    medium = Threads()
    sender, here = Lanes(medium), threading.current_thread().name
    sender.send("b", bulk(100_000), 3)
    assert medium.by == [(here, 65_536)]  # half of the first window
    sender.send("c", bulk(lane._AT_ONCE_BYTES + 1), 3)
    sender.close(0.1)
    assert {by for by, _ in medium.by[1:]} == {"send to b", "send to c"}


def test_a_frame_is_left_to_its_lane_while_what_goes_to_another_member_is_held_up() -> None:
    medium = Threads()
    medium.holding = "b"
    sender = Lanes(medium)
    sender.send("b", bulk(lane._AT_ONCE_BYTES + 1), 3)  # by the thread of its lane, which then waits
    while not sender._at_work:
        time.sleep(0.001)
    sender.send("c", bulk(1000), 3)
    assert medium.went.wait(20.0)
    assert medium.by == [("send to c", 1000)]
    medium.held.set()
    sender.close(0.1)


@pytest.mark.parametrize("leaves", [False, True])
def test_a_fragment_that_is_refused_at_once_is_sent_again_by_its_lane(
    monkeypatch: pytest.MonkeyPatch, *, leaves: bool
) -> None:
    monkeypatch.setattr(lane, "_PAUSES_S", (0.05,))
    medium = Threads(lambda number: number < 1 + leaves)
    sender = Lanes(medium)
    sender.send("b", bulk(1000), 5)
    if leaves:
        sender.forget("b")
    sender.send("b", bulk(1001), 3)
    while len(medium.by) < 2 - leaves:
        time.sleep(0.001)
    sender.close(0.1)
    sizes = [size for _, size in medium.by]
    assert sizes == ([1001] if leaves else [1000, 1001])


def test_while_a_medium_drains_only_more_urgent_frames_are_sent(slow: Callable[[float], Slow]) -> None:
    medium = slow(100.0)  # nothing comes back in this test
    sender = Lanes(medium)
    sender.send("b", bulk(1_000_000), 5)
    lane = sender._lanes["to b"]
    while lane._free_bytes(lane._queue[0][2]) > 0:
        time.sleep(0.01)
    with lane._changed:
        lane._drain_until_s = time.monotonic() + 3600.0
    sender.send("b", bulk(1001), 5)
    sender.send("b", bulk(1002), 4)
    until_s = time.monotonic() + 20.0
    while medium.sent[-1][1] == 5 and time.monotonic() < until_s:
        time.sleep(0.01)
    assert medium.sent[-1][1] == 4
    assert len(medium.sent[-1][2].payload) == 1002
    assert lane._drain_until_s is not None
    sender.forget("b")
    sender.close()


def test_small_frames_without_a_callback_are_acknowledged_now_and_then(slow: Callable[[float], Slow]) -> None:
    medium = slow(1e8)
    sender = Lanes(medium)
    for _ in range(400):
        sender.send("b", Frame(Echo(number=1)), LEVELS)
    came = threading.Event()
    sender.send("b", Frame(Echo(number=2)), LEVELS, came.set)
    assert came.wait(20.0)
    sender.close()
    asked = [fragment.asks for *_, fragment in medium.sent]
    assert len(asked) == 401
    assert asked[-1]
    apart = [len(list(group)) for asks, group in itertools.groupby(asked) if not asks]
    header_bytes = len(medium.sent[0][2].header)
    assert max(apart) * header_bytes <= PROBE_BYTES
    assert sum(apart) > 300


def test_members_behind_one_medium_share_a_lane_and_others_do_not_wait(slow: Callable[[float], Slow]) -> None:
    medium = slow(5e6)
    sender = Lanes(medium)
    sender.route({"b": "wifi", "c": "wifi", "d": "line"})
    sent, over = counted(2)
    for to in ("b", "c"):
        sender.send(to, bulk(500_000), LEVELS, sent)
    beside = threading.Event()
    sender.send("d", Frame(Echo(number=1)), LEVELS, beside.set)
    assert beside.wait(20.0)
    assert over.wait(20.0)
    order = [to for to, *_ in medium.sent if to != "d"]
    assert order == sorted(order)  # the older frame first, whole
    assert set(sender._lanes) == {"wifi", "line"}
    sender.close()


def test_frames_for_a_member_that_left_are_dropped(slow: Callable[[float], Slow]) -> None:
    medium = slow(1e5)
    sender = Lanes(medium)
    for _ in range(3):
        sender.send("b", bulk(2_000_000), LEVELS)
    time.sleep(0.05)
    sender.forget("b")
    sender.close()  # would take a minute otherwise
    assert sum(len(fragment.payload) for *_, fragment in medium.sent) < 4_000_000


def test_closing_waits_for_frames_that_nobody_acknowledges_for_the_time_given(slow: Callable[[float], Slow]) -> None:
    medium = slow(1e-3)  # nothing comes back in this test
    sender = Lanes(medium)
    for to in "bcd":
        for _ in range(100):
            sender.send(to, bulk(200_000), LEVELS)
    sender.close(0.1)  # would take many minutes otherwise
    assert {to for to, *_ in medium.sent} == set("bcd")
    assert not any(lane._thread.is_alive() for lane in sender._lanes.values())


def test_the_duration_of_a_transfer_over_an_idle_medium_is_reported_without_the_round_trip(
    slow: Callable[[float], Slow],
) -> None:
    told: list[tuple[str, int, float]] = []
    sender = Lanes(slow(1e6), lambda *transfer: told.append(transfer))
    for size_bytes in (*[10] * 5, 200_000, 20_000):
        came = threading.Event()
        sender.send("b", bulk(size_bytes), 3, came.set)
        assert came.wait(20.0)
    sender.close()
    ((to, size_bytes, took_s),) = told
    assert (to, size_bytes) == ("b", 200_000)  # a smaller one would tell little
    assert took_s > 0.1
