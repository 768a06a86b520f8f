"""Read ONNX files, and check their contents and references.

The file is memory-mapped and parsed once. Weights in other files (external data) are loaded only when a block that uses
them is written.
"""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PurePosixPath, PureWindowsPath

import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, defs, helper
from onnx.external_data_helper import ExternalDataInfo, uses_external_data

from planner.errors import Fault, ModelError
from planner.files import real_path
from planner.model.functions import RuntimeNode, inline
from planner.model.inlining import bodies
from planner.schemas import kind_of, stated_schema

# com.microsoft is the domain of onnxruntime's own operators. Functions defined in the model are inlined.
KNOWN_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
KNOWN_TYPES = frozenset(helper.get_all_tensor_dtypes())

HASH_CHUNK_BYTES = 1 << 22
_BEGINNING_BYTES = 1 << 16


@dataclass(frozen=True)
class ModelSource:
    """A parsed model file.

    Parameters
    ----------
    path
        The file.
    proto
        Contents of the file, without external data.
    sha256
        Hash over the file and all files of external data.
    external
        The files of external data by the location that tensors name, sorted by it; links are resolved.
    runtime_nodes
        What onnxruntime makes of each node of the graph, in the same order; empty if unknown.
    """

    path: Path
    proto: onnx.ModelProto
    sha256: str
    external: Mapping[str, Path]
    runtime_nodes: tuple[RuntimeNode, ...] = ()

    @cached_property
    def joined_sha256(self) -> str:
        """Hash of the file and of all files of external data as one: earlier versions' ``sha256`` on Python 3.10."""
        digest = hashlib.sha256()
        for path in (self.path, *self.external.values()):
            _hash_file(path, digest)
        return digest.hexdigest()

    def embedded(self, tensor: TensorProto) -> TensorProto:
        """Return a tensor with its data, loaded from its file if the data is external."""
        if not uses_external_data(tensor):
            return tensor
        copy = TensorProto()
        copy.CopyFrom(tensor)
        self._fetch(copy)
        return copy

    def embedded_node(self, node: onnx.NodeProto) -> onnx.NodeProto:
        """Return a node with the data of all tensors in its attributes and bodies."""
        if not (self.external and any(uses_external_data(tensor) for tensor in node_tensors(node))):
            return node
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        for tensor in node_tensors(copy):
            self._fetch(tensor)
        return copy

    def whole(self) -> bytes:
        """Return the whole model as one self-contained ONNX file."""
        if not self.external:
            return self.path.read_bytes()
        return bytes(self.copied(embed=True).SerializeToString(deterministic=True))

    def copied(self, *, embed: bool) -> onnx.ModelProto:
        """Return a copy of the model, with or without its external data."""
        model = onnx.ModelProto()
        model.CopyFrom(self.proto)
        for tensor in _graph_tensors(model.graph) if embed else ():
            self._fetch(tensor)
        return model

    def _fetch(self, tensor: TensorProto) -> None:
        """Load a tensor's data into the tensor if the data is external."""
        if not uses_external_data(tensor):
            return
        # onnx's own loader refuses links, and so every model in the cache of a hub.
        info = ExternalDataInfo(tensor)
        try:
            with self.external[info.location].open("rb") as file:
                file.seek(info.offset or 0)
                data = file.read(-1 if info.length is None else info.length)
        except OSError as error:
            where = f"{self.path}, tensor {tensor.name!r}"
            raise ModelError(f"external data cannot be read ({error.strerror})", where=where) from None
        if len(data) < (info.length or 0):
            where = f"{self.path}, tensor {tensor.name!r}"
            raise ModelError("external data ends early", where=where, value=len(data), expected=f"{info.length} bytes")
        tensor.raw_data = data
        tensor.data_location = TensorProto.DEFAULT
        del tensor.external_data[:]


def read_model(path: Path) -> ModelSource:
    """Read and check a model file.

    Raises
    ------
    ModelError
        If the file is missing, is not an ONNX file, is truncated, uses an unknown operator domain, or refers to
        external data that is missing, too short or outside the model's folder. There is one fault per file.
    """
    proto, digest = _parse(path)
    proto, runtime_nodes = inline(proto, str(path))
    _trim_absent(proto.graph, {opset.domain: opset.version for opset in proto.opset_import})
    faults = [*_domain_faults(proto.graph, str(path))]
    tensors = list(_graph_tensors(proto.graph))
    faults += [fault for tensor in tensors if (fault := _tensor_fault(tensor, path))]
    external = [tensor for tensor in tensors if uses_external_data(tensor)]
    faults += _external_faults(external, path)
    if faults:
        raise ModelError(faults)
    locations = sorted({ExternalDataInfo(tensor).location for tensor in external})
    files = {location: real_path(path.parent / location) for location in locations}
    for file in files.values():
        own = hashlib.sha256()
        _hash_file(file, own)
        digest.update(own.digest())
    return ModelSource(path, proto, digest.hexdigest(), files, runtime_nodes)


def _trim_absent(graph: onnx.GraphProto, versions: Mapping[str, int]) -> None:
    """Drop absent optional inputs and outputs at the end of nodes.

    An empty name and no name mean the same, but ONNX's shape inference takes an empty one for a given input, and then
    fails or infers another shape (``SplitToSequence``, ``MaxUnpool``).
    """
    for node in graph.node:
        schema = _schema(node, versions) if "" in (*node.input[-1:], *node.output[-1:]) else None
        if schema is not None:
            for names, fewest in ((node.input, schema.min_input), (node.output, schema.min_output)):
                while len(names) > fewest and not names[-1]:
                    del names[-1]
        for body in bodies(node):
            _trim_absent(body, versions)


def _schema(node: onnx.NodeProto, versions: Mapping[str, int]) -> defs.OpSchema | None:
    domain = "" if node.domain == "ai.onnx" else node.domain
    try:
        return defs.get_schema(node.op_type, versions.get(domain, versions.get("ai.onnx", 1)), domain)
    except (defs.SchemaError, TypeError):  # TypeError: a damaged file's names may be bytes, and its versions too large
        return None


def _parse(path: Path) -> tuple[onnx.ModelProto, hashlib._Hash]:
    expected = "an ONNX model file"
    proto = onnx.ModelProto()
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            digest = hashlib.sha256(mapped)
            with memoryview(mapped) as view:
                proto.ParseFromString(view)
    except FileNotFoundError:
        raise ModelError("no such file", where=str(path), expected=expected) from None
    except (OSError, ValueError) as error:  # ValueError: an empty file cannot be mapped
        raise ModelError(f"cannot be read ({error})", where=str(path), expected=expected) from None
    except DecodeError:
        with path.open("rb") as file:
            kind = kind_of(stated_schema(file.read(_BEGINNING_BYTES)))
        if kind:
            raise ModelError(f"the file is {kind}, not a model", where=str(path), expected=expected) from None
        raise ModelError("not an ONNX file, or truncated", where=str(path), expected=expected) from None
    if not (proto.opset_import and proto.graph.node and proto.graph.output):
        raise ModelError("contains no ONNX graph with nodes and outputs", where=str(path), expected=expected)
    return proto, digest


def _hash_file(path: Path, digest: hashlib._Hash) -> None:
    """Feed a file to a hash, in pieces: files of external data may be larger than memory."""
    try:
        with path.open("rb") as file:
            while piece := file.read(HASH_CHUNK_BYTES):
                digest.update(piece)
    except OSError as error:
        raise ModelError(f"cannot be read ({error.strerror})", where=str(path)) from None


def node_tensors(node: onnx.NodeProto) -> Iterator[TensorProto]:
    """Yield the tensors in a node's attributes and bodies, those of which sparse tensors consist among them."""
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.TENSOR:
            yield attribute.t
        yield from attribute.tensors
        if attribute.type == onnx.AttributeProto.SPARSE_TENSOR:
            yield from (attribute.sparse_tensor.values, attribute.sparse_tensor.indices)
    for body in bodies(node):
        yield from _graph_tensors(body)


def _graph_tensors(graph: onnx.GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        yield from node_tensors(node)


def _domain_faults(graph: onnx.GraphProto, where: str) -> Iterator[Fault]:
    for node in graph.node:
        if node.domain not in KNOWN_DOMAINS:
            yield Fault(
                f"operator {node.op_type} belongs to an unknown domain",
                f"{where}, node {node.name!r}",
                node.domain,
                "an operator of ONNX, ONNX-ML or onnxruntime (com.microsoft)",
            )
        for body in bodies(node):
            yield from _domain_faults(body, where)


def _tensor_fault(tensor: TensorProto, path: Path) -> Fault | None:
    if tensor.data_type in KNOWN_TYPES and min(tensor.dims, default=0) >= 0:
        return None
    actual = f"type {tensor.data_type}, shape {list(tensor.dims)}"
    return Fault("malformed tensor", f"{path}, tensor {tensor.name!r}", actual, "an ONNX type and sizes of 0 or more")


def _external_faults(tensors: Iterable[TensorProto], path: Path) -> list[Fault]:
    """Return one fault per file that cannot be used, with the number of tensors in it."""
    faults: dict[tuple[str, object], tuple[Fault, int]] = {}
    for tensor in tensors:
        if fault := _external_fault(tensor, path):
            first, count = faults.get((fault.what, fault.value), (fault, 0))
            faults[fault.what, fault.value] = first, count + 1
    return [
        fault if count == 1 else replace(fault, where=f"{fault.where} and {count - 1} more")
        for fault, count in faults.values()
    ]


def _external_fault(tensor: TensorProto, path: Path) -> Fault | None:
    """Return a fault if a reference to external data is invalid or, as in a path traversal, leaves the folder.

    As in onnxruntime, the file may be a link if it leads to a file below the folder of the model or, if the model is a
    link itself, of the file it leads to. In the cache of a hub, both are links into one folder.
    """
    where = f"{path}, tensor {tensor.name!r}"
    expected = (
        "a file below the model's own folder; a link may lead below the folder of the file to which the model leads"
    )
    try:
        info = ExternalDataInfo(tensor)
    except ValueError as error:
        return Fault(f"malformed reference to external data ({error})", where, expected=expected)
    location = info.location
    if "\0" in location:
        return Fault("malformed reference to external data", where, location, expected)
    relative = not (PurePosixPath(location).is_absolute() or PureWindowsPath(location).is_absolute())
    file, folders = real_path(path.parent / location), (real_path(path.parent), real_path(path).parent)
    if not (location and relative and any(file.is_relative_to(folder) for folder in folders)):
        return Fault("external data outside the model's folder is not allowed", where, location, expected)
    if not file.is_file():
        return Fault("external data is missing", where, location, "a file in the model's folder")
    if (info.offset or 0) + (info.length or 0) > file.stat().st_size:
        what = f"external data ends early: the file has {file.stat().st_size} bytes"
        return Fault(what, where, location, f"{info.length} bytes at {info.offset or 0}")
    return None
