"""Diagnostic messages: descriptions of agents, and measurements of the links between them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from planner.base import FrozenModel


class Holder(FrozenModel):
    """The process whose coordinator holds an agent."""

    host: str
    process: Annotated[int, Field(ge=0)]
    command: str
    """Its command line."""

    def __str__(self) -> str:
        return f"{self.command!r} on {self.host}, process {self.process}"


class Ask(FrozenModel):
    """Requests an agent's description."""

    kind: Literal["ask"] = "ask"


class About(FrozenModel):
    """The description of an agent."""

    kind: Literal["about"] = "about"
    worker: str
    version: str
    python: str
    zenoh: str
    device: dict[str, str]
    """Device and operating system; on a Jetson also L4T release and power mode."""
    onnxruntime: str | None
    """Version of onnxruntime; None if it is not installed."""
    providers: tuple[str, ...]
    """Execution providers available on this device."""
    provider: str
    """The execution provider in use."""
    memory_bytes: int
    """Resident memory of the agent's process."""
    cached: int
    """Number of block models in the cache."""
    present: tuple[str, ...]
    """The other members present, as this agent sees them."""
    run: str | None = None
    """The current run; None for an idle agent."""
    holder: Holder | None = None
    """Who holds the agent; None if nobody does."""
    held_s: float = 0.0
    """How long it has been held, in seconds."""
    dropped: int = 0
    """Number of samples dropped since the agent started, because their coordinator had gone or lost the agent."""
    policy: str | None = None
    device_class: str | None = None
    """The device class of this worker in the run's scenario."""
    loaded: dict[str, tuple[int, ...]] = {}
    """Blocks in memory, by model."""
    queued: int = 0
    """Number of waiting tasks, without the running one."""
    running: str | None = None
    """The sample whose block is running."""


class Flood(FrozenModel):
    """Requests an agent to saturate its link to another one; the receiver reports the throughput."""

    kind: Literal["flood"] = "flood"
    flood: str
    to: str
    duration_s: float


class Chunk(FrozenModel):
    """A part of a flood; its bytes travel as the tensor ``bytes``, except with the last part, which has none."""

    kind: Literal["chunk"] = "chunk"
    flood: str
    last: bool = False


class Flooded(FrozenModel):
    """The throughput of a flood, by the receiver's clock."""

    kind: Literal["flooded"] = "flooded"
    worker: str
    flood: str
    size_bytes: int
    """Bytes received once the flow had settled."""
    took_s: float


class Ping(FrozenModel):
    """Requests an agent to measure round trips to another one."""

    kind: Literal["ping"] = "ping"
    to: str
    times: int


class Echo(FrozenModel):
    """One direction of a round trip; ``back`` marks the reply, with the replier's wall clock in seconds since 1970."""

    kind: Literal["echo"] = "echo"
    run: str = ""
    """The run, or the measurement, to which the round trip belongs."""
    number: int
    back: bool = False
    unix_s: float = 0.0


class Pinged(FrozenModel):
    """Round trips in seconds, by the clock of the measuring agent."""

    kind: Literal["pinged"] = "pinged"
    worker: str
    to: str
    round_trip_s: tuple[float, ...]
