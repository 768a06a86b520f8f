"""What the coordinator asks agents outside of runs, and what they answer: on themselves, on the ways between them."""

from __future__ import annotations

from typing import Literal

from planner.base import FrozenModel


class Ask(FrozenModel):
    """Asks an agent about itself."""

    kind: Literal["ask"] = "ask"


class About(FrozenModel):
    """What an agent says of itself."""

    kind: Literal["about"] = "about"
    worker: str
    version: str
    python: str
    zenoh: str
    device: dict[str, str]
    """The device and its operating system; on a Jetson also L4T release and power mode."""
    onnxruntime: str | None
    """Its version; None where it is not installed."""
    providers: tuple[str, ...]
    """Execution providers that blocks could run with here."""
    provider: str
    """The one that they run with."""
    memory_bytes: int
    """Resident memory of the agent's process."""
    cached: int
    """Block models in its cache."""
    present: tuple[str, ...]
    """The other members that this agent sees."""
    run: str | None = None
    """The run at hand; None for an idle agent."""
    policy: str | None = None
    device_class: str | None = None
    """What the run's scenario takes the device for."""
    loaded: dict[str, tuple[int, ...]] = {}
    """Blocks in memory, of each model of the run."""
    queued: int = 0
    """Tasks that wait, the one that runs not counted."""
    running: str | None = None
    """The sample that is worked on."""


class Flood(FrozenModel):
    """Asks an agent to fill its way to another one for some time; the receiver tells the coordinator what came."""

    kind: Literal["flood"] = "flood"
    flood: str
    to: str
    duration_s: float


class Chunk(FrozenModel):
    """A part of a flood; its bytes travel as the tensor ``bytes``, and none with the last one."""

    kind: Literal["chunk"] = "chunk"
    flood: str
    last: bool = False


class Flooded(FrozenModel):
    """How a flood came, by the receiver's clock."""

    kind: Literal["flooded"] = "flooded"
    worker: str
    flood: str
    size_bytes: int
    """What came once the flow had settled."""
    took_s: float


class Ping(FrozenModel):
    """Asks an agent to measure round trips to another one."""

    kind: Literal["ping"] = "ping"
    to: str
    times: int


class Echo(FrozenModel):
    """One way of a round trip; ``back`` is the other, with the time of the wall clock there, in seconds since 1970."""

    kind: Literal["echo"] = "echo"
    number: int
    back: bool = False
    unix_s: float = 0.0


class Pinged(FrozenModel):
    """Round trips in seconds, by the clock of the agent that measured them."""

    kind: Literal["pinged"] = "pinged"
    worker: str
    to: str
    round_trip_s: tuple[float, ...]
