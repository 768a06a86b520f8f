"""Operators of classical models: types against results, and FLOP against manual counts."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
from onnx import helper, save

from planner.errors import ModelError
from planner.model.classical import CLASSICAL, CLASSICAL_FLOP, CLASSICAL_MOVES, CLASSICAL_SHAPES
from planner.model.load import load_chain
from tests.model.chained import needs_onnxruntime
from tests.model.test_model_contributed import Case, check_types_and_flop, load_malformed, reals

classical = partial(Case, domain=CLASSICAL)
LINE = {"coefficients": [0.1, 0.2, 0.3], "kernel_type": "LINEAR", "kernel_params": [0.1, 0.0, 3.0]}
VECTORS = {"support_vectors": [0.5] * 12, "kernel_type": "RBF", "kernel_params": [0.1, 0.0, 3.0]}

# Two trees, each of a root and two leaves.
NODES = {
    "nodes_treeids": [0, 0, 0, 1, 1, 1],
    "nodes_nodeids": [0, 1, 2] * 2,
    "nodes_featureids": [0, 0, 0, 1, 0, 0],
    "nodes_values": [0.5, 0.0, 0.0] * 2,
    "nodes_modes": ["BRANCH_LEQ", "LEAF", "LEAF"] * 2,
    "nodes_truenodeids": [1, 0, 0] * 2,
    "nodes_falsenodeids": [2, 0, 0] * 2,
    "nodes_missing_value_tracks_true": [0] * 6,
    "nodes_hitrates": [1.0] * 6,
}


def leaves(kind: str) -> dict[str, list[int] | list[float]]:
    return {
        f"{kind}_treeids": [0, 0, 1, 1],
        f"{kind}_nodeids": [1, 2, 1, 2],
        f"{kind}_ids": [0, 1, 1, 2],
        f"{'class' if kind == 'class' else 'target'}_weights": [0.5, 0.5, 0.25, 0.75],
    }


def votes(classes: int, **probabilities: list[float]) -> dict[str, object]:
    """Return the attributes of a classifier by two support vectors of three features for each class."""
    pairs = classes * (classes - 1) // 2
    return {
        "classlabels_ints": list(range(classes)),
        "vectors_per_class": [2] * classes,
        "support_vectors": [0.5] * 6 * classes,
        "coefficients": [0.3] * 2 * classes * (classes - 1),
        "rho": [0.1] * pairs,
        "kernel_type": "RBF",
        "kernel_params": [0.1, 0.0, 3.0],
        **{name: value * pairs for name, value in probabilities.items()},
    }


CASES = [
    classical("Scaler", [reals(2, 3)], 2 * 6, {"offset": [0.0, 1.0, 2.0], "scale": [1.0, 2.0, 3.0]}),
    classical("Scaler", [np.ones((2, 3), np.int64)], 2 * 6, {"offset": [0.0], "scale": [1.0]}),
    classical("Normalizer", [reals(2, 3)], 3 * 6, {"norm": "L2"}),
    classical("Imputer", [reals(2, 3)], 6, {"imputed_value_floats": [1.0, 2.0, 3.0]}),
    classical("Binarizer", [reals(2, 3)], 6, {"threshold": 0.5}),
    classical("FeatureVectorizer", [reals(2, 3), reals(2, 1)], 0, {"inputdimensions": [3, 1]}, fed=(0, 1)),
    classical("ArrayFeatureExtractor", [reals(2, 3), np.array([2, 0])], 0),
    classical("ArrayFeatureExtractor", [reals(3), np.array([[2], [0]])], 0),
    classical("LinearRegressor", [reals(2, 3)], 2 * 2 * 3, {"coefficients": [0.1, 0.2, 0.3], "intercepts": [1.0]}),
    classical(
        "LinearRegressor", [reals(2, 3)], 2 * 2 * 6, {"coefficients": [0.1] * 6, "intercepts": [1.0] * 2, "targets": 2}
    ),
    classical(
        "LinearClassifier",
        [reals(2, 3)],
        2 * 2 * 9,
        {"coefficients": [0.1] * 9, "intercepts": [1.0] * 3, "classlabels_ints": [0, 1, 2]},
        outputs=2,
    ),
    classical("SVMRegressor", [reals(2, 3)], 2 * 2 * 3, {**LINE, "rho": [0.1], "n_supports": 0}),
    classical(
        "SVMRegressor",
        [reals(2, 3)],
        2 * 2 * (12 + 4),
        {**VECTORS, "coefficients": [0.3] * 4, "rho": [0.1], "n_supports": 4},
    ),
    *(
        classical("SVMClassifier", [reals(2, 3)], 2 * 2 * products, votes(classes, **probabilities), outputs=2)
        for classes, products in ((2, 12 + 4), (3, 18 + 12), (4, 24 + 24))
        for probabilities in ({}, {"prob_a": [-1.0], "prob_b": [0.1]})
    ),
    classical("TreeEnsembleRegressor", [reals(5, 2)], 5 * 2 * 2, {**NODES, **leaves("target"), "n_targets": 3}),
    classical(
        "TreeEnsembleClassifier",
        [reals(5, 2)],
        5 * 2 * 2,
        {**NODES, **leaves("class"), "classlabels_int64s": [7, 8, 9]},
        outputs=2,
    ),
]


@needs_onnxruntime(1, 32)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_types_are_those_of_the_results_and_flop_those_counted(case: Case, tmp_path: Path) -> None:
    check_types_and_flop(case, tmp_path / "m.onnx")


def test_malformed_nodes_are_never_a_traceback(tmp_path: Path) -> None:
    loaded, refused = load_malformed(CASES, tmp_path / "m.onnx")
    assert loaded > 50
    assert refused > 5


def test_every_rule_has_a_case() -> None:
    assert {*CLASSICAL_SHAPES, *CLASSICAL_FLOP} - {case.operator for case in CASES} == {"TreeEnsemble"}
    assert CLASSICAL_MOVES.isdisjoint(CLASSICAL_FLOP)


def test_a_pipeline_is_a_chain_of_its_steps(tmp_path: Path) -> None:
    """As exporters write it: no name of the open axis, and none of the shapes between the steps."""
    nodes = [
        helper.make_node("Scaler", ["X"], ["scaled"], domain=CLASSICAL, offset=[0.0] * 3, scale=[1.0] * 3),
        helper.make_node("Normalizer", ["scaled"], ["normal"], domain=CLASSICAL, norm="L2"),
        helper.make_node("LinearRegressor", ["normal"], ["y"], domain=CLASSICAL, coefficients=[0.1] * 3),
    ]
    ends = [helper.make_tensor_value_info(name, 1, [None, size]) for name, size in (("X", 3), ("y", 1))]
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid(CLASSICAL, 1)]
    model = helper.make_model(helper.make_graph(nodes, "g", ends[:1], ends[1:]), opset_imports=opsets, ir_version=10)
    save(model, tmp_path / "m.onnx")
    chain = load_chain(tmp_path / "m.onnx", shape={"X": (1, 3)}).chain
    assert [cut.tensors[0].shape for cut in chain.cuts] == [(1, 3), (1, 3), (1, 3), (1, 1)]
    with pytest.raises(ModelError, match=r"--shape X=1,3"):
        load_chain(tmp_path / "m.onnx")
