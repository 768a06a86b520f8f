"""The work of a model in a row: its order, the tensors alive between nodes, and the inner exits.

Cut ``c`` of a line lies before its node ``c``; cut 0 is the model's input, cut ``len(line)`` its output. This is the
finest chain; blocks are runs of nodes of the line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from planner.model.chain import TensorSpec
from planner.model.flop import ELEMENTWISE
from planner.model.graph import Graph, Node

FOLLOWERS = ELEMENTWISE | {"BatchNormalization", "QuantizeLinear", "HardSwish", "Swish", "Mish", "Gelu", "Softmax"}
LEADERS = frozenset({"DequantizeLinear", "Pad"})


@dataclass(frozen=True)
class Line:
    """Nodes that are work, in the order in which they run.

    Parameters
    ----------
    graph
        The model.
    order
        Its work, in a topological order.
    specs
        Tensors of known size.
    exits
        Outputs of the model that leave it early, with the cut after the node that makes them.
    """

    graph: Graph
    order: tuple[Node, ...]
    specs: Mapping[str, TensorSpec]
    exits: Mapping[str, int]

    def __len__(self) -> int:
        return len(self.order)

    @cached_property
    def made(self) -> dict[str, int]:
        """The cut from which on each tensor of work exists; 0 for the model's inputs."""
        made = dict.fromkeys(self.graph.inputs, 0)
        for position, node in enumerate(self.order):
            made |= dict.fromkeys(node.outputs, position + 1)
        return made

    @cached_property
    def _ranks(self) -> list[tuple[int, int, int]]:
        position = {node.index: place for place, node in enumerate(self.order)}
        ranks: list[tuple[int, int, int]] = []
        for node in self.graph.nodes:
            if node.index in position:
                ranks.append((position[node.index], 0, node.index))
            else:
                makers = [self.graph.maker[name].index for name in node.inputs if name in self.graph.maker]
                ranks.append((max((ranks[index][0] for index in makers), default=-1), 1, node.index))
        return ranks

    def rank(self, node: Node) -> tuple[int, int, int]:
        """Sort key that puts free nodes right behind the last work they depend on."""
        return self._ranks[node.index]

    @cached_property
    def needs(self) -> list[tuple[set[str], set[str]]]:
        """Tensors and shapes that each node needs, free nodes looked through; last, what the outputs need."""
        final = [name for name in self.graph.outputs if name not in self.exits]
        return [*(self.graph.needs(node.inputs) for node in self.order), self.graph.needs(final)]

    @cached_property
    def last_use(self) -> dict[str, int]:
        """The last cut at which each tensor is still needed after it."""
        last: dict[str, int] = {}
        for position, (tensors, shapes) in enumerate(self.needs):
            last |= dict.fromkeys(tensors | shapes, position)
        return last

    @cached_property
    def alive(self) -> list[tuple[str, ...]]:
        """The tensors that cross each cut, in the order in which they are made."""
        entering: list[list[str]] = [[] for _ in range(len(self) + 1)]
        for name, cut in self.made.items():
            entering[cut].append(name)
        for name, origin in self._origins().items():
            entering[self.made[origin]].append(name)
        alive: list[tuple[str, ...]] = []
        crossing: list[str] = []
        for cut, fresh in enumerate(entering):
            crossing = [name for name in (*crossing, *fresh) if self.last_use.get(name, -1) >= cut]
            alive.append(tuple(name for name in crossing if not self._follows(name, cut)))
        alive[0] = self.graph.inputs
        alive[-1] = tuple(name for name in self.graph.outputs if name not in self.exits)
        return alive

    def _origins(self) -> dict[str, str]:
        """Tell of each shape that is needed which tensor it is the shape of."""
        return {name: self.graph.maker[name].inputs[0] for _, shapes in self.needs for name in sorted(shapes)}

    def _follows(self, name: str, cut: int) -> bool:
        """Whether a tensor is a shape that the receiving side can take from the tensor itself."""
        return name not in self.made and self.last_use.get(self.graph.maker[name].inputs[0], -1) >= cut

    def is_sized(self, cut: int) -> bool:
        """Whether every tensor that crosses a cut has a known size and a type that numpy has."""
        return all(name in self.specs for name in self.alive[cut])

    @cached_property
    def borders(self) -> list[int]:
        """The inner cuts where the chain can be cut."""
        return [cut for cut in range(1, len(self)) if self.is_sized(cut)]

    @cached_property
    def fused(self) -> set[int]:
        """Cuts through what a runtime fuses: before operators that follow element by element, behind a padding.

        A tensor ties its maker to its users if they are all followers, or if its maker is a leader.
        """
        users: dict[str, list[int]] = {}
        for position, (tensors, _) in enumerate(self.needs[:-1]):
            for name in tensors:
                users.setdefault(name, []).append(position)
        fused: set[int] = set()
        for name, positions in users.items():
            made = self.made[name]
            led = made > 0 and self.order[made - 1].proto.op_type in LEADERS
            if led or all(self.order[position].proto.op_type in FOLLOWERS for position in positions):
                fused.update(range(made, positions[0] + 1))
        return fused - {0}

    def bytes_at(self, cut: int) -> int:
        """Size of the tensors that cross a cut, as far as it is known."""
        return sum(self.specs[name].bytes for name in self.alive[cut] if name in self.specs)


def draw_line(graph: Graph, specs: Mapping[str, TensorSpec], costs: Mapping[int, float]) -> Line:
    """Put the work in a row that keeps few bytes alive, and find the exits.

    The outputs come one after the other, the one that takes the least work first, each with the work it still lacks:
    so the head of an early exit stands right behind the trunk it leaves. Within that the order is the file's, or the
    greedy one that keeps the fewest bytes alive at each step, whichever sums to fewer bytes over all cuts.

    Parameters
    ----------
    graph
        The model.
    specs
        Tensors of known size.
    costs
        Cost of every node that is work, by its index.
    """
    work = graph.work()
    phases = _phases(graph, work)
    lines = [
        Line(graph, tuple(node for phase in phases for node in phase), specs, {}),
        Line(graph, tuple(_greedy(graph, phases, specs)), specs, {}),
    ]
    best = min(lines, key=lambda line: sum(line.bytes_at(cut) for cut in range(len(line))))
    return Line(graph, best.order, specs, _exits(best, costs))


# An output behind which less than this share of the work is left is one of several results, not an early exit.
EXIT_WORK_LEFT = 0.01


def _exits(line: Line, costs: Mapping[int, float]) -> dict[str, int]:
    """Find outputs made in mid-chain that nothing else uses and that look like the final output, in their turn."""
    ready = {name: line.made[name] for name in line.graph.outputs if line.made.get(name)}
    if not ready:
        return {}
    final = line.specs.get(max(ready, key=lambda name: ready[name]))
    used = {name for tensors, _ in line.needs[:-1] for name in tensors}
    total = sum(costs[node.index] for node in line.order)

    def leaves_early(name: str, cut: int) -> bool:
        spec = line.specs.get(name)
        left = sum(costs[node.index] for node in line.order[cut:])
        alike = spec is not None and final is not None and (spec.dtype, spec.shape) == (final.dtype, final.shape)
        return alike and name not in used and left > EXIT_WORK_LEFT * total

    in_turn = sorted(ready.items(), key=lambda item: item[1])
    return {name: cut for name, cut in in_turn if leaves_early(name, cut)}


def _producers(graph: Graph, node: Node) -> set[int]:
    """Give the indices of the work nodes that a node needs results of."""
    tensors, shapes = graph.needs(node.inputs)
    origins = {graph.maker[name].inputs[0] for name in shapes}
    return {graph.maker[name].index for name in tensors | origins if name in graph.maker}


def _phases(graph: Graph, work: Sequence[Node]) -> list[list[Node]]:
    """Split the work by the outputs it leads to, the output that takes the least work first."""
    producers = {node.index: _producers(graph, node) for node in work}

    def ancestors(name: str) -> set[int]:
        tensors, shapes = graph.needs([name])
        origins = {graph.maker[shape].inputs[0] for shape in shapes}
        stack = [graph.maker[tensor].index for tensor in tensors | origins if tensor in graph.maker]
        seen = set(stack)
        while stack:
            fresh = producers[stack.pop()] - seen
            seen |= fresh
            stack.extend(fresh)
        return seen

    before = {position: ancestors(name) for position, name in enumerate(graph.outputs)}
    placed: set[int] = set()
    phases = []
    for position in sorted(before, key=lambda position: (len(before[position]), position)):
        phase = [node for node in work if node.index in before[position] - placed]
        placed |= before[position]
        if phase:
            phases.append(phase)
    return phases


def _greedy(graph: Graph, phases: Sequence[Sequence[Node]], specs: Mapping[str, TensorSpec]) -> list[Node]:
    """Order each phase so that every step keeps as few bytes alive as it can; ties go by the file's order."""
    reads = {node.index: graph.needs(node.inputs)[0] for phase in phases for node in phase}
    uses: dict[str, int] = {}
    for names in (*reads.values(), graph.outputs):
        for name in names:
            uses[name] = uses.get(name, 0) + 1

    def size(name: str) -> int:
        return specs[name].bytes if name in specs else 0

    def growth(node: Node) -> tuple[int, int]:
        gained = sum(size(name) for name in node.outputs if name in uses)
        return gained - sum(size(name) for name in reads[node.index] if uses[name] == 1), node.index

    order: list[Node] = []
    done: set[int] = set()
    for phase in phases:
        missing = {node.index: _producers(graph, node) - done for node in phase}
        while missing:
            ready = [index for index, producers in missing.items() if producers <= done]
            node = min((graph.nodes[index] for index in ready), key=growth)
            del missing[node.index]
            done.add(node.index)
            order.append(node)
            for name in reads[node.index]:
                uses[name] -= 1
    return order
