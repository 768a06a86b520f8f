"""The page of the worker's events and effects, made from its code: ``python -m tests.docs.worker_page``.

What may follow an event is read from the source: the effects that its handler makes, and the functions that it calls.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final, get_args

from planner.files import write_text_atomic
from planner.worker import clearance_handshake, events, home, lateness, pace, queues, state_transfers, worker
from tests.docs.fields import about
from tests.docs.worker_states import PLACES, numbered, states_picture, transitions

PAGE: Final = Path(__file__).parents[2] / "docs/theory/worker.md"
PICTURE: Final = Path(__file__).parents[2] / "docs/images/worker.svg"
STATES: Final = Path(__file__).parents[2] / "docs/images/worker-states.svg"

EVENTS: Final = {cls.__name__: cls for cls in get_args(events.Event)}
EFFECTS: Final = {cls.__name__: cls for cls in get_args(events.Effect)}
MESSAGES: Final[dict[str, type]] = {
    cls.__name__: cls for union in (events.Parcel, events.Note) for cls in get_args(union)
}

EVERY: Final = "every step"
"""Stands for what a step does after the handler of its event."""

_PARTS: Final = {
    "_home": "Home",
    "_handshake": "ClearanceHandshake",
    "_transfers": "StateTransfers",
    "_queues": "Queues",
    "_pace": "Pace",
    "_lateness": "Lateness",
}
"""Attributes of the worker that hold a part of its state machine, and their classes."""

_ROW_PX: Final = 44
_COLOURS: Final = ("#0072b2", "#009e73", "#cc79a7", "#b8860b", "#56a0d3", "#d55e00", "#666666", "#7b3294", "#17becf")
"""Colour of each effect."""

_HEAD: Final = """# The worker

A worker is a state machine: `step(now_s, event)` returns effects, which its driver carries out. The simulator and the
agents drive the same class. This page is generated from its code; a test also compares it with what workers do in
simulations under every policy.

![Events on the left, effects on the right; a line where the effect may follow](../images/worker.svg)

"""

_STATES: Final = """
## States

A worker has no table of states: what it holds tells them. These are all that were observed in random runs under every
policy and with every kind of fault; a test looks for others. The number of an arrow is that of its row in the tables.
A message stands for its being received; `TimedOut` has what the time was set for.

![States of samples and tasks, with arrows that have numbers](../images/worker-states.svg)

A sample whose attempt is over without a result is in flight again, or waits. A task that comes while the worker is idle
runs in the same step.
"""


@cache
def _functions() -> dict[str, ast.FunctionDef]:
    """Return the methods of the worker and its parts by ``Class.name``."""
    found: dict[str, ast.FunctionDef] = {}
    for module in (worker, home, clearance_handshake, state_transfers, queues, pace, lateness):
        for cls in (node for node in ast.parse(inspect.getsource(module)).body if isinstance(node, ast.ClassDef)):
            found |= {f"{cls.name}.{node.name}": node for node in cls.body if isinstance(node, ast.FunctionDef)}
    return found


@cache
def _table_of(name: str) -> ast.Dict:
    """Return a dispatch table of the worker."""
    (table,) = [
        node.value
        for node in ast.walk(_functions()["Worker.__init__"])
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == f"self.{name}"
    ]
    assert isinstance(table, ast.Dict)
    return table


def handlers() -> dict[str, str]:
    """Return the method that handles each event, from the worker's dispatch table."""
    table = _table_of("_handlers")
    return {
        ast.unparse(key): f"Worker.{ast.unparse(value).removeprefix('self.')}"
        for key, value in zip(table.keys, table.values, strict=True)
        if key is not None
    }


@cache
def effects_of(event: str) -> frozenset[str]:
    """Return the names of the effects that the handler of an event may make, or for ``EVERY`` the rest of the step."""
    if event == EVERY:
        step = _functions()["Worker.step"]
        return frozenset(
            effect for node in ast.walk(step) for name in _called("Worker", node) for effect in _reachable(name)
        )
    return _reachable(handlers()[event])


@cache
def _reachable(start: str) -> frozenset[str]:
    """Return the effects that a function makes, or that a function that it calls does."""
    seen, todo, made = set[str](), [start], set[str]()
    while todo:
        name = todo.pop()
        if name in seen or name not in _functions():
            continue
        seen.add(name)
        for node in ast.walk(_functions()[name]):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in EFFECTS:
                made.add(ast.unparse(node.func))
            todo += _called(name.partition(".")[0], node)
    return frozenset(made)


def _called(cls: str, node: ast.AST) -> Iterator[str]:
    """Yield the method that a node calls or names: one of the same class, or of a part of the worker."""
    if not isinstance(node, ast.Attribute):
        return
    owner = ast.unparse(node.value)
    if (owner, node.attr) == ("self", "_messages"):
        for value in _table_of("_messages").values:
            for named in ast.walk(value):
                yield from _called(cls, named)
    elif owner == "self":
        # The home calls the worker back to place a task.
        yield "Worker._place" if (cls, node.attr) == ("Home", "_place") else f"{cls}.{node.attr}"
    elif owner.removeprefix("self.") in _PARTS:
        yield f"{_PARTS[owner.removeprefix('self.')]}.{node.attr}"


def worker_page() -> str:
    """Return the page as Markdown."""
    parts = [_HEAD, _rules(), *_states(), "\n## Events, and the effects that may follow\n\n"]
    parts += [
        _table(
            "event",
            "meaning",
            "effects",
            rows=[
                *((f"`{name}`", about(cls), _effects(name)) for name, cls in EVENTS.items()),
                (
                    EVERY,
                    "After any of these: an idle worker serves a queue or drops late samples; policies that gossip do.",
                    _effects(EVERY),
                ),
            ],
        )
    ]
    parts += [
        "\n## Effects\n\n",
        _table("effect", "what the driver does", rows=[(f"`{name}`", about(cls)) for name, cls in EFFECTS.items()]),
    ]
    parts += [
        "\n## Messages between workers\n\n",
        _table("message", "meaning", rows=[(f"`{name}`", about(cls)) for name, cls in MESSAGES.items()]),
    ]
    return "".join(parts)


def _states() -> Iterator[str]:
    """Yield the section on states: a table below the picture for each kind."""
    yield _STATES
    for found, places, title in zip(transitions(), PLACES, ("A sample at its home", "A task at a worker"), strict=True):
        pairs = numbered(found, places)
        yield f"\n### {title}\n\n"
        yield _table(
            "",
            "from",
            "to",
            "on",
            rows=[
                (str(number), start, end, ", ".join(f"`{name}`" for name in sorted(found[start, end])))
                for number, (start, end) in enumerate(pairs, start=1)
            ],
        )


def _effects(event: str) -> str:
    return ", ".join(f"`{effect}`" for effect in EFFECTS if effect in effects_of(event)) or "–"


def _rules() -> str:
    """Return the rules at the top of the worker's module as a list."""
    text = (worker.__doc__ or "").partition("applies them:\n\n")[2].rpartition("\n\nAn event")[0]
    lines: list[str] = []
    for line in text.splitlines():
        lines += [line.strip()] if line[:1].isdigit() else []
        if not line[:1].isdigit():
            lines[-1] += f" {line.strip()}"
    plain = "\n".join(" ".join(line.split()) for line in lines)
    for role in (":class:", ":mod:", ":meth:"):
        plain = plain.replace(role, "")
    plain = plain.replace("``", "`")
    return "## Rules\n\n" + plain.replace("`~planner.worker.event_checks.ProtocolError`", "`ProtocolError`") + "\n"


def _table(*heads: str, rows: list[tuple[str, ...]]) -> str:
    lines = [heads, tuple("---" for _ in heads), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def worker_picture() -> str:
    """Return the table of events and effects as an SVG picture: a line where an effect may follow an event."""
    height = _ROW_PX * (len(EVENTS) + 2)
    left = {name: _ROW_PX * (row + 1) for row, name in enumerate([*EVENTS, EVERY])}
    right = {name: height * (row + 1) / (len(EFFECTS) + 1) for row, name in enumerate(EFFECTS)}
    lines = [
        f'<path d="M 190 {left[event]} C 330 {left[event]} 330 {right[effect]:g} 470 {right[effect]:g}" '
        f'stroke="{colour}" fill="none" stroke-width="1.5"/>'
        for effect, colour in zip(EFFECTS, _COLOURS, strict=True)
        for event in left
        if effect in effects_of(event)
    ]
    texts = [f'<text x="180" y="{y}" dy="5" text-anchor="end">{name}</text>' for name, y in left.items()]
    texts += [
        f'<text x="480" y="{y:g}" dy="5" fill="{colour}" font-weight="bold">{name}</text>'
        for (name, y), colour in zip(right.items(), _COLOURS, strict=True)
    ]
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 640 {height}" font-family="sans-serif" font-size="15">'
    )
    return "\n".join([head, '<rect width="100%" height="100%" fill="white"/>', *lines, *texts, "</svg>", ""])


def main() -> None:
    """Write the page and its picture."""
    write_text_atomic(PAGE, worker_page())
    write_text_atomic(PICTURE, worker_picture())
    write_text_atomic(STATES, states_picture())


if __name__ == "__main__":
    main()
