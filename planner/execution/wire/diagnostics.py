"""Diagnostic messages: descriptions of agents, and measurements of the links between them."""

from __future__ import annotations

from typing import Annotated, Final, Literal, TypeAlias

from pydantic import Field

from planner.base import FrozenModel

Count: TypeAlias = Annotated[int, Field(ge=0, le=2**53)]

Amount: TypeAlias = Annotated[float, Field(ge=0, le=1e15, allow_inf_nan=False)]
"""Seconds, bytes or another quantity; far below where adding one would change nothing."""

RunTime: TypeAlias = Annotated[float, Field(ge=-1e10, le=1e10, allow_inf_nan=False)]
"""Seconds of a run's clock, which begins at 0; three hundred years either way."""

UnixTime: TypeAlias = Annotated[float, Field(ge=0, le=1e10, allow_inf_nan=False)]
"""Seconds since 1970 by a wall clock, which may be wrong: a device without a battery boots in 1970."""

LONGEST_FLOOD_S: Final = 600.0


class Holder(FrozenModel):
    """The process whose coordinator holds an agent."""

    host: str
    process: Count
    command: str
    """Its command line."""

    def __str__(self) -> str:
        return f"{self.command!r} on {self.host}, process {self.process}"


Share: TypeAlias = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
"""Share of an agent's processor time and memory that a run asks for."""


class Holding(FrozenModel):
    """A coordinator's hold on an agent."""

    holder: Holder
    run: str
    """The run for which it claimed the agent last."""
    held_s: Amount
    """How long it has held the agent, in seconds."""
    share: Share | None = None
    """The share that it holds; None if it holds the agent alone."""


class LinkSpeed(FrozenModel):
    """Speed of the link to another agent, from transfers of a run's own data."""

    bytes_per_s: Amount
    """That of the fastest of the last few transfers over an otherwise idle link."""
    transfers: Count
    """Number of transfers that were measured."""
    age_s: Amount
    """Time since the last one, in seconds."""


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
    memory_bytes: Count
    """Resident memory of the agent's process."""
    cached: Count
    """Number of block models in the cache."""
    present: tuple[str, ...]
    """The other members present, as this agent sees them."""
    certificate_ends_unix_s: UnixTime | None = None
    """End of its certificate; None without one."""
    run: str | None = None
    """The newest run; None for an idle agent."""
    holdings: tuple[Holding, ...] = ()
    """Who holds the agent, the first one first."""
    dropped: Count = 0
    """Number of samples dropped since the agent started, because their coordinator had gone or lost the agent."""
    policy: str | None = None
    device_class: str | None = None
    """The device class of this worker in the run's scenario."""
    loaded: dict[str, tuple[Count, ...]] = {}
    """Blocks in memory, by model, of all runs."""
    queued: Count = 0
    """Number of waiting tasks of all runs, without those that are running."""
    running: str | None = None
    """The sample whose block is running."""
    links: dict[str, LinkSpeed] = {}
    """Speed of the links to other agents, where a run has sent enough over them."""


class Flood(FrozenModel):
    """Requests an agent to saturate its link to another one; the receiver reports the throughput."""

    kind: Literal["flood"] = "flood"
    flood: str
    to: str
    duration_s: Annotated[float, Field(gt=0, le=LONGEST_FLOOD_S, allow_inf_nan=False)]


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
    size_bytes: Count
    """Bytes received once the flow had settled."""
    took_s: Amount


class Ping(FrozenModel):
    """Requests an agent to measure round trips to another one."""

    kind: Literal["ping"] = "ping"
    to: str
    times: Annotated[int, Field(ge=1, le=10_000)]


class Echo(FrozenModel):
    """One direction of a round trip; ``back`` marks the reply, with the replier's wall clock in seconds since 1970."""

    kind: Literal["echo"] = "echo"
    run: str = ""
    """The run, or the measurement, to which the round trip belongs."""
    number: Count
    back: bool = False
    unix_s: UnixTime = 0.0


class Pinged(FrozenModel):
    """Round trips in seconds, by the clock of the measuring agent."""

    kind: Literal["pinged"] = "pinged"
    worker: str
    to: str
    round_trip_s: Annotated[tuple[Amount, ...], Field(min_length=1)]
