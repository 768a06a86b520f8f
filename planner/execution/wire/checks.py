"""Checks of the content of inbound messages against the deployment.

A worker accepts data of its run, from workers of the run, whose tensors fit their cut. The coordinator accepts reports
that name only what the run has, about the sender itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from math import isfinite
from typing import Any, Final

import numpy as np

from planner.errors import ExecuteError, ModelError
from planner.execution.wire.frames import Frame
from planner.execution.wire.messages import (
    MAX_SEED,
    MAX_TOKENS,
    TIMES,
    TOKENS,
    BlockFile,
    Data,
    Deploy,
    DeployedModel,
    Input,
    Load,
    MembershipChange,
    Ready,
    Replan,
    Start,
    Submit,
    WarmUpInput,
)
from planner.model.chain import SEQUENCE, TensorSpec
from planner.model.tokens import logits_of, roles
from planner.policy.types import RUN_STRIDE, Decoding, Status, Task, resource_of
from planner.scenario.instance import Instance
from planner.trace.records import BlockRecord, Origin, Record, SampleRecord
from planner.worker.events import (
    AnswerMessage,
    FailureMessage,
    ForgetMessage,
    Message,
    Parcel,
    RequestMessage,
    ResultMessage,
    StateMessage,
    StateRequest,
    StatusMessage,
    TaskMessage,
)

_LAST: Final = 2**53
"""Bound of the numbers of samples and attempts."""

_BURST: Final = 20
"""Number of refusals reported at once; afterwards one a second."""


def check_fits(deploy: Deploy, frame: Frame) -> None:
    """Check a message to a worker against its run; the ranges of its fields have been checked when it was decoded.

    Tensors may be missing: a worker no longer stores those of an attempt that is over.

    Raises
    ------
    ExecuteError
        Names what does not fit, its sender, the value found and the values expected.
    """
    check = _CHECKS.get(type(frame.body))
    if check is not None:
        check(deploy, frame.body, frame)


def _check_block_file(_deploy: Deploy, _body: BlockFile, frame: Frame) -> None:
    if list(frame.tensors) != ["file"] or frame.tensors["file"].dtype != np.uint8:
        found = ", ".join(f"{name} of {tensor.dtype}" for name, tensor in frame.tensors.items())
        raise ExecuteError("not one file", where=_where(frame), value=found, expected="a tensor file of uint8")


def _check_start(deploy: Deploy, body: Start, frame: Frame) -> None:
    for worker in body.absent:
        _known("worker", worker, deploy.instance.workers, frame)


def _check_member(deploy: Deploy, body: MembershipChange, frame: Frame) -> None:
    _known("worker", body.worker, deploy.instance.workers, frame)


def _check_replan(deploy: Deploy, body: Replan, frame: Frame) -> None:
    for source, plan in body.plan.sources.items():
        _known("source", source, deploy.instance.sources, frame)
        for route in plan.routes:
            _known("model", route.model, deploy.models, frame)
            points = len(deploy.instance.operating_points(route.model))
            _check_number("operating point", route.operating_point, points - 1, frame)
            for stage in route.stages:
                _known("worker", stage.worker, deploy.instance.workers, frame)
                last = len(deploy.models[route.model].block_sha256) - 1
                _check_number("block", stage.first_block, stage.last_block, frame)
                _check_number("block", stage.last_block, last, frame)


def _check_data(deploy: Deploy, body: Data, frame: Frame) -> None:
    for worker in (frame.sender, body.sender, *filter(None, [body.to])):
        _known("worker", worker, deploy.instance.workers, frame)
    _check_message(deploy, body.message, frame)


def _check_state(deploy: Deploy, message: StateRequest | StateMessage, frame: Frame) -> None:
    _known("model", message.model, deploy.models, frame)
    last = len(deploy.models[message.model].block_sha256) - 1
    if isinstance(message, StateMessage):
        _check_number("block", message.block, last, frame)
    else:
        _check_number("block", message.first_block, message.last_block, frame)
        _check_number("block", message.last_block, last, frame)
        _check_priority(deploy, message.priority, frame)


def _check_input(deploy: Deploy, body: Input | Submit, frame: Frame) -> None:
    _known("source", body.source, deploy.instance.sources, frame)
    _check_tensors(frame, deploy.models[deploy.instance.scenario.sources[body.source].models[0]].cuts[0])


def _check_submit(deploy: Deploy, body: Submit, frame: Frame) -> None:
    _check_input(deploy, body, frame)
    if body.priority is not None:
        _check_priority(deploy, body.priority, frame)
    if body.further is not None:
        _check_further(deploy, body, frame)


def _check_further(deploy: Deploy, body: Submit, frame: Frame) -> None:
    cuts = deploy.models[deploy.instance.scenario.sources[body.source].models[0]].cuts
    _check_number("sample", body.sample, RUN_STRIDE - 1, frame)
    try:
        roles(cuts[0], body.source)
        logits_of(cuts[-1], body.source)
    except ModelError as error:
        raise ExecuteError(error.faults) from error
    if SEQUENCE.name not in frame.tensors:
        raise ExecuteError("further steps of no sequence", where=_where(frame), expected=f"a tensor {SEQUENCE.name}")


def _check_priority(deploy: Deploy, priority: float, frame: Frame) -> None:
    priorities = {source.priority for source in deploy.instance.scenario.sources.values()}
    if priority not in priorities:
        expected = f"one of {', '.join(f'{known:g}' for known in sorted(priorities))}"
        raise ExecuteError("no such priority", where=_where(frame), value=priority, expected=expected)


def _check_warm_up(deploy: Deploy, body: WarmUpInput, frame: Frame) -> None:
    _known("model", body.model, deploy.models, frame)
    _check_number("cut", body.cut, len(deploy.models[body.model].block_sha256), frame)
    _check_tensors(frame, deploy.models[body.model].cuts[body.cut])


_CHECKS: Final[Mapping[type, Callable[[Deploy, Any, Frame], None]]] = {
    BlockFile: _check_block_file,
    Start: _check_start,
    MembershipChange: _check_member,
    Replan: _check_replan,
    Data: _check_data,
    Input: _check_input,
    Submit: _check_submit,
    WarmUpInput: _check_warm_up,
}


def _check_message(deploy: Deploy, message: Message, frame: Frame) -> None:
    if isinstance(message, StatusMessage):
        _check_status(deploy, message.status, frame)
    elif isinstance(message, ForgetMessage):
        _known("source", message.source, deploy.instance.sources, frame)
    else:
        _check_of_sample(deploy, message, frame)


def _check_of_sample(
    deploy: Deploy, message: Parcel | RequestMessage | AnswerMessage | StateRequest, frame: Frame
) -> None:
    _known("source", message.key.source, deploy.instance.sources, frame)
    for what, number in (("sample", message.key.sample), ("attempt", message.key.attempt)):
        _check_number(what, number, _LAST, frame)
    if isinstance(message, StateMessage | StateRequest):
        _check_state(deploy, message, frame)
    elif isinstance(message, TaskMessage | RequestMessage):
        _check_task(deploy, message.task, frame)
    if isinstance(message, TaskMessage):
        _check_tensors(frame, deploy.models[message.task.model].cuts[message.task.next_block])
    elif isinstance(message, ResultMessage):
        longest = max(len(model.block_sha256) for model in deploy.models.values())
        _check_number("cut", message.cut, longest, frame)
        if message.token:
            _check_token(frame)
        else:
            _check_result(deploy.instance, deploy.models, message.key.source, message.origin, frame)
    elif isinstance(message, FailureMessage):
        for worker in message.broken or ():
            _known("worker", worker, deploy.instance.workers, frame)


def _check_status(deploy: Deploy, status: Status, frame: Frame) -> None:
    instance = deploy.instance
    for worker, _ in status.links:
        _known("worker", worker, instance.workers, frame)
    for source, _ in status.per_parameter_s:
        _known("source", source, instance.sources, frame)
    for name, _ in status.booked:
        _known("worker or network", name, (*map(resource_of, instance.workers), *instance.resources), frame)


def _check_task(deploy: Deploy, task: Task, frame: Frame) -> None:
    _known("model", task.model, deploy.models, frame)
    _check_priority(deploy, task.priority, frame)
    length = len(deploy.models[task.model].block_sha256)
    stages = (*task.stages, *task.again, *task.state_at)
    blocks = [task.next_block, *(block for stage in stages for block in (stage.first_block, stage.last_block))]
    for block in blocks:
        _check_number("block", block, length, frame)
    for stage in stages:
        _known("worker", stage.worker, deploy.instance.workers, frame)
    if task.decoding is not None:
        _check_decoding(deploy, task.model, task.decoding, frame)


def _check_decoding(deploy: Deploy, model: str, decoding: Decoding, frame: Frame) -> None:
    """Check what says how a sequence goes on after a run: that the model has tokens, and numbers are in range."""
    cuts = deploy.models[model].cuts
    try:
        roles(cuts[0], model)
        logits_of(cuts[-1], model)
    except ModelError as error:
        raise ExecuteError(error.faults) from error
    numbers = {"number": decoding.number, "runs": decoding.runs, "context": decoding.context, "left": decoding.left}
    for what, number in numbers.items():
        _check_number(what, number, MAX_TOKENS, frame)
    for number in decoding.seed:
        _check_number("seed", number, MAX_SEED, frame)


def _check_token(frame: Frame) -> None:
    """Check that a result is one token; that of an attempt that is over has none."""
    for name, tensor in frame.tensors.items():
        _known("tensor", name, (TOKENS,), frame)
        if tensor.dtype != np.int64 or tensor.shape != (1,):
            value = f"{tensor.dtype} {list(tensor.shape)}"
            raise ExecuteError("not a token", where=_where(frame), value=value, expected="int64 [1]")


def _check_result(
    instance: Instance, models: Mapping[str, DeployedModel], source: str, origin: Origin | None, frame: Frame
) -> None:
    model = origin.model if origin else instance.scenario.sources[source].models[0]
    _known("model", model, models, frame)
    if origin is None or origin.exit is None:
        _check_tensors(frame, models[model].cuts[-1])
        return
    result_bytes = {point.name: point.result_bytes for point in instance.any_profile(model).exits}
    _known("exit", origin.exit, result_bytes, frame)
    for name, tensor in frame.tensors.items():
        _known("tensor", name, (origin.exit,), frame)
        if tensor.nbytes != result_bytes[origin.exit]:
            expected = f"{result_bytes[origin.exit]} bytes"
            raise ExecuteError(
                "a result of the wrong size", where=_where(frame), value=tensor.nbytes, expected=expected
            )


def _check_tensors(frame: Frame, cut: tuple[TensorSpec, ...]) -> None:
    specs = {spec.name: spec for spec in cut}
    for name, tensor in frame.tensors.items():
        _known("tensor", name, specs, frame)
        spec = specs[name]
        if tensor.dtype != np.dtype(spec.dtype) or not spec.fits(tensor.shape):
            found, expected = f"{tensor.dtype} {list(tensor.shape)}", f"{spec.dtype} {list(spec.shape)}"
            raise ExecuteError(
                "a tensor that does not fit the cut", where=f"{_where(frame)}: {name}", value=found, expected=expected
            )


def _known(what: str, name: str, known: Mapping[str, object] | tuple[str, ...], frame: Frame) -> None:
    if name not in known:
        raise ExecuteError(f"no such {what}", where=_where(frame), value=name, expected=f"one of {', '.join(known)}")


def _where(frame: Frame) -> str:
    return f"{frame.body.kind} from {frame.sender}"


def check_ready(models: Mapping[str, DeployedModel], frame: Frame, ready: Ready) -> None:
    """Check that a worker reports the times of the blocks of the deployed models.

    Raises
    ------
    ExecuteError
        As :func:`check_fits`.
    """
    for name, times_s in ready.warm_block_s.items():
        _known("model", name, models, frame)
        if len(times_s) != (blocks := len(models[name].block_sha256)):
            raise ExecuteError(
                "wrong number of block times", where=_where(frame), value=len(times_s), expected=str(blocks)
            )


def check_load(instance: Instance, frame: Frame, load: Load) -> None:
    """Check that a load names only networks and workers of the scenario.

    Raises
    ------
    ExecuteError
        As :func:`check_fits`.
    """
    for resource in load.carried_s:
        _known("network", resource, instance.resources, frame)
    for worker in (*load.links, *load.received_bytes):
        _known("worker", worker, instance.workers, frame)


def check_end(instance: Instance, frame: Frame, record: SampleRecord) -> None:
    """Check that the end of a sample is possible with the models of its source.

    Raises
    ------
    ExecuteError
        As :func:`check_fits`.
    """
    _check_times(frame, record.created_s, record.finished_s)
    if record.origin is not None:
        model, point = record.origin.model, record.origin.operating_point
        _known("model", model, instance.scenario.sources[record.source].models, frame)
        _check_number("operating point", point, len(instance.operating_points(model)) - 1, frame)
        if record.origin.exit is not None:
            _known("exit", record.origin.exit, tuple(point.name for point in instance.any_profile(model).exits), frame)


def check_live_result(
    instance: Instance, models: Mapping[str, DeployedModel], frame: Frame, record: SampleRecord
) -> None:
    """Check that the tensors with the end of a sample of a live run are its whole result, if it has one, or tokens.

    Raises
    ------
    ExecuteError
        As :func:`check_fits`.
    """
    origin = record.origin
    if record.status != "completed":
        return
    if {TOKENS, TIMES} & frame.tensors.keys():
        check_tokens(frame)
        return
    _check_result(instance, models, record.source, origin, frame)
    if origin is not None and origin.exit is not None:
        expected = {origin.exit}
    else:
        model = origin.model if origin is not None else instance.scenario.sources[record.source].models[0]
        expected = {spec.name for spec in models[model].cuts[-1]}
    if missing := expected - frame.tensors.keys():
        raise ExecuteError("an incomplete result", where=_where(frame), expected=f"also {', '.join(sorted(missing))}")


def check_tokens(frame: Frame) -> None:
    """Check the tokens of several steps, and the time of each.

    Raises
    ------
    ExecuteError
        As :func:`check_fits`.
    """
    for name in frame.tensors:
        _known("tensor", name, (TOKENS, TIMES), frame)
    found = [frame.tensors.get(name, np.empty(0)) for name in (TOKENS, TIMES)]
    fits = [tensor.dtype == dtype and tensor.ndim == 1 for tensor, dtype in zip(found, (np.int64, float), strict=True)]
    if not all(fits) or not 0 < len(found[0]) == len(found[1]) or not np.isfinite(found[1]).all():
        value = ", ".join(f"{tensor.dtype} {list(tensor.shape)}" for tensor in found)
        expected = "int64 and float64 of one length"
        raise ExecuteError("not tokens and their times", where=_where(frame), value=value, expected=expected)


def check_output(instance: Instance, models: Mapping[str, DeployedModel], frame: Frame, source: str) -> None:
    """Check that tensors are the output of a model of their source, the result of one exit, or a sequence's tokens.

    Raises
    ------
    ExecuteError
        As :func:`check_fits`.
    """
    source_models = instance.scenario.sources[source].models
    possible = [{spec.name for spec in models[model].cuts[-1]} for model in source_models]
    possible += [{point.name} for model in source_models for point in instance.any_profile(model).exits]
    if instance.scenario.sources[source].decode is not None:
        possible = [{TOKENS}]
    if frame.tensors.keys() not in possible:
        expected = " or ".join(", ".join(sorted(names)) for names in possible)
        value = ", ".join(frame.tensors)
        raise ExecuteError("not outputs of the source's models", where=_where(frame), value=value, expected=expected)


def check_log(instance: Instance, frame: Frame, records: Iterable[Record]) -> None:
    """Check that the records of a log are of its sender, and name only what the run has.

    Raises
    ------
    ExecuteError
        As :func:`check_fits`.
    """
    lengths = {name: max(map(instance.length, spec.models)) for name, spec in instance.scenario.sources.items()}
    for record in records:
        if isinstance(record, SampleRecord):
            raise ExecuteError("a log must not contain ends of samples", where=_where(frame))
        _known("source", record.source, lengths, frame)
        _check_times(frame, record.start_s, record.end_s)
        if isinstance(record, BlockRecord):
            recorder = record.worker
            _check_number("block", record.last, lengths[record.source] - 1, frame)
            _check_number("block", record.block, record.last, frame)
            _check_number("batch", record.batch - 1, instance.scenario.sources[record.source].max_batch - 1, frame)
        else:
            recorder = record.receiver
            _known("worker", record.sender, instance.workers, frame)
            _check_number("cut", record.cut, lengths[record.source], frame)
        if recorder != frame.sender:
            raise ExecuteError("a record of another worker", where=_where(frame), value=recorder, expected=frame.sender)


def _check_number(what: str, number: int, last: int, frame: Frame) -> None:
    if not 0 <= number <= last:
        raise ExecuteError(f"no such {what}", where=_where(frame), value=number, expected=f"0 to {last}")


def _check_times(frame: Frame, *times_s: float) -> None:
    if not all(map(isfinite, times_s)):
        raise ExecuteError(
            "invalid time", where=_where(frame), value=list(times_s), expected="finite numbers of seconds"
        )


class Refusals:
    """Reports refusals at a limited rate, so that a flood of bad messages does not cause a flood of reports.

    Parameters
    ----------
    report
        ``report(sender, what)``.
    """

    def __init__(self, report: Callable[[str, str], None]) -> None:
        self._report = report
        self._left = float(_BURST)
        self._since_s = time.monotonic()
        self._unreported = 0

    def add(self, sender: str, what: str) -> None:
        """Report a refusal, or count it for the next report."""
        now_s = time.monotonic()
        self._left = min(self._left + (now_s - self._since_s), _BURST)
        self._since_s = now_s
        if self._left < 1:
            self._unreported += 1
            return
        self._left -= 1
        self._report(sender, f"{what} ({self._unreported} more were refused before)" if self._unreported else what)
        self._unreported = 0
