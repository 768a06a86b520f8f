r"""The mixed-integer program as equations, one for each component of the Pyomo model, by name.

The symbols are those of ``docs/program.md``, which is written from here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import pyomo.environ as pyo

from planner.solvers.core.equations import Equation

VARIABLES: Final[Mapping[str, Equation]] = {
    "chosen": Equation("Whether a source uses a model at an operating point.", r"y_{so} \in \lbrace 0, 1 \rbrace"),
    "runs": Equation(
        "Whether a worker runs a block; the flow of the node's arc.", r"x_{sold} \in \lbrace 0, 1 \rbrace"
    ),
    "stay": Equation("Whether a block runs where the block before it ran.", r"z_{sold} \ge 0"),
    "move": Equation("Whether a sample moves between two blocks; the flow of the move's arc.", r"v_{solde} \ge 0"),
    "sigma": Equation("Utilisation of a resource by the classes 1 to k.", r"\sigma_{kr} \ge 0"),
    "mean_number": Equation("Mean number of samples of the classes 1 to k at a resource.", r"N_{kr} \ge 0"),
    "resident": Equation("Whether a block resides on a worker.", r"h_{mld} \in [0, 1]"),
    "largest_activation": Equation("Largest activation on a worker.", r"g_d \ge 0"),
    "largest": Equation("Largest utilisation, relative to what may be used.", r"B \ge 0"),
    "longest_delay": Equation("Longest delay of a sample that never waits.", r"U \ge 0"),
    "overload": Equation("By how much a cap is relaxed; 0 but in the elastic filter.", r"\epsilon^c_r \ge 0"),
    "lack": Equation("By how much a memory is enlarged; 0 but in the elastic filter.", r"\epsilon^M_d \ge 0"),
    "late": Equation(
        "By how much a largest mean delay is relaxed; 0 but in the elastic filter.", r"\epsilon^T_s \ge 0"
    ),
    "inaccuracy": Equation(
        "By how much a minimum accuracy is relaxed; 0 but in the elastic filter.", r"\epsilon^A_s \ge 0"
    ),
}

CONSTRAINTS: Final[Mapping[str, Equation]] = {
    "one_route": Equation(
        "Each source uses one model at one operating point.", r"\sum_{o \in O_s} y_{so} = 1 \quad \forall s"
    ),
    "first_block": Equation(
        "The first block of what is used runs on one worker.", r"\sum_{d} x_{so0d} = y_{so} \quad \forall s, o"
    ),
    "inflow": Equation(
        "A worker runs a block only after it ran the block before, or after a move from the worker that did.",
        r"x_{sold} = z_{sold} + \sum_{e} v_{soled} \quad \forall s, o, d, l \ge 1",
    ),
    "outflow": Equation(
        "After each block but the last, the next runs there or after a move.",
        r"x_{sold} = z_{so(l+1)d} + \sum_{e} v_{so(l+1)de} \quad \forall s, o, d, l < L_o - 1",
    ),
    "utilisation": Equation(
        "Utilisations nest: that by the classes 1 to k adds the work of class k.",
        r"\sigma_{kr} = \sigma_{(k-1)r} + \sum_{s \in S_k} \sum_{a} \lambda_s t_{ar} f_{sa} \quad \forall k, r",
    ),
    "capacity": Equation(
        "No resource is busier than its cap; for the goals delay and energy.",
        r"\sigma_{Kr} \le c_r + \epsilon^c_r \quad \forall r",
    ),
    "residency": Equation(
        "A block that runs on a worker resides there; one copy serves all sources.",
        r"x_{sold} \le h_{m_o l d} \quad \forall s, o, l, d",
    ),
    "activation": Equation(
        "The largest activation of resident blocks.", r"g_d \ge \alpha_{mld} h_{mld} \quad \forall m, l, d"
    ),
    "memory": Equation(
        "All resident blocks and the largest activation fit into memory.",
        r"\sum_{m,l} \beta_{mld} h_{mld} + g_d \le M_d + \epsilon^M_d \quad \forall d",
    ),
    "deadline": Equation(
        "Work and transfers without waiting keep the largest mean delay; waiting is evaluated on each plan.",
        r"\sum_{a} u_a f_{sa} \le T_s + \epsilon^T_s \quad \forall s: T_s < \infty",
    ),
    "accuracy": Equation(
        "The minimum accuracy is reached.",
        r"\sum_{o \in O_s} A_o y_{so} \ge A_s - \epsilon^A_s \quad \forall s: A_s > 0",
    ),
    "visits": Equation(
        "With max_visits, a sample starts no more stages than that at one worker.",
        r"\sum_{o} x_{so0d} + \sum_{o,l,e} v_{soled} \le V \quad \forall s, d",
    ),
    "congestion": Equation(
        "The mean number lies above tangents to G at utilisations that are added until the error is far below the gap.",
        r"N_{kr} \ge G(\theta) + G'(\theta) (\sigma_{kr} - \theta) \quad \forall k, r, \theta",
    ),
    "bottleneck": Equation("The largest relative utilisation.", r"q_r B \ge \sigma_{Kr} \quad \forall r"),
    "longest": Equation("The longest delay without waiting.", r"U \ge \sum_{a} u_a f_{sa} \quad \forall s"),
}

OBJECTIVES: Final[Mapping[str, Equation]] = {
    "delay": Equation(
        "Priority-weighted mean numbers (by Little's law, delays), latency and lost accuracy.",
        r"\min \sum_{k,r} w_k N_{kr} + \sum_{s} p_s \lambda_s \Big( \sum_{a} \tau_a f_{sa} "
        r"+ \sum_{o} \omega (1 - A_o) y_{so} \Big)",
    ),
    "throughput": Equation("The bottleneck.", r"\min B"),
    "makespan": Equation("The work of the busiest resource and the longest delay without waiting.", r"\min B + U"),
    "energy": Equation("The average power of the workers.", r"\min P_0 + \sum_{r} P_r \sigma_{Kr}"),
}


def describe(model: Any, goal: str) -> None:
    """Set the ``doc`` of each component of a model."""
    for name, component in model.component_map(pyo.Var).items():
        component.doc = VARIABLES[name].doc
    for name, component in model.component_map(pyo.Constraint).items():
        component.doc = CONSTRAINTS[name].doc
    for component in model.component_map(pyo.Objective).values():
        component.doc = OBJECTIVES[goal].doc
