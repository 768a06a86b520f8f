"""The chosen borders are optimal and include the forced ones."""

from __future__ import annotations

from functools import partial
from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.model import coarsen
from planner.model.coarsen import BYTES_WEIGHT, FUSION_PENALTY, NESTING_WEIGHT, choose_borders
from planner.model.load import load_chain
from tests.model.chained import reference

Problem = tuple[list[float], list[int], list[bool], list[float], list[int], list[int], int]


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    size = draw(st.integers(2, 9))
    costs = draw(st.lists(st.floats(0.5, 2.0), min_size=size, max_size=size))
    cut_bytes = draw(st.lists(st.integers(1, 100), min_size=size + 1, max_size=size + 1))
    fused = draw(st.lists(st.booleans(), min_size=size + 1, max_size=size + 1))
    nested = draw(st.lists(st.floats(0.0, 1.0), min_size=size + 1, max_size=size + 1))
    inner = list(range(1, size))
    allowed = sorted(draw(st.sets(st.sampled_from(inner), min_size=1)))
    forced = sorted(draw(st.sets(st.sampled_from(inner), max_size=2)))
    return costs, cut_bytes, fused, nested, allowed, forced, draw(st.integers(1, size))


def score(
    borders: list[int],
    costs: list[float],
    cut_bytes: list[float],
    *,
    fused: list[bool],
    nested: list[float],
    blocks: int,
) -> float:
    """Return the objective of the module's docstring, with bytes relative to the median."""
    evenness = blocks * sum((sum(costs[a:b]) / sum(costs)) ** 2 for a, b in pairwise([0, *borders, len(costs)]))
    bytes_term = BYTES_WEIGHT * sum(cut_bytes[cut] for cut in borders) / max(blocks - 1, 1)
    nesting = NESTING_WEIGHT * sum(nested[cut] for cut in borders) / max(blocks - 1, 1)
    return evenness + bytes_term + nesting + FUSION_PENALTY * sum(fused[cut] for cut in borders)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(problems())
def test_the_chosen_borders_are_optimal(problem: Problem) -> None:
    costs, cut_bytes, fused, nested, allowed, forced, blocks = problem
    chosen = choose_borders(
        costs, cut_bytes=cut_bytes, fused=fused, nested=nested, allowed=allowed, forced=forced, blocks=blocks
    )
    candidates = sorted({*allowed, *forced})
    assert set(forced) <= set(chosen) <= set(candidates)
    blocks = max(blocks, len(forced) + 1)
    subsets = [
        list(cuts) for size in range(blocks) for cuts in combinations(candidates, size) if set(forced) <= set(cuts)
    ]
    typical = float(np.median([cut_bytes[cut] for cut in candidates]))
    relative = [size / typical for size in cut_bytes]
    best = min(score(cuts, costs, relative, fused=fused, nested=nested, blocks=blocks) for cuts in subsets)
    assert len(chosen) < blocks
    assert score(chosen, costs, relative, fused=fused, nested=nested, blocks=blocks) <= best + 1e-9


def test_a_border_that_costs_more_than_it_evens_out_is_left_out() -> None:
    choose = partial(
        choose_borders,
        [0.01, 1.0, 0.01],
        cut_bytes=[1] * 4,
        fused=[False] * 4,
        nested=[0.0] * 4,
        allowed=[1, 2],
        blocks=3,
    )
    assert choose(forced=[]) == []
    assert choose(forced=[1, 2]) == [1, 2]


def test_a_single_node_has_no_borders() -> None:
    chosen = choose_borders(
        [1.0], cut_bytes=[1, 1], fused=[False] * 2, nested=[0.0] * 2, allowed=[], forced=[], blocks=8
    )
    assert chosen == []


def test_long_chains_are_thinned() -> None:
    size = 3 * coarsen.CANDIDATES
    cut_bytes = [1 if cut % 3 == 0 else 100 for cut in range(size + 1)]
    borders = choose_borders(
        [1.0] * size,
        cut_bytes=cut_bytes,
        fused=[False] * (size + 1),
        nested=[0.0] * (size + 1),
        allowed=range(1, size),
        forced=[],
        blocks=4,
    )
    assert [cut_bytes[cut] for cut in borders] == [1, 1, 1]
    assert max(abs(a - b) for a, b in zip(borders, (size // 4, size // 2, 3 * size // 4), strict=True)) < 10


def test_borders_of_a_residual_network_lie_between_residual_blocks() -> None:
    model = load_chain(reference("resnet56"))
    assert len(model.chain) == 8
    for cut in model.chain.cuts[1:-1]:
        (tensor,) = cut.tensors
        assert tensor.name.endswith("relu2")
    flop = [block.flop for block in model.chain.blocks]
    assert max(flop) < 1.3 * sum(flop) / 8


def test_borders_of_a_mobile_network_lie_where_little_crosses() -> None:
    model = load_chain(reference("mobilenetv2"))
    everywhere = [model.line.bytes_at(cut) for cut in model.line.borders]
    assert np.mean([cut.bytes for cut in model.chain.cuts[1:-1]]) < 0.5 * np.mean(everywhere)
    assert not set(model.borders) & model.line.fused


def test_fused_nodes_move_no_bytes() -> None:
    model = load_chain(reference("resnet56"))
    times = dict(zip((node.proto.name for node in model.line.order), model.costs.times_s(model.line), strict=True))
    nominal = {node.proto.name: model.costs.time_s[node.index] for node in model.line.order}
    assert times["stage0.0.conv1"] == nominal["stage0.0.conv1"]
    assert times["stage0.0.relu1"] < 0.1 * nominal["stage0.0.relu1"]


def test_borders_of_a_transformer_carry_one_tensor() -> None:
    model = load_chain(reference("gpt2-small"), max_blocks=4)
    assert [len(cut.tensors) for cut in model.chain.cuts] == [1] * 5
