from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Iterator
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from planner.errors import ExecuteError
from planner.execution.wire.frames import VERSION, Frame, decode, encode, prepare
from planner.execution.wire.messages import Body, Data, Deploy, Start
from planner.policy.types import SampleKey, Status, Task
from planner.worker.events import (
    AnswerMessage,
    FailureMessage,
    Message,
    RequestMessage,
    ResultMessage,
    StatusMessage,
    TaskMessage,
)
from tests.execution.rig import SPLIT, small_deployment, small_instance

KEY = SampleKey("camera", 7, 1)
TASK = Task(KEY, "m", 0, 8.0, 0.5, 2, SPLIT.sources["urgent"].routes[0].stages)
MESSAGES: list[Message] = [
    TaskMessage(TASK),
    ResultMessage(KEY, 3),
    FailureMessage(KEY, "no memory"),
    RequestMessage(TASK, 4),
    AnswerMessage(KEY, None, 1),
    StatusMessage(Status(backlog_s=((8.0, 0.25),), queued=(("camera", 3),), per_parameter_s=(("camera", 1e-9),))),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: str(message.kind))
def test_messages_are_decoded_as_encoded(message: Message) -> None:
    data = Data(run="r", sender="a", message=message, cut=2, size_bytes=24, sent_s=1.5)
    tensors = {"x": np.arange(6, dtype=np.float32).reshape(2, 3), "mask": np.array([True, False])}
    found = decode(*encode(Frame(data, tensors)))
    assert found.body == data
    assert list(found.tensors) == ["x", "mask"]
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(found.tensors[name], tensor, strict=True)


@given(
    hnp.arrays(
        st.sampled_from([np.float32, np.float64, np.float16, np.int64, np.uint8, np.bool_]),
        hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4),
    )
)
def test_tensors_are_decoded_bit_for_bit_including_scalars_and_empty_ones(tensor: np.ndarray) -> None:
    found = decode(*encode(Frame(Start(run="r", at_unix_s=1.0), {"first": tensor, "again": tensor}))).tensors
    for name in ("first", "again"):
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape)
        assert found[name].tobytes() == tensor.tobytes()


@pytest.mark.parametrize(
    "tensor", [np.array([{}, []], object), np.array(["a"]), np.array([1j]), np.array(["2026-01-01"], "datetime64[D]")]
)
def test_a_tensor_of_a_dtype_that_cannot_be_sent_is_refused_by_its_sender(tensor: np.ndarray) -> None:
    with pytest.raises(
        ExecuteError, match=r"^x: a tensor of a dtype that cannot be sent; found '.*'; expected one of "
    ):
        encode(Frame(Start(run="r", at_unix_s=1.0), {"x": tensor}))


def test_a_tensor_in_another_byte_order_keeps_its_values() -> None:
    tensor = np.arange(6, dtype=np.dtype(np.float32).newbyteorder("S"))
    found = decode(*encode(Frame(Start(run="r", at_unix_s=1.0), {"x": tensor}))).tensors["x"]
    np.testing.assert_array_equal(found, np.arange(6, dtype=np.float32), strict=True)


def test_a_deployment_is_sent_without_its_files() -> None:
    instance = small_instance()
    deployment = small_deployment(instance, SPLIT)
    deploy = Deploy(
        run="r", instance=instance, plan=SPLIT, policy="planned", seed=3, models=dict(deployment.models),
        resident={"small": (0, 1)}, paced=True,
    )  # fmt: skip
    assert decode(*encode(Frame(deploy))).body == deploy


START = Frame(Start(run="r", at_unix_s=1.0), {"x": np.zeros((2, 3), np.float32)})
HEADER, PAYLOAD = (bytes(part) for part in encode(START))


def altered(**changes: object) -> bytes:
    return json.dumps(json.loads(HEADER) | changes).encode()


@pytest.mark.parametrize(
    ("header", "payload", "message"),
    [
        (b"\x80\x04pickle", PAYLOAD, "malformed header"),
        (b"", PAYLOAD, "malformed header"),
        (
            altered(v=9),
            PAYLOAD,
            f"another version of the wire format; found 9; expected {VERSION}; install the same version",
        ),
        (
            altered(v=1, body={"kind": "stop"}),
            PAYLOAD,
            f"another version of the wire format; found 1; expected {VERSION}",
        ),
        (altered(body={"kind": "shutdown"}), PAYLOAD, "malformed header"),
        (
            altered(body={"kind": "start", "run": "r", "at_unix_s": "now"}),
            PAYLOAD,
            "body.start.at_unix_s: malformed header",
        ),
        (
            altered(body={"kind": "start", "run": "r", "at_unix_s": math.nan}),
            PAYLOAD,
            "body.at_unix_s: a number must be finite",
        ),
        (
            altered(body={"kind": "start", "run": "r", "at_unix_s": -math.inf}),
            PAYLOAD,
            "body.at_unix_s: a number must be finite",
        ),
        (HEADER.replace(b"1.0", b"1e999"), PAYLOAD, "body.at_unix_s: a number must be finite"),
        (HEADER.replace(b"1.0", b"9" * 400), PAYLOAD, "body.at_unix_s: a number must be finite"),
        (altered(tensors=[{"name": "x", "dtype": "object", "shape": [3]}]), PAYLOAD, "cannot be sent"),
        (altered(tensors=[{"name": "x", "dtype": "float32", "shape": [-1]}]), PAYLOAD, "cannot be sent"),
        (altered(tensors=[{"name": "x", "dtype": "float32", "shape": [2**40, 2**40]}]), PAYLOAD, "cannot be sent"),
        (altered(tensors=[{"name": "x", "dtype": "float32", "shape": [0, 2**63]}]), b"", "cannot be sent"),
        (altered(tensors=[{"name": "x", "dtype": "bool", "shape": [0, 2**62, 2**62]}]), b"", "cannot be sent"),
        (altered(tensors=[{"name": "x", "dtype": "float32", "shape": [1] * 65}]), b"0000", "cannot be sent"),
        (altered(tensors=[{"name": "x", "dtype": "float32", "shape": [7]}]), PAYLOAD, "does not match its header"),
        (HEADER, PAYLOAD[:-1], "does not match its header"),
        (HEADER, PAYLOAD + b"x", "does not match its header"),
    ],
)
def test_malformed_frames_are_refused(header: bytes, payload: bytes, message: str) -> None:
    with pytest.raises(ExecuteError) as refused:
        decode(header, payload)
    assert message in str(refused.value)


_LEFT_UNBUILT = """
from typing import get_args

from planner.execution.wire.frames import prepare
from planner.execution.agent.event_log import EventLog
from planner.execution.wire.messages import Body
from planner.worker.events import STEPS

prepare()
EventLog(live=False)
print(*(body.__name__ for body in get_args(Body) if not body.__pydantic_complete__), end="")
print("steps" if not STEPS.pydantic_complete else "", end="")
"""


def test_validators_and_serializers_are_built_before_a_run() -> None:
    """Building them with the first message would stop all threads of an agent for as long as some blocks take."""
    told = subprocess.run([sys.executable, "-c", _LEFT_UNBUILT], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == ""


def test_names_may_look_like_numbers_that_are_not_finite() -> None:
    tensors = {name: np.ones(1, np.float32) for name in ("NaN", "-Infinity", "1e999", "9" * 300)}
    assert decode(*encode(Frame(Start(run="r", at_unix_s=1.0), tensors))).tensors == tensors


def unbounded(schema: object, place: str) -> Iterator[str]:
    """Yield the places of numbers without bounds; not in what is defined elsewhere, such as a scenario."""
    if isinstance(schema, dict):
        if schema.get("type") in {"number", "integer"}:
            low, high = ({kind, f"exclusive{kind.title()}"} & schema.keys() for kind in ("minimum", "maximum"))
            if not (low and high):
                yield place
        for key, inner in schema.items():
            yield from unbounded(inner, f"{place}.{key}")
    elif isinstance(schema, list):
        for index, inner in enumerate(schema):
            yield from unbounded(inner, f"{place}[{index}]")


def test_every_number_of_every_message_has_bounds() -> None:
    prepare()
    bodies = get_args(Body)
    found = {body.__name__: list(unbounded(body.model_json_schema()["properties"], "")) for body in bodies}
    assert found == {body.__name__: [] for body in bodies}


@pytest.mark.parametrize("value", ["NaN", "-1e18", "1e18", "Infinity", "null", '"soon"', "-1"])
def test_a_start_at_no_time_of_a_wall_clock_is_refused(value: str) -> None:
    header, payload = encode(Frame(Start(run="r", at_unix_s=12.5)))
    with pytest.raises(ExecuteError, match=r"malformed header"):
        decode(header.replace(b"12.5", value.encode()), payload)
