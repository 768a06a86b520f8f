"""Message classes of ``open_inference_grpc.proto``, made of its compiled form in :mod:`descriptor`.

They have a pool of descriptors of their own: clients such as ``tritonclient`` define messages of the same names, and
the default pool of a process takes only one definition of a name.
"""

from __future__ import annotations

from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from planner.serve.protocol.descriptor import SERIALIZED

_FILE: Final = descriptor_pb2.FileDescriptorProto.FromString(SERIALIZED)


def _service() -> Any:
    pool = descriptor_pool.DescriptorPool()
    pool.Add(_FILE)
    return pool.FindServiceByName("inference.GRPCInferenceService")


SERVICE: Final = _service()
"""Descriptor of the service."""


def message_classes(method: Any) -> tuple[Any, Any]:
    """Return the classes of request and response of a method."""
    return message_factory.GetMessageClass(method.input_type), message_factory.GetMessageClass(method.output_type)


RESPONSES: Final = {method.name: message_classes(method)[1] for method in SERVICE.methods}
"""Class of the response of each method."""
