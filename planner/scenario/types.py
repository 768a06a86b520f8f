"""What a scenario file says (``planner/scenario/v1``), in SI units.

Attributes carry their unit in the name; the file's keys (the aliases) carry it in the value: ``bandwidth: 54 Mbit/s``
becomes ``bandwidth_bytes_per_s = 6.75e6``. :mod:`planner.scenario.load` passes the reader of quantities as validation
context, and with it a bare number is refused. Without it (a scenario that one program hands to another) numbers are SI.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, ValidationInfo

from planner.profile.types import Record

SCHEMA: Final = "planner/scenario/v1"

QuantityReader = Callable[[object, str], float]
"""``reader(value, kind)`` gives the SI value of a quantity such as ``54 Mbit/s`` of kind ``bandwidth``."""


def _quantity(kind: str) -> BeforeValidator:
    def read(value: Any, info: ValidationInfo) -> Any:
        reader: QuantityReader | None = (info.context or {}).get("quantity")
        return value if reader is None or value is None else reader(value, kind)

    return BeforeValidator(read, json_schema_input_type=Annotated[str, Field(json_schema_extra={"quantity": kind})])


Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False), _quantity("time")]
Bytes = Annotated[float, Field(ge=0, allow_inf_nan=False), _quantity("memory")]
BytesPerSecond = Annotated[float, Field(gt=0, allow_inf_nan=False), _quantity("bandwidth")]
PerSecond = Annotated[float, Field(gt=0, allow_inf_nan=False), _quantity("rate")]
Fraction = Annotated[float, Field(ge=0, le=1), _quantity("fraction")]
Factor = Annotated[float, Field(gt=0, allow_inf_nan=False, strict=True)]
Count = Annotated[int, Field(ge=1, strict=True)]


class ModelSpec(Record):
    """A model: an ONNX file, or a profile alone (enough to solve and to simulate)."""

    path: str | None = None
    """ONNX file, relative to the scenario file."""
    profile: str | None = None
    """Name of a profile: finds ``<folder>/<device-class>/<name>.json`` in the ``profiles:`` folders."""
    max_blocks: Count = 8
    shape: dict[str, tuple[Count, ...]] | None = None
    """Shapes of inputs with dynamic axes."""


class WorkerSpec(Record):
    """A device."""

    device_class: str
    memory_bytes: Bytes = Field(alias="memory")
    base_memory_bytes: Bytes = Field(default=200 * 2**20, alias="base_memory")
    """What the agent itself takes, before any block is resident."""
    speed: Factor = 1.0
    """Scales the profile: block times are divided by it."""


class NetworkSpec(Record):
    """A network: a shared medium, or point-to-point links with one resource per direction."""

    kind: Literal["shared", "point-to-point"]
    members: tuple[str, ...] = ()
    """Workers on a shared medium."""
    links: tuple[tuple[str, str], ...] = ()
    """Pairs of workers joined by a point-to-point link."""
    bandwidth_bytes_per_s: BytesPerSecond = Field(alias="bandwidth")
    latency_s: Seconds = Field(default=0.0, alias="latency")
    relay: Literal["none", "access-point"] = "none"
    """``access-point``: every transfer crosses the medium twice."""


class SourceSpec(Record):
    """A stream of samples that arrives at a worker."""

    worker: str
    models: tuple[str, ...] = Field(min_length=1)
    rate_per_s: PerSecond | None = Field(default=None, alias="rate")
    priority: Factor = 1.0
    """Positive weight in the objective; larger is more important."""
    samples: Count = 1000
    deadline_s: Seconds | None = Field(default=None, alias="deadline")
    """Bound on the mean delay."""
    min_accuracy: Fraction | None = None
    arrivals: Literal["poisson", "constant", "batch", "trace"] = "poisson"
    trace: str | None = None
    """For ``arrivals: trace``: a text file of arrival times in seconds, one a line, relative to the scenario file."""


class ObjectiveSpec(Record):
    """What a good plan is."""

    goal: Literal["delay", "throughput", "makespan"] = "delay"
    accuracy_worth_s: Seconds = Field(default=0.0, alias="accuracy_worth")
    """The delay that one percentage point of accuracy is worth."""
    service_cv: Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)] = 1.0
    """Coefficient of variation of service times in the surrogate."""


class PolicySpec(Record):
    """What the online policies need beyond the networks."""

    ring: tuple[str, ...] | None = None
    neighbours: dict[str, tuple[str, ...]] | None = None


class EventSpec(Record):
    """Something that happens during the run."""

    at_s: Seconds = Field(alias="at")
    action: Literal["leave", "join", "slow", "recover", "rate", "priority", "bandwidth"]
    worker: str | None = None
    source: str | None = None
    network: str | None = None
    factor: Factor | None = None
    rate_per_s: PerSecond | None = Field(default=None, alias="rate")
    priority: Factor | None = None
    bandwidth_bytes_per_s: BytesPerSecond | None = Field(default=None, alias="bandwidth")


class Scenario(Record):
    """Sources, workers and networks, and what is wanted of them."""

    schema_: Literal["planner/scenario/v1"] = Field(default=SCHEMA, alias="schema")
    profiles: tuple[str, ...] = Field(default=("../../profiles",), min_length=1)
    """Folders of profiles, relative to the scenario file."""
    models: dict[str, ModelSpec] = Field(min_length=1)
    workers: dict[str, WorkerSpec] = Field(min_length=1)
    networks: dict[str, NetworkSpec] = {}
    sources: dict[str, SourceSpec] = Field(min_length=1)
    objective: ObjectiveSpec = ObjectiveSpec()
    policy: PolicySpec = PolicySpec()
    events: tuple[EventSpec, ...] = ()
