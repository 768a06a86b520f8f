"""Results of a survey as the ``networks:`` section of a scenario file."""

from __future__ import annotations

import io
import statistics
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from planner.execution.probe.survey import Direction, Medium, Survey
from planner.units import format_number

if TYPE_CHECKING:
    from ruamel.yaml.comments import CommentedMap

UNEVEN: Final = 1.25
"""Ratio of the highest and lowest bandwidth of a medium above which a comment states both."""


def networks_yaml(results: Survey) -> str:
    """Return a ``networks:`` section for a scenario file.

    A shared medium has the median bandwidth and latency of its directions, a link those of its slower direction; if
    the bandwidths differ much, a comment states the range. A medium that does not join every pair of its members
    becomes one shared network per pair, because all members of a scenario's shared network can exchange data directly.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.comments import CommentedMap

    networks = CommentedMap()
    for name, medium in _named(results.media):
        networks[name] = _entry(results, medium)
        if comment := _comment(results, medium):
            networks.yaml_set_comment_before_after_key(name, before=comment, indent=2)
    yaml = YAML()
    yaml.width = 200
    text = io.StringIO()
    text.write("# Measured between running agents by `planner probe`.\n")
    yaml.dump({"networks": networks}, text)
    return text.getvalue()


def _named(media: Sequence[Medium]) -> Iterator[tuple[str, Medium]]:
    """Yield each medium with a name, split into pairs if it is incomplete."""
    parts = [
        part
        for medium in media
        for part in ([medium] if medium.complete else [Medium((pair,), medium.shared) for pair in medium.pairs])
    ]
    whole = [part for part in parts if len(part.members) > 2]
    for part in parts:
        if part in whole:
            yield "medium" if len(whole) == 1 else f"medium-{whole.index(part) + 1}", part
        else:
            yield "-".join(("link", *part.members)), part


def _entry(results: Survey, medium: Medium) -> CommentedMap:
    from ruamel.yaml.comments import CommentedMap

    rates = [results.bytes_per_s[direction] for direction in medium.directions]
    latencies = [results.latency_s[direction] for direction in medium.directions]
    entry: dict[str, Any]
    if medium.shared:
        entry = {"kind": "shared", "members": _flow(medium.members)}
        rate, latency_s = statistics.median(rates), statistics.median(latencies)
    else:
        entry = {"kind": "point-to-point", "links": _flow([_flow(pair) for pair in medium.pairs])}
        rate, latency_s = min(rates), max(latencies)
    return CommentedMap({**entry, "bandwidth": _megabits(rate), "latency": f"{format_number(latency_s * 1e3)} ms"})


def _comment(results: Survey, medium: Medium) -> str | None:
    def rate(direction: Direction) -> float:
        return results.bytes_per_s[direction]

    slow, fast = min(medium.directions, key=rate), max(medium.directions, key=rate)
    if rate(fast) <= UNEVEN * rate(slow):
        return None
    return "uneven: " + ", ".join(f"{a} > {b} {_megabits(rate((a, b)))}" for a, b in (slow, fast))


def _megabits(bytes_per_s: float) -> str:
    return f"{float(f'{bytes_per_s * 8 / 1e6:.4g}'):g} Mbit/s"


def _flow(items: Sequence[Any]) -> Any:
    from ruamel.yaml.comments import CommentedSeq

    sequence = CommentedSeq(items)
    sequence.fa.set_flow_style()
    return sequence
