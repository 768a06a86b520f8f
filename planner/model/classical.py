"""Operators of classical models, such as scikit-learn's exporter writes: linear models, support vectors, trees.

ONNX has no shape inference for these, or only for their newer versions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

import onnx
from onnx import TensorProto

from planner.model.lookup import Lookup, attribute, shape_of
from planner.model.lookup import Rule as FlopRule
from planner.model.operands import Operands, Outputs, Rule

CLASSICAL: Final = "ai.onnx.ml"
"""Domain of the operators."""


def _rows(operands: Operands) -> int:
    """Return the number of samples; a vector is one."""
    dims = operands.dims(0)
    return dims[0] if len(dims) > 1 else 1


def _real(operands: Operands) -> Outputs:
    return [(int(TensorProto.FLOAT), operands.dims(0))]


def _table(operands: Operands, columns: int) -> Outputs:
    return [(int(TensorProto.FLOAT), (_rows(operands), columns))]


def _classes(operands: Operands, numbers: str, scores: Callable[[int], int] = int) -> Outputs:
    """Return the outputs of a classifier: the label of each sample, and its scores, so many for a number of classes."""
    texts = operands.attribute("classlabels_strings", [])
    label = (int(TensorProto.STRING if texts else TensorProto.INT64), (_rows(operands),))
    return [label, *_table(operands, scores(len(texts or operands.attribute(numbers, []))))]


def _vectors_of_classes(operands: Operands) -> Outputs:
    """Return the outputs of a classifier by support vectors: without probabilities, it scores pairs of classes."""
    pairs = operands.attribute("vectors_per_class", []) and not operands.attribute("prob_a", [])
    return _classes(operands, "classlabels_ints", lambda count: max(count * (count - 1) // 2, 2) if pairs else count)


def _features(operands: Operands) -> Outputs:
    dims = operands.dims(0)
    return [(operands.element(0), (*(dims[:-1] or (1,)), math.prod(operands.dims(1))))]


CLASSICAL_SHAPES: Final[Mapping[str, Rule]] = {
    "ArrayFeatureExtractor": _features,
    "FeatureVectorizer": lambda operands: _table(operands, sum(operands.attribute("inputdimensions", []))),
    "Imputer": lambda operands: [(operands.element(0), operands.dims(0))],
    "LinearRegressor": lambda operands: _table(operands, operands.attribute("targets", 1)),
    "Normalizer": _real,
    "SVMClassifier": _vectors_of_classes,
    "SVMRegressor": lambda operands: _table(operands, 1),
    "Scaler": _real,
    "TreeEnsembleClassifier": lambda operands: _classes(operands, "classlabels_int64s"),
    "TreeEnsembleRegressor": lambda operands: _table(operands, operands.attribute("n_targets", 1)),
}
"""Types of the outputs, by operator."""


def _samples(node: onnx.NodeProto, lookup: Lookup) -> int:
    shape = shape_of(node.input[0], lookup)
    return shape[0] if len(shape) > 1 else 1


def _each(operations: int) -> FlopRule:
    return lambda node, lookup: operations * math.prod(shape_of(node.input[0], lookup))


def _products(*names: str) -> FlopRule:
    """Return a rule that counts a multiply-add for each number of these attributes and each sample."""

    def rule(node: onnx.NodeProto, lookup: Lookup) -> int:
        numbers: list[Any] = [attribute(node, name, []) for name in names]
        return 2 * _samples(node, lookup) * sum(map(len, numbers))

    return rule


def _trees(node: onnx.NodeProto, lookup: Lookup) -> int:
    """Count a comparison for each level of balanced trees with as many nodes."""
    nodes, trees = attribute(node, "nodes_featureids", []), set(attribute(node, "nodes_treeids", []))
    count = len(trees) or len(attribute(node, "tree_roots", [])) or 1
    return _samples(node, lookup) * count * math.ceil(math.log2(len(nodes) / count + 1))


CLASSICAL_FLOP: Final[Mapping[str, FlopRule]] = {
    "Binarizer": _each(1),
    "Imputer": _each(1),
    "LinearClassifier": _products("coefficients"),
    "LinearRegressor": _products("coefficients"),
    "Normalizer": _each(3),
    "SVMClassifier": _products("support_vectors", "coefficients"),
    "SVMRegressor": _products("support_vectors", "coefficients"),
    "Scaler": _each(2),
    "TreeEnsemble": _trees,
    "TreeEnsembleClassifier": _trees,
    "TreeEnsembleRegressor": _trees,
}
"""Operations, by operator; of those that only move or look up data, none."""

CLASSICAL_MOVES: Final = frozenset(
    {"ArrayFeatureExtractor", "CategoryMapper", "FeatureVectorizer", "LabelEncoder", "OneHotEncoder"}
)
