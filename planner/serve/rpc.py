"""The gRPC side of the service."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final, NoReturn

import grpc
import grpc.aio
from numpy.typing import NDArray

from planner.serve.about import EXTENSIONS, PLATFORM, SERVER, metadata_version
from planner.serve.gateway import VERSION, Gateway, InferenceRequest
from planner.serve.protocol.messages import RESPONSES, SERVICE, message_classes
from planner.serve.refusals import Reason, RefusalError
from planner.serve.rest import check_output, refuse_shared_memory, request_options
from planner.serve.tensors import DATATYPES, RAW_ONLY, datatype_of, from_bytes, from_list, largest_text_bytes, to_bytes
from planner.serve.traffic import Traffic

_HEADER_BYTES: Final = 2**16

_PREFIX: Final = f"/{SERVICE.full_name}/"

_CONTENTS: Final = {
    "BOOL": "bool_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    "INT64": "int64_contents",
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
}
"""Field of a tensor's values by datatype."""

_OTHERS: Final = {
    "Shared": "shared memory is not offered; send and receive the data itself",
    "Repository": "models are those of the plan; GET /v2/repository/index lists them",
}
"""What is said of methods that other servers offer, by a part of the name."""

Answer = Callable[[Any, grpc.aio.ServicerContext[Any, Any]], Awaitable[Any]]


class GrpcService(grpc.GenericRpcHandler):  # type: ignore[misc] # grpc has no types
    """Methods of one service."""

    def __init__(self, gateway: Gateway, traffic: Traffic) -> None:
        self._gateway = gateway
        self._traffic = traffic
        answers: dict[str, Answer] = {
            "ServerLive": self._live,
            "ServerReady": self._ready,
            "ModelReady": self._model_ready,
            "ServerMetadata": self._server,
            "ModelMetadata": self._model,
            "ModelInfer": self._infer,
        }
        self._handlers = {_PREFIX + name: _handler(name, answer) for name, answer in answers.items()}

    @property
    def largest_request_bytes(self) -> int:
        """Size of a request, at most."""
        return _HEADER_BYTES + max(largest_text_bytes(model.inputs) for model in self._gateway.models.values())

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        """Return the handler of a method."""
        method = handler_call_details.method
        if method in self._handlers or not method.startswith(_PREFIX):
            return self._handlers.get(method)
        return grpc.stream_stream_rpc_method_handler(_refuser(method.removeprefix(_PREFIX)))

    async def _live(self, _request: Any, _context: object) -> Any:
        return RESPONSES["ServerLive"](live=True)

    async def _ready(self, _request: Any, _context: object) -> Any:
        return RESPONSES["ServerReady"](ready=self._gateway.ready)

    async def _model_ready(self, request: Any, context: Any) -> Any:
        try:
            self._gateway.model(request.name, request.version)
        except RefusalError as error:
            await _abort(context, error)
        return RESPONSES["ModelReady"](ready=self._gateway.is_ready(request.name))

    async def _server(self, _request: Any, _context: object) -> Any:
        return RESPONSES["ServerMetadata"](name=SERVER, version=metadata_version(), extensions=EXTENSIONS)

    async def _model(self, request: Any, context: Any) -> Any:
        answer = RESPONSES["ModelMetadata"](name=request.name, versions=[VERSION], platform=PLATFORM)
        try:
            served = self._gateway.model(request.name, request.version)
            for field, specs in ((answer.inputs, served.inputs), (answer.outputs, served.outputs)):
                for spec in specs:
                    field.add(name=spec.name, datatype=datatype_of(spec), shape=spec.shape)
        except RefusalError as error:
            await _abort(context, error)
        return answer

    async def _infer(self, message: Any, context: Any) -> Any:
        try:
            with self._traffic.request(message.model_name, "grpc"):
                request = read_request(message, context.time_remaining())
                return write_response(message, await self._gateway.infer(request))
        except RefusalError as error:
            await _abort(context, error)


def _handler(name: str, answer: Answer) -> grpc.RpcMethodHandler:
    request, response = message_classes(SERVICE.methods_by_name[name])
    return grpc.unary_unary_rpc_method_handler(answer, request.FromString, response.SerializeToString)


def _refuser(name: str) -> Callable[..., Awaitable[None]]:
    hints = [hint for part, hint in _OTHERS.items() if part in name]
    message = f"{name} is not offered" + (f": {hints[0]}" if hints else "")

    async def refuse(_requests: object, context: Any) -> None:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, message)

    return refuse


async def _abort(context: Any, error: RefusalError) -> NoReturn:
    trailing: tuple[tuple[str, str], ...] = ()
    if error.retry_after_s is not None:
        trailing = (("retry-after", f"{error.retry_after_s}"), ("grpc-retry-pushback-ms", f"{error.retry_after_s}000"))
    await context.abort(grpc.StatusCode[error.reason.grpc], error.message, trailing)
    raise AssertionError("abort raises")


def read_request(message: Any, left_s: float | None) -> InferenceRequest:
    """Read an inference request.

    Parameters
    ----------
    left_s
        What is left of the client's own deadline, in seconds; None without one.

    Raises
    ------
    RefusalError
        If it does not follow the protocol, or asks for what this service does not offer.
    """
    received_s = time.monotonic()
    priority, timeout_us = request_options(_parameters(message.parameters))
    if left_s is not None:
        left_us = max(left_s * 1e6, 1.0)
        timeout_us = min(timeout_us, left_us) if timeout_us else left_us
    for output in message.outputs:
        check_output(output.name, _parameters(output.parameters))
    for entry in message.inputs:
        refuse_shared_memory(f"input {entry.name}", _parameters(entry.parameters))
    inputs: dict[str, NDArray[Any]] = {}
    raw = message.raw_input_contents
    if raw and len(raw) != len(message.inputs):
        found = f"{len(raw)} for {len(message.inputs)} inputs"
        raise RefusalError(Reason.INVALID, f"raw_input_contents has not one entry for each input; found {found}")
    for index, entry in enumerate(message.inputs):
        if entry.name in inputs:
            raise RefusalError(Reason.INVALID, f"input {entry.name}: it is there twice")
        if raw and entry.HasField("contents"):
            raise RefusalError(Reason.INVALID, f"input {entry.name}: it has both contents and raw_input_contents")
        tensor = (entry.name, entry.datatype, list(entry.shape))
        inputs[entry.name] = from_bytes(*tensor, raw[index]) if raw else from_list(*tensor, _contents(entry))
    names = [output.name for output in message.outputs] or None
    return InferenceRequest(
        message.model_name, message.model_version, message.id, inputs, names, priority, timeout_us, received_s
    )


def _contents(entry: Any) -> list[Any]:
    """Return the values of a tensor, which must be in the field of its datatype."""
    wanted = _CONTENTS.get(entry.datatype)
    others = [field.name for field, _ in entry.contents.ListFields() if field.name != wanted]
    if others and wanted is not None:
        message = f"input {entry.name}: values of {entry.datatype} are in {wanted}; found {others[0]}"
        raise RefusalError(Reason.INVALID, message)
    return list(getattr(entry.contents, wanted)) if wanted is not None else []


def _parameters(parameters: Any) -> Mapping[str, object]:
    """Return the values of parameters, each of the type that it was sent as."""
    return {
        name: getattr(value, value.WhichOneof("parameter_choice") or "bool_param") for name, value in parameters.items()
    }


def write_response(message: Any, outputs: Mapping[str, NDArray[Any]]) -> Any:
    """Return the response: in raw bytes if the request's inputs are, or an output has no other form."""
    answer = RESPONSES["ModelInfer"](model_name=message.model_name, model_version=VERSION, id=message.id)
    raw = bool(message.raw_input_contents) or _raw_only(outputs.values())
    for name, array in outputs.items():
        datatype = DATATYPES[array.dtype.name]
        entry = answer.outputs.add(name=name, datatype=datatype, shape=array.shape)
        if raw:
            answer.raw_output_contents.append(bytes(to_bytes(array)))
        else:
            getattr(entry.contents, _CONTENTS[datatype]).extend(array.ravel().tolist())
    return answer


def _raw_only(arrays: Iterable[NDArray[Any]]) -> bool:
    return any(DATATYPES[array.dtype.name] in RAW_ONLY for array in arrays)
