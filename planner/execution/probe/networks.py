"""What a survey found, as the ``networks:`` section of a scenario file."""

from __future__ import annotations

import io
import statistics
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from planner.execution.probe.survey import Medium, Survey, Way

if TYPE_CHECKING:
    from ruamel.yaml.comments import CommentedMap

UNEVEN: Final = 1.25
"""Where the ways of a medium differ by more than this factor, a comment gives the range."""


def networks_yaml(found: Survey) -> str:
    """Write the ``networks:`` section that the scenario's loader reads back.

    A shared medium has the median bandwidth and latency of its ways, a link those of its slower direction; where ways
    differ much, a comment says how. A medium that does not join each two of its members becomes one shared network a
    pair: a scenario's shared network would let all of them meet directly.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.comments import CommentedMap

    networks = CommentedMap()
    for name, medium in _named(found.media):
        networks[name] = _entry(found, medium)
        if comment := _comment(found, medium):
            networks.yaml_set_comment_before_after_key(name, before=comment, indent=2)
    yaml = YAML()
    yaml.width = 200
    text = io.StringIO()
    text.write("# Measured between running agents by `planner probe`.\n")
    yaml.dump({"networks": networks}, text)
    return text.getvalue()


def _named(media: Sequence[Medium]) -> Iterator[tuple[str, Medium]]:
    """Split what is incomplete, and give each medium a name."""
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


def _entry(found: Survey, medium: Medium) -> CommentedMap:
    from ruamel.yaml.comments import CommentedMap

    ways = _ways(medium)
    rates, latencies = [found.bytes_per_s[way] for way in ways], [found.latency_s[way] for way in ways]
    entry: dict[str, Any]
    if medium.shared:
        entry = {"kind": "shared", "members": _flow(medium.members)}
        rate, latency_s = statistics.median(rates), statistics.median(latencies)
    else:
        entry = {"kind": "point-to-point", "links": _flow([_flow(pair) for pair in medium.pairs])}
        rate, latency_s = min(rates), max(latencies)
    return CommentedMap({**entry, "bandwidth": _megabits(rate), "latency": f"{latency_s * 1e3:.3g} ms"})


def _comment(found: Survey, medium: Medium) -> str | None:
    rates = [found.bytes_per_s[way] for way in _ways(medium)]
    if max(rates) <= UNEVEN * min(rates):
        return None
    slow, fast = (pick(_ways(medium), key=lambda way: found.bytes_per_s[way]) for pick in (min, max))
    return "uneven: " + ", ".join(f"{a} > {b} {_megabits(found.bytes_per_s[a, b])}" for a, b in (slow, fast))


def _ways(medium: Medium) -> list[Way]:
    return [way for a, b in medium.pairs for way in ((a, b), (b, a))]


def _megabits(bytes_per_s: float) -> str:
    return f"{float(f'{bytes_per_s * 8 / 1e6:.4g}'):g} Mbit/s"


def _flow(items: Sequence[Any]) -> Any:
    from ruamel.yaml.comments import CommentedSeq

    sequence = CommentedSeq(items)
    sequence.fa.set_flow_style()
    return sequence
