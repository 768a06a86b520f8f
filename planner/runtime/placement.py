"""Which execution provider runs which part of a model, by the times that onnxruntime writes for each node."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from planner.formats.json import parse_json
from planner.runtime.providers import Provider

LEAST_SHARE: Final = 0.01
"""Share of the time below which it does not matter what another provider runs."""
MOST_OPERATORS: Final = 5
"""Number of operators that a warning names."""


@dataclass(frozen=True)
class Placement:
    """Shares of the time of a model by execution provider.

    Parameters
    ----------
    shares
        By the provider's name in onnxruntime; they add up to 1.
    operators
        By provider, the operators that it runs, those that take longest first.
    """

    shares: dict[str, float]
    operators: dict[str, tuple[str, ...]]

    def warnings(self, provider: Provider) -> list[str]:
        """Return what to tell about the part of the model that ``provider`` leaves to others."""
        wanted = provider.execution_providers[0]
        if self.shares.get(wanted, 0.0) == 0:
            return [f"{wanted} takes no part of the model: all of it runs on {', '.join(self.shares)}"]
        return [
            f"{wanted} leaves {share:.0%} of the time to {name}: {', '.join(self.operators[name][:MOST_OPERATORS])}"
            for name, share in self.shares.items()
            if name != wanted and share >= LEAST_SHARE
        ]


def placement(trace: Path) -> Placement | None:
    """Return where the nodes of a model ran; None if the trace has no runs of nodes.

    Parameters
    ----------
    trace
        File that a session with ``trace`` wrote. The first run is left out, since it prepares the others.
    """
    events: list[dict[str, Any]] = parse_json(trace.read_bytes())
    nodes = [event for event in events if event.get("cat") == "Node" and event.get("args", {}).get("provider")]
    first = min((event["ts"] + event["dur"] for event in events if event.get("name") == "model_run"), default=0)
    time_us: Counter[str] = Counter()
    operators: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for event in nodes:
        if event["ts"] >= first:
            provider = event["args"]["provider"]
            time_us[provider] += event["dur"]
            operators[provider][event["args"].get("op_name", "?")] += event["dur"]
    total_us = sum(time_us.values())
    if not total_us:
        return None
    return Placement(
        {name: round(spent_us / total_us, 4) for name, spent_us in time_us.most_common()},
        {name: tuple(operator for operator, _ in spent.most_common()) for name, spent in operators.items()},
    )
