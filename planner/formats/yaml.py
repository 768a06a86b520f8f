"""YAML as plain values with their lines: mappings with text keys, lists, text, numbers, booleans and None.

ruamel.yaml parses the text to nodes; the values are made from these here. A node that several aliases name becomes a
value for each of them, within a limit; a date is the text that it was written as; other types of YAML (sets, binary
data, objects of a program) are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from planner.errors import Fault
from planner.formats.limits import MAX_DEPTH, text_fault

if TYPE_CHECKING:
    from ruamel.yaml.nodes import MappingNode, Node, ScalarNode

MAX_ALIASED: Final = 100_000
"""Number of values that a file may have beyond those written in it, by aliases."""

Location: TypeAlias = tuple[str | int, ...]
"""Keys and list indices that lead from the top of a file to a value."""

_Numbers: TypeAlias = "Mapping[str, Callable[[ScalarNode], Any]]"

_PREFIX: Final = "tag:yaml.org,2002:"
_TEXTS: Final = frozenset({"!", f"{_PREFIX}str", f"{_PREFIX}timestamp", f"{_PREFIX}value"})
_SCALARS: Final = "text, a number, true or false"


class YamlError(ValueError):
    """A text is not YAML, or not YAML of this kind.

    Parameters
    ----------
    faults
        What is wrong, each with its line, 0 if unknown, and its location; ``where`` of a fault is not set.
    """

    def __init__(self, faults: list[tuple[int, Location, Fault]]) -> None:
        super().__init__("; ".join(str(fault) for _, _, fault in faults))
        self.faults = faults


@dataclass(frozen=True)
class YamlText:
    """The value of a YAML text, and the line of each value in it."""

    value: Any
    lines: Mapping[Location, int]
    """Lines, counted from 1; a value that a merge (``<<``) brought has none."""


def parse_yaml(data: bytes) -> YamlText:
    """Return the value of a YAML text of one document.

    Raises
    ------
    YamlError
        If it is not YAML in UTF-8, repeats a key, is nested more than :data:`MAX_DEPTH` levels deep, has more than
        :data:`MAX_ALIASED` values by aliases, or a value of another type; of these all, with their lines.
    """
    root, numbers = _compose(data)
    if root is None:
        return YamlText(None, {})
    reader = _Reader(numbers)
    value = reader.value(root, ())
    if reader.faults:
        raise YamlError(reader.faults)
    return YamlText(value, reader.lines)


def _compose(data: bytes) -> tuple[Node | None, _Numbers]:
    """Parse a text to nodes; return also the functions that make numbers and booleans of nodes, by tag."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    yaml = YAML(typ="safe", pure=True)
    yaml.composer.warn_double_anchors = False  # the last one counts
    numbers = {
        f"{_PREFIX}{kind}": getattr(yaml.constructor, f"construct_yaml_{kind}") for kind in ("int", "float", "bool")
    }
    line = 0
    try:
        node: Node | None = yaml.compose(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        what = f"cannot be read: {error}"
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        what = f"not valid YAML: {error.problem or error.context}"
    except YAMLError as error:
        what = f"not valid YAML: {str(error).splitlines()[0]}"
    except RecursionError:
        what = "nested too deeply"
    else:
        return node, numbers
    raise YamlError([(line, (), Fault(what))])


@dataclass
class _Reader:
    """Makes values of nodes, and collects what is wrong."""

    numbers: _Numbers
    lines: dict[Location, int] = field(default_factory=dict)
    faults: list[tuple[int, Location, Fault]] = field(default_factory=list)
    _open: list[Node] = field(default_factory=list)
    _seen: set[int] = field(default_factory=set)
    _aliased: int = 0

    def value(self, node: Node, location: Location, *, line: bool = True) -> Any:
        """Return the value of a node; ``line`` tells whether it has a line of its own."""
        from ruamel.yaml.nodes import MappingNode, ScalarNode

        self._bound(node)
        if line:
            self.lines[location] = node.start_mark.line + 1
        if isinstance(node, ScalarNode):
            return self._scalar(node, location)
        if node.tag != _PREFIX + ("map" if isinstance(node, MappingNode) else "seq"):
            self._refuse(node, location)
            return None
        self._open.append(node)
        value = (
            self._mapping(node, location, line=line)
            if isinstance(node, MappingNode)
            else [self.value(inner, (*location, index), line=line) for index, inner in enumerate(node.value)]
        )
        self._open.pop()
        return value

    def _bound(self, node: Node) -> None:
        """Refuse too many levels, too many values that stand for a node that has one already, and a loop."""
        self._aliased += id(node) in self._seen
        self._seen.add(id(node))
        what = ""
        if any(node is outer for outer in self._open):
            what = "an alias (*) inside of what it stands for"
        elif len(self._open) > MAX_DEPTH:
            what = f"nested too deeply: more than {MAX_DEPTH} levels"
        elif self._aliased > MAX_ALIASED:
            what = f"more than {MAX_ALIASED} values by aliases (*)"
        if what:
            raise YamlError([(node.start_mark.line + 1, (), Fault(what))])

    def _scalar(self, node: ScalarNode, location: Location) -> Any:
        if node.tag in _TEXTS:
            if fault := text_fault(node.value):
                self._add(node, location, Fault(fault, expected="printable text"))
            return node.value
        if node.tag == f"{_PREFIX}null":
            return None
        make = self.numbers.get(str(node.tag))
        if make is None:
            self._refuse(node, location)
            return None
        try:
            return make(node)
        except (ValueError, LookupError, OverflowError):  # of a scalar whose stated type (!!int) is not its own
            kind = str(node.tag).removeprefix(_PREFIX)
            self._add(node, location, Fault(f"not of the type !!{kind}", None, node.value, _SCALARS))
            return None

    def _mapping(self, node: MappingNode, location: Location, *, line: bool) -> dict[str, Any]:
        from ruamel.yaml.nodes import SequenceNode

        own: dict[str, Any] = {}
        merged: list[Node] = []
        for key_node, inner in node.value:
            if key_node.tag == f"{_PREFIX}merge":
                merged += inner.value if isinstance(inner, SequenceNode) else [inner]
                continue
            key = self._key(key_node, location)
            if key in own:
                text = f"not valid YAML: found duplicate key {key!r}"
                raise YamlError([(key_node.start_mark.line + 1, (), Fault(text))])
            own[key] = self.value(inner, (*location, key), line=line)
            if line:
                self.lines[(*location, key)] = key_node.start_mark.line + 1
        brought: dict[str, Any] = {}
        for source in reversed(merged):  # the first of several has precedence
            brought |= self._merged(source, location)
        return brought | own

    def _key(self, node: Node, location: Location) -> str:
        from ruamel.yaml.nodes import ScalarNode

        if not isinstance(node, ScalarNode):
            self._add(node, location, Fault("a key must be text", None, _kind(node)))
            return ""
        key = self._scalar(node, location)
        if not isinstance(key, str):
            place = (*location, key if isinstance(key, int) and not isinstance(key, bool) else str(key))
            self._add(node, place, Fault("a key must be text", None, key, f'quotes around it: "{node.value}"'))
        return str(node.value)

    def _merged(self, node: Node, location: Location) -> dict[str, Any]:
        """Return the entries that a merge key brings; the lines of the file that has them are elsewhere."""
        from ruamel.yaml.nodes import MappingNode

        if not isinstance(node, MappingNode):
            self._add(node, location, Fault("<< must be a mapping, or a list of mappings", None, _kind(node)))
            return {}
        value: dict[str, Any] = self.value(node, location, line=False)
        return value or {}

    def _refuse(self, node: Node, location: Location) -> None:
        tag, expected = str(node.tag).replace(_PREFIX, "!!"), f"{_SCALARS}, a list or a mapping"
        self._add(node, location, Fault("a value of this type is not supported", None, tag, expected))

    def _add(self, node: Node, location: Location, fault: Fault) -> None:
        self.faults.append((node.start_mark.line + 1, location, fault))


def _kind(node: Node) -> str:
    return f"a {type(node).__name__.removesuffix('Node').lower()}"
