"""Layers of onnxruntime: groups of nodes by the metadata ``layer_ann``, which rules assign to devices.

The rules are those of onnxruntime's session option ``session.layer_assignment_settings``:
``gpu(encoder, attention); cpu(=head)``. A name stands for all layers that start with it, ``=head`` for this one
only. Of the rules that match a layer the first counts, and those of beginnings before those of whole names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from planner.errors import Fault, ModelError
from planner.model.graph import Node
from planner.model.scopes import LAYER, metadata

RULE: Final = re.compile(r"\s*(?P<device>[^()]*?)\s*\((?P<layers>[^()]*)\)\s*")
OPTION: Final = "--layer-assignment"


@dataclass(frozen=True)
class LayerRule:
    """A device, and the layers that it runs: those that start with ``layer``, or the one of this name if ``exact``."""

    device: str
    layer: str
    exact: bool

    def matches(self, layer: str) -> bool:
        """Return whether the rule is about a layer."""
        return layer == self.layer if self.exact else layer.startswith(self.layer)

    def __str__(self) -> str:
        return f"{self.device}({'=' * self.exact}{self.layer})"


def parse_rules(text: str) -> tuple[LayerRule, ...]:
    """Return the rules in the order in which they count.

    Raises
    ------
    ModelError
        If the text is no list of rules, or names a layer twice.
    """
    rules: list[LayerRule] = []
    for entry in filter(str.strip, text.split(";")):
        match = RULE.fullmatch(entry)
        if match is None or not match["device"]:
            raise ModelError("not a rule", where=OPTION, value=entry.strip(), expected="DEVICE(LAYER, =LAYER, ...)")
        rules += _rules(match["device"], match["layers"])
    keys = [(rule.layer, rule.exact) for rule in rules]
    twice = [rule for index, rule in enumerate(rules) if keys[index] in keys[:index]]
    if twice:
        raise ModelError(Fault("names a layer twice", OPTION, str(rule), "each layer once") for rule in twice)
    return tuple(sorted(rules, key=lambda rule: rule.exact))


def _rules(device: str, layers: str) -> Iterator[LayerRule]:
    for word in map(str.strip, layers.split(",")):
        layer = word.removeprefix("=").strip()
        if layer:
            yield LayerRule(device, layer, word.startswith("="))


def assign(rules: Iterable[LayerRule], nodes: Iterable[Node], where: str) -> dict[int, str]:
    """Return the device of each node, by node index, whose layer is in the rules.

    Raises
    ------
    ModelError
        If a rule is about no layer of the model.
    """
    layers = {node.index: metadata(node.proto, LAYER) for node in nodes}
    known = sorted(set(filter(None, layers.values())))
    idle = [rule for rule in rules if not any(map(rule.matches, known))]
    if idle:
        expected = f"one of {', '.join(known)}" if known else f"nodes with {LAYER} in their metadata"
        raise ModelError(Fault(f"no layer fits this rule of {OPTION}", where, str(rule), expected) for rule in idle)
    found = {index: next((rule for rule in rules if rule.matches(layer)), None) for index, layer in layers.items()}
    return {index: rule.device for index, rule in found.items() if rule is not None}
