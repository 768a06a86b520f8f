"""The work of a model as a sequence: its order, the tensors alive between nodes, and the inner exits.

Cut ``c`` of a line lies before its node ``c``. Cut 0 is the model's input and cut ``len(line)`` its output. The line is
the finest possible chain; a block is a sequence of consecutive nodes of the line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from planner.model.chain import TensorSpec
from planner.model.flop import ELEMENTWISE
from planner.model.graph import Node, WorkGraph

FOLLOWERS = ELEMENTWISE | {"BatchNormalization", "QuantizeLinear", "HardSwish", "Swish", "Mish", "Gelu", "Softmax"}
LEADERS = frozenset({"DequantizeLinear", "Pad"})


@dataclass(frozen=True)
class WorkOrder:
    """Work nodes in execution order.

    Parameters
    ----------
    graph
        The model.
    order
        Work nodes in a topological order.
    specs
        Tensors of known size.
    exits
        Early outputs of the model, with the cut after the node that produces them.
    """

    graph: WorkGraph
    order: tuple[Node, ...]
    specs: Mapping[str, TensorSpec]
    exits: Mapping[str, int]

    def __len__(self) -> int:
        return len(self.order)

    @cached_property
    def made(self) -> dict[str, int]:
        """First cut at which each tensor of work exists; 0 for the model's inputs."""
        made = dict.fromkeys(self.graph.inputs, 0)
        for position, node in enumerate(self.order):
            made |= dict.fromkeys(node.outputs, position + 1)
        return made

    @cached_property
    def state_places(self) -> dict[str, range]:
        """Positions of the nodes from the first to the last that use a state, or make the one after a run."""
        places: dict[str, range] = {}
        for before, after in self.graph.state.items():
            users = [at for at, (tensors, _) in enumerate(self.needs[:-1]) if not tensors.isdisjoint({before, after})]
            shapes = [at for at, (_, names) in enumerate(self.needs) for name in names if self._origin(name) == before]
            makers = [self.made[after] - 1] if self.made.get(after) else []
            last = max(users + makers, default=0)
            places[before] = range(min([*users, *makers, *shapes], default=0), last + 1)
        return places

    def state_in(self, first: int, last: int) -> tuple[str, ...]:
        """Return the inputs with state, as before a run, of the nodes between two cuts."""
        return tuple(before for before, places in self.state_places.items() if first <= places.start < last)

    @cached_property
    def _ranks(self) -> list[tuple[int, int, int]]:
        positions = {node.index: position for position, node in enumerate(self.order)}
        ranks: list[tuple[int, int, int]] = []
        for node in self.graph.nodes:
            if node.index in positions:
                ranks.append((positions[node.index], 0, node.index))
            else:
                makers = [self.graph.maker[name].index for name in node.inputs if name in self.graph.maker]
                ranks.append((max((ranks[index][0] for index in makers), default=-1), 1, node.index))
        return ranks

    def rank(self, node: Node) -> tuple[int, int, int]:
        """Return a sort key that puts free nodes directly after the last work they depend on."""
        return self._ranks[node.index]

    @cached_property
    def needs(self) -> list[tuple[set[str], set[str]]]:
        """Tensors and shapes that each work node needs, traced through free nodes, then those that the outputs need."""
        return [*(self.graph.needs(node.inputs) for node in self.order), self.graph.needs(self._final)]

    @property
    def _final(self) -> tuple[str, ...]:
        """The outputs that are available at the last cut only."""
        kept = self.graph.state.values()
        return tuple(name for name in self.graph.outputs if name not in self.exits and name not in kept)

    @cached_property
    def last_use(self) -> dict[str, int]:
        """Last cut after which each tensor is still needed."""
        last: dict[str, int] = {}
        for position, (tensors, shapes) in enumerate(self.needs):
            last |= dict.fromkeys(tensors | shapes, position)
        return last

    @cached_property
    def alive(self) -> list[tuple[str, ...]]:
        """Tensors that cross each cut, in the order in which they are produced."""
        entering: list[list[str]] = [[] for _ in range(len(self) + 1)]
        for name, cut in self.made.items():
            if name not in self.graph.state:
                entering[cut].append(name)
        for name, origin in self._shape_origins().items():
            places = self.state_places.get(origin)
            entering[self.made[origin] if places is None else places.start + 1].append(name)
        alive: list[tuple[str, ...]] = []
        crossing: list[str] = []
        for cut, fresh in enumerate(entering):
            crossing = [name for name in (*crossing, *fresh) if self.last_use.get(name, -1) >= cut]
            alive.append(tuple(name for name in crossing if not self._shape_is_implied(name, cut)))
        alive[0] = tuple(name for name in self.graph.inputs if name not in self.graph.state)
        alive[-1] = self._final
        return alive

    def _shape_origins(self) -> dict[str, str]:
        """Return the tensor to which each needed shape belongs."""
        return {name: self._origin(name) for _, shapes in self.needs for name in sorted(shapes)}

    def _origin(self, shape: str) -> str:
        return self.graph.maker[shape].inputs[0]

    def _shape_is_implied(self, name: str, cut: int) -> bool:
        """Return whether a tensor is a shape that the receiver can take from the tensor itself."""
        if name in self.made or self._origin(name) in self.graph.state:
            return False
        return self.last_use.get(self._origin(name), -1) >= cut

    def is_sized(self, cut: int) -> bool:
        """Return whether every tensor that crosses a cut has a known size and a type that numpy supports."""
        return all(name in self.specs for name in self.alive[cut])

    def can_end_block(self, cut: int) -> bool:
        """Return whether a block can end at an inner cut: all that crosses can be sent, and no state is torn."""
        torn = any(places.start < cut < places.stop for places in self.state_places.values())
        return self.is_sized(cut) and not torn

    @cached_property
    def borders(self) -> list[int]:
        """Inner cuts at which the chain can be cut."""
        return [cut for cut in range(1, len(self)) if self.can_end_block(cut)]

    @cached_property
    def fused(self) -> set[int]:
        """Cuts between nodes that a runtime fuses: before element-wise operators, and after a padding.

        A tensor ties its producer to its consumers if all consumers are followers or if the producer is a leader.
        """
        users: dict[str, list[int]] = {}
        for position, (tensors, _) in enumerate(self.needs[:-1]):
            for name in tensors:
                users.setdefault(name, []).append(position)
        fused: set[int] = set()
        for name, positions in users.items():
            produced = self.made[name]
            after_leader = produced > 0 and self.order[produced - 1].proto.op_type in LEADERS
            if after_leader or all(self.order[position].proto.op_type in FOLLOWERS for position in positions):
                fused.update(range(produced, positions[0] + 1))
        return fused - {0}

    def bytes_at(self, cut: int) -> int:
        """Return the size in bytes of the tensors that cross a cut; tensors of unknown size count 0."""
        return sum(self.specs[name].bytes for name in self.alive[cut] if name in self.specs)


def order_work(
    graph: WorkGraph, specs: Mapping[str, TensorSpec], costs: Mapping[int, float], stages: Mapping[int, int]
) -> WorkOrder:
    """Order the work so that few bytes are alive, and find the exits.

    Outputs are computed one after the other, the one with the least work first, each with the work not yet done for
    earlier ones. The head of an early exit therefore directly follows the trunk that it branches from. Within this
    structure, nodes keep the order of the file or follow a greedy order that keeps the fewest bytes alive at each step,
    whichever gives the smaller sum of bytes over all cuts.

    Parameters
    ----------
    graph
        The model.
    specs
        Tensors of known size.
    costs
        Cost of every work node, by node index.
    stages
        Pipeline stage of every work node, by node index, or empty. Stages follow one another.
    """
    work = graph.work()
    phases = _phases(graph, work)
    if stages:
        in_turn = sorted(set(stages.values()))
        phases = [[node for node in phase if stages[node.index] == stage] for stage in in_turn for phase in phases]
    lines = [
        WorkOrder(graph, tuple(node for phase in phases for node in phase), specs, {}),
        WorkOrder(graph, tuple(_greedy(graph, phases, specs)), specs, {}),
    ]
    best = min(lines, key=lambda line: sum(line.bytes_at(cut) for cut in range(len(line))))
    return WorkOrder(graph, best.order, specs, _exits(best, costs))


# If less than this share of the work remains after an output, it is one of several results and not an early exit.
EXIT_WORK_LEFT = 0.01


def _exits(line: WorkOrder, costs: Mapping[int, float]) -> dict[str, int]:
    """Return the early outputs in chain order: unused by other nodes, and of the final output's type and shape."""
    kept = line.graph.state.values()
    ready = {name: line.made[name] for name in line.graph.outputs if line.made.get(name) and name not in kept}
    if not ready:
        return {}
    last = max(ready, key=lambda name: ready[name])  # more state may be computed after it
    final = line.specs.get(last)
    used = {name for tensors, _ in line.needs[:-1] for name in tensors}
    total = sum(costs[node.index] for node in line.order)

    def leaves_early(name: str, cut: int) -> bool:
        spec = line.specs.get(name)
        remaining = sum(costs[node.index] for node in line.order[cut:])
        like_final = spec is not None and final is not None and (spec.dtype, spec.shape) == (final.dtype, final.shape)
        return like_final and name != last and name not in used and remaining > EXIT_WORK_LEFT * total

    in_chain_order = sorted(ready.items(), key=lambda item: item[1])
    return {name: cut for name, cut in in_chain_order if leaves_early(name, cut)}


def producers_of(graph: WorkGraph, node: Node) -> set[int]:
    """Return the indices of the work nodes whose results a node needs."""
    tensors, shapes = graph.needs(node.inputs)
    origins = {graph.maker[name].inputs[0] for name in shapes}
    return {graph.maker[name].index for name in tensors | origins if name in graph.maker}


def _phases(graph: WorkGraph, work: Sequence[Node]) -> list[list[Node]]:
    """Split the work by the outputs that it contributes to, the output with the least work first."""
    producers = {node.index: producers_of(graph, node) for node in work}

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

    ancestors_of = {position: ancestors(name) for position, name in enumerate(graph.outputs)}
    placed: set[int] = set()
    phases = []
    for position in sorted(ancestors_of, key=lambda position: (len(ancestors_of[position]), position)):
        phase = [node for node in work if node.index in ancestors_of[position] - placed]
        placed |= ancestors_of[position]
        if phase:
            phases.append(phase)
    return phases


def _greedy(graph: WorkGraph, phases: Sequence[Sequence[Node]], specs: Mapping[str, TensorSpec]) -> list[Node]:
    """Order each phase so that every step keeps the fewest bytes alive; ties follow the order of the file."""
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
        missing = {node.index: producers_of(graph, node) - done for node in phase}
        while missing:
            ready = [index for index, producers in missing.items() if producers <= done]
            node = min((graph.nodes[index] for index in ready), key=growth)
            del missing[node.index]
            done.add(node.index)
            order.append(node)
            for name in reads[node.index]:
                uses[name] -= 1
    return order
