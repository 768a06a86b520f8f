"""Modules to which nodes belong, as exporters record them: names of blocks, and borders that suit people.

``torch.onnx`` writes the path of modules into the node's metadata, ``pkg.torch.onnx.name_scopes`` or, before PyTorch
2.5, ``namespace`` alone; earlier exporters, and builders of language models, write it into the node's name:
``/layer1/layer1.0/conv1/Conv``. A scope is such a path in single steps, without the operator:
``("layer1", "0", "conv1")``. onnxruntime's annotation ``layer_ann`` names a group of nodes likewise.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import onnx

NAME_SCOPES: Final = "pkg.torch.onnx.name_scopes"
NAMESPACE: Final = "namespace"
LAYER: Final = "layer_ann"
MOST_LETTERS: Final = 80
"""Length to which the names of blocks are cut."""

Scope = tuple[str, ...]


def metadata(node: onnx.NodeProto, key: str) -> str:
    """Return an entry of a node's metadata; empty if there is none."""
    return _text(next((entry.value for entry in node.metadata_props if entry.key == key), ""))


def _text(content: str | bytes) -> str:
    """Return a name; empty if it is none, as in a damaged file."""
    return content if isinstance(content, str) else ""


def scope_of(node: onnx.NodeProto) -> Scope:
    """Return the path of modules to which a node belongs; empty if nothing tells it."""
    return _steps(
        _listed(metadata(node, NAME_SCOPES)) or _namespace(metadata(node, NAMESPACE)) or _from_name(_text(node.name))
    )


def _listed(text: str) -> list[str]:
    """Return the names in a list such as ``['', 'encoder', 'encoder.layer.0', 'add']``, without the operator's."""
    try:
        names = ast.literal_eval(text) if text else []
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return []
    is_list = isinstance(names, list) and all(isinstance(name, str) for name in names)
    return names[:-1] if is_list else []


def _namespace(text: str) -> list[str]:
    """Return the names in ``: Model/encoder: Encoder/encoder.layer.0: Layer/add: aten.add``."""
    return [part.partition(":")[0].strip() for part in text.split("/")][:-1]


def _from_name(name: str) -> list[str]:
    return name.split("/")[1:-1] if name.startswith("/") else []


def _steps(names: Sequence[str]) -> Scope:
    """Return single steps: exporters repeat the names of outer modules, wholly or from the last one on."""
    steps: list[str] = []
    for name in filter(None, names):
        parts = name.split(".")
        known = next((size for size in range(len(steps), 0, -1) if parts[:size] == steps[-size:]), 0)
        steps += parts[known:]
    return tuple(steps)


def block_scope(nodes: Sequence[onnx.NodeProto]) -> str:
    """Return the modules that a block spans, such as ``encoder.layer.0..encoder.layer.2``; empty if none are known."""
    scopes = [scope for scope in map(scope_of, nodes) if scope]
    if not scopes:
        return ""
    depth = _shared(min(scopes), max(scopes)) + 1
    first, last = ".".join(scopes[0][:depth]), ".".join(scopes[-1][:depth])
    return (first if first == last else f"{first}..{last}")[:MOST_LETTERS]


def nesting(nodes: Sequence[onnx.NodeProto]) -> list[float]:
    """Return how deep inside modules each cut between nodes lies.

    Returns
    -------
    list of float
        For each of n + 1 cuts the share, from 0 to 1, of the deepest module's path that both neighbours have in common;
        of models with ``layer_ann``, the mean of this and of whether both are of one layer. 0 where nothing is known.
    """
    scopes = _filled([scope_of(node) for node in nodes])
    layers = _filled([(layer,) if (layer := metadata(node, LAYER)) else () for node in nodes])
    measures = [[0, *(_shared(*pair) for pair in pairwise(paths)), 0] for paths in (scopes, layers) if any(paths)]
    shares = [[depth / (max(depths) or 1) for depth in depths] for depths in measures]
    return [sum(each) / len(each) for each in zip(*shares, strict=True)] if shares else [0.0] * (len(nodes) + 1)


def _shared(first: Scope, second: Scope) -> int:
    """Return how many steps two scopes have in common."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((depth for depth, (one, other) in pairs if one != other), min(len(first), len(second)))


def _filled(paths: Sequence[Scope]) -> list[Scope]:
    """Return the paths with those that are unknown replaced by the one before."""
    filled: list[Scope] = []
    for path in paths:
        filled.append(path or (filled[-1] if filled else ()))
    return filled
