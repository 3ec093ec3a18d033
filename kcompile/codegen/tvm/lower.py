"""A graph to a shared library: kernels, memory plan, weights, entry."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np

from kcompile.codegen.tvm import entry
from kcompile.codegen.tvm.arena import ALIGNMENT, Arena, Interval, Place
from kcompile.codegen.tvm.arena import plan as plan_arena
from kcompile.codegen.tvm.build import compile_object, link_library, release_memory
from kcompile.codegen.tvm.dtypes import native_dtypes
from kcompile.codegen.tvm.kernels.copy import Copy
from kcompile.codegen.tvm.kernels.scaled import scalings
from kcompile.codegen.tvm.order import frugal_order
from kcompile.codegen.tvm.plan import Argument, Packed, Plan, Stage, Temporary, Upcoming
from kcompile.codegen.tvm.rules import TVM
from kcompile.codegen.tvm.sharing import ALL, CHOICES, Sharing
from kcompile.codegen.tvm.targets import Machine
from kcompile.codegen.tvm.tir import Function, Kernel
from kcompile.codegen.tvm.variants import MODELLED, Variants
from kcompile.codegen.tvm.weights import Weights
from kcompile.ir import dims, ops
from kcompile.ir.dims import Dim
from kcompile.ir.graph import Graph, Node, Value, substitute
from kcompile.ir.passes.bands import NOTE
from kcompile.ir.passes.fusion import fuse
from kcompile.ir.passes.layout import to_channels_last
from kcompile.ir.rows import batch_of
from kcompile.ir.types import Array, TensorType
from kcompile.runtime.extents import equalities

EXPORTS = (
    "kc_arena_bytes",
    "kc_run",
    "kc_run_brief",
    "kc_profile",
    "kc_peak",
    "kc_pool_bytes",
    "kc_pool_create",
    "kc_pool_destroy",
    "kc_pool_ready",
    "kc_python",
)

# The most bytes between weights in use and those that are fetched: both must find room in the last-level cache.
_AHEAD = 8 << 20
# Bytes of weights of which that is much; of more, what is fetched so early is driven out again.
_RESIDENT = 32 << 20


@dataclass(frozen=True)
class KernelCall:
    """One stage, as a profile names it: the function and the Keras layer that it computes.

    `macs` are the multiply-accumulates of the stage's node, and `bytes` those of the arrays that it works on. `number`
    is that of its group of nodes, which a variant is chosen for.
    """

    function: str
    family: str
    source: str
    macs: Dim
    bytes: Dim
    number: int


@dataclass(frozen=True)
class Compiled:
    """A model as native code.

    Attributes:
        library: the shared library.
        weights: the blob that `kc_run` takes, to be 64-byte aligned.
        symbols: the order of the symbols' values that `kc_run` takes.
        arena: the arena's size as an expression; `kc_arena_bytes` computes it, too.
        calls: the stages in order.
    """

    library: bytes
    weights: memoryview
    symbols: tuple[str, ...]
    arena: Arena
    calls: tuple[KernelCall, ...]


def compile_graph(graph: Graph, machine: Machine, fast_math: bool = False, variants: Variants = MODELLED) -> Compiled:
    """Native code for `graph` on `machine`; with `fast_math`, a digit may be lost for speed.

    Raises:
        UnsupportedOp: the graph holds ops that this back end cannot express.
        MissingExtra: a linker is missing.
    """
    lowered = lower(graph, machine, "kc", fast_math=fast_math, variants=variants)
    arena = lowered.arena
    symbols = tuple(sorted(dims.symbols(*(dim for t in lowered.types for dim in t.shape))))
    objects = dict(lowered.functions)
    objects["kc_measure"] = entry.arena_bytes(machine, symbols, arena, lowered.types, equalities(graph))
    interface = [[value.type for value in values] for values in (graph.inputs, graph.outputs)]
    del graph  # its weights are in the blob, and LLVM takes memory, too
    release_memory()
    objects["kc_main"] = entry.main(machine, symbols, arena, lowered.calls, *interface)
    objects["kc_peak"] = entry.peak(machine)
    code = compile_object(objects, machine)
    release_memory()
    return Compiled(link_library([code], EXPORTS, machine), lowered.weights, symbols, arena, lowered.table)


@dataclass(frozen=True)
class Lowered:
    """A graph as TensorIR functions and what calls them.

    Attributes:
        functions: the kernels by name.
        calls: what to call, in order.
        table: what each call computes.
        weights: the blob that the calls' locations refer to.
        arena: where intermediate results lie.
        lives: the type, and the first and last call, of each of the arena's places.
        types: of everything that the calls read or write.
    """

    functions: Mapping[str, object]
    calls: tuple[entry.Call, ...]
    table: tuple[KernelCall, ...]
    weights: memoryview
    arena: Arena
    lives: tuple[Interval, ...]
    types: tuple[TensorType, ...]


def lower(
    graph: Graph,
    machine: Machine,
    prefix: str,
    weights: Weights | None = None,
    kept: int | None = None,
    fast_math: bool = False,
    variants: Variants = MODELLED,
) -> Lowered:
    """The functions of `graph`, whose names begin with `prefix`.

    Args:
        weights: a blob to add to.
        kept: the number of outputs that may share memory with nothing else; what follows them is written last of all,
            so that it may replace inputs.
        fast_math: whether a digit may be lost for speed.
        variants: how groups of nodes depart from what the models of costs choose.

    Raises:
        UnsupportedOp: the graph holds ops that this back end cannot express.
    """
    graph = prepared(graph)
    batch = batch_of(graph) if machine.threaded else None
    blob, kept = weights or Weights(machine), len(graph.outputs) if kept is None else kept
    memory = _placed(graph, machine, blob, kept, fast_math, variants)
    plan = memory.plan
    functions = _functions(plan, machine, prefix)
    calls = tuple(
        entry.Call(functions.names[key(stage)][0], locations, functions.names[key(stage)][1])
        for stage, locations in zip(plan.stages, memory.locations(plan.stages), strict=True)
    )
    table = tuple(
        KernelCall(call.name, stage.kernel.family, stage.source, stage.macs, stage.bytes(), stage.number)
        for call, stage in zip(calls, plan.stages, strict=True)
    )
    arena = replace(memory.arena, batch=batch)
    return Lowered(functions.made, calls, table, blob.blob(), arena, memory.lives, tuple(memory.types))


def workspace(graph: Graph, machine: Machine) -> int:
    """The bytes of intermediate results of `graph`, whose extents are known, as `lower` would place them."""
    graph = prepared(graph)
    return _placed(graph, machine, Weights(machine), len(graph.outputs), False, MODELLED).arena.bytes({})


def _placed(graph: Graph, machine: Machine, blob: Weights, kept: int, fast_math: bool, variants: Variants) -> "_Memory":
    """The stages of a prepared graph, and where their arguments lie."""
    # Where memory is scarce, nodes may run in another order; the first is the one that the model was written in.
    # Bands are in the best order already, which a search among so many nodes would not find.
    orders = [graph.nodes]
    if not machine.threaded and NOTE not in graph.notes:
        orders.append(frugal_order(graph))
    plans = [planned(graph, order, machine, fast_math, variants) for order in orders]
    return _Memory(graph, plans[0], blob, kept, ALL) if machine.threaded else _least(graph, plans, blob, kept)


def _least(graph: Graph, plans: Sequence[Plan], weights: Weights, kept: int) -> "_Memory":
    """The memory of fewest bytes; of several, that with the fewest functions."""
    memories = [_Memory(graph, plan, weights, kept, sharing) for plan in plans for sharing in CHOICES]
    return min(memories, key=lambda memory: (memory.arena.bytes({}), len({key(s) for s in memory.plan.stages})))


def planned(graph: Graph, order: Sequence[Node], machine: Machine, fast_math: bool, variants: Variants) -> Plan:
    """The stages of a graph's nodes in an order."""
    constants = (node.outputs[0].constant for node in graph.nodes if isinstance(node.op, ops.Constant))
    resident = sum(array.nbytes for array in constants if array is not None) <= _RESIDENT
    unused = frozenset(v for node in graph.nodes for v in node.outputs if v not in graph.uses)
    # Scaled weights take memory that pixels, which are scaled in place, do not.
    scaled = scalings(graph) if machine.threaded else {}
    plan = Plan(machine, unused, fast_math, machine.threaded and resident, scaled, variants)
    plan.lower(order)
    if machine.half_weights:
        plan.stages = [with_half_weights(stage, machine) for stage in plan.stages]
    return plan


def prepared(graph: Graph) -> Graph:
    """`graph` in channels-last layout, of ops that have rules, in fused groups."""
    graph = _expanded(to_channels_last(native_dtypes(graph)))
    return fuse(graph)


def _expanded(graph: Graph) -> Graph:
    replacements: dict[Value, Value] = {}
    for node in graph.nodes:
        if isinstance(node.op, ops.Fused):
            body = TVM.expand(node.op.body)
            if body is not node.op.body:
                made = Node(ops.Fused(node.op.label, body), node.inputs, node.source)
                replacements.update(zip(node.outputs, made.outputs, strict=True))
    return TVM.expand(substitute(graph, replacements))


# A kernel, the numbers of its arguments that are stored in float16, and of the two that are one array.
Key: TypeAlias = tuple[Kernel, frozenset[int], tuple[int, int] | None]


def key(stage: Stage) -> Key:
    """What decides a stage's function."""
    stored = ((i, a) for i, a in enumerate(stage.arguments) if not isinstance(a, Packed))  # in float32, if not made yet
    arrays = ((i, _weights_of(argument)) for i, argument in stored)
    halves = frozenset(i for i, array in arrays if array is not None and array.dtype == np.float16)
    return stage.kernel, halves, stage.in_place


def with_half_weights(stage: Stage, machine: Machine) -> Stage:
    """The stage with those weights in float16 that are exact in it, and that its kernel reads as float32."""
    tried = Function("", machine)
    stage.kernel.build(tried)
    pairs = zip(stage.arguments, tried.dtypes, strict=True)
    return replace(stage, arguments=tuple(_halved(a) if dtype == "float32" else a for a, dtype in pairs))


def _halved(argument: Argument) -> Argument:
    array = _weights_of(argument)
    if array is None or array.dtype != np.float32 or array.ndim == 0:
        return argument
    with np.errstate(over="ignore"):
        half = array.astype(np.float16)
    exact = np.isfinite(half).all() and np.array_equal(half.astype(np.float32), array)
    return half if exact else argument


def _weights_of(argument: Argument) -> Array | None:
    if isinstance(argument, Value):
        return argument.constant
    if isinstance(argument, Packed):
        return argument.make()
    return argument if isinstance(argument, np.ndarray) else None


@dataclass
class _Functions:
    """TensorIR functions by name, and the name and symbols of each kernel's."""

    made: dict[str, object] = field(default_factory=dict[str, object])
    names: dict[Key, tuple[str, tuple[str, ...]]] = field(default_factory=dict[Key, tuple[str, tuple[str, ...]]])


def _functions(plan: Plan, machine: Machine, prefix: str) -> _Functions:
    """One function per distinct kernel."""
    result = _Functions()
    for stage in plan.stages:
        kernel, halves, in_place = found = key(stage)
        if found in result.names:
            continue
        function = Function(f"{prefix}_{kernel.family}_{len(result.names)}", machine, halves, in_place)
        kernel.build(function)
        result.made[function.name] = function.finish()
        result.names[found] = (function.name, tuple(function.symbols))
    return result


def _weight_bytes(argument: Argument) -> int:
    if isinstance(argument, Packed):
        return argument.type.itemsize * int(argument.type.size)
    array = _weights_of(argument)
    return 0 if array is None else array.nbytes


class _Memory:
    """Where every argument of a plan's stages lies; appends copies to the plan for outputs that nothing computes."""

    def __init__(self, graph: Graph, plan: Plan, weights: Weights, kept: int, sharing: Sharing) -> None:
        self.weights = weights
        self.plan = plan = plan.copy()
        self._kept = kept
        self._machine = plan.machine
        self._inputs = {value: i for i, value in enumerate(graph.inputs)}
        self._outputs: dict[Value, int] = {}
        for i, value in enumerate(graph.outputs):
            self._place_output(plan, i, value)
        sharing.apply(plan, self._external, lambda value: self._outputs.get(value, 0) >= kept)
        arguments = [(a, number) for number, stage in enumerate(plan.stages) for a in stage.arguments]
        self._places = self._plan(arguments)
        values = [a for a, _ in arguments if isinstance(a, Value | Temporary)]
        self.types = [value.type for value in (*graph.inputs, *graph.outputs, *values)]

    def _root(self, value: Value) -> Value:
        return self.plan.root(value)[0]

    def _place_output(self, plan: Plan, i: int, value: Value) -> None:
        root = self._root(value)
        if i >= self._kept or root in self._inputs or root in self._outputs or root.constant is not None:
            target = Value(value.type)
            plan.stages.append(Stage(Copy(value.type.dtype, value.type.size), (value, target), ""))
            root = target
        self._outputs[root] = i

    def _plan(self, arguments: Sequence[tuple[Argument, int]]) -> dict[Value | Temporary, Place]:
        lives: dict[Value | Temporary, tuple[int, int]] = {}
        for argument, number in arguments:
            key = self._root(argument) if isinstance(argument, Value) else argument
            if not isinstance(key, Value | Temporary) or (isinstance(key, Value) and self._external(key)):
                continue
            lives[key] = (lives.get(key, (number, 0))[0], number)
        intervals = [Interval(key.type, first, last, self._per_thread(key)) for key, (first, last) in lives.items()]
        self.lives = tuple(intervals)
        self.arena = plan_arena(intervals, self._machine.alignment, self._machine.threaded)
        return dict(zip(lives, self.arena.places, strict=True))

    def _per_thread(self, key: Value | Temporary) -> bool:
        return self._machine.threaded and isinstance(key, Temporary) and key.per_thread

    def _external(self, value: Value) -> bool:
        return value in self._inputs or value in self._outputs or value.constant is not None

    def locations(self, stages: Sequence[Stage]) -> list[tuple[entry.Location, ...]]:
        """Where the arguments of each stage lie; the blob holds the weights in the order of their first use."""
        self.weights.reserve(sum(_weight_bytes(a) + ALIGNMENT for stage in stages for a in stage.arguments))
        known: list[list[entry.Location]] = []
        ends: list[int] = []
        for stage in stages:
            merged = stage.in_place[1] if stage.in_place else -1
            arguments = [a for i, a in enumerate(stage.arguments) if i != merged]
            known.append([self.locate(a) for a in arguments if not isinstance(a, Upcoming)])
            ends.append(self.weights.size)
        fetched = 0
        for stage, places, end in zip(stages, known, ends, strict=True):
            for argument in stage.arguments:
                if isinstance(argument, Upcoming):
                    size = argument.lines * ALIGNMENT
                    fetched = min(max(fetched, end), end + _AHEAD)
                    places.append(entry.Location("weights", max(0, min(fetched, self.weights.size - size))))
                    fetched += size
        return [tuple(places) for places in known]

    def locate(self, argument: Value | Temporary | Array | Packed) -> entry.Location:
        """Where `argument` lies."""
        if isinstance(argument, Temporary):
            return entry.Location("arena", 0, self._places[argument], self._per_thread(argument))
        if not isinstance(argument, Value):
            made = argument.make() if isinstance(argument, Packed) else argument
            return entry.Location("weights", self.weights.offset(made))
        value, offset = self.plan.root(argument)
        if value in self._outputs:
            return entry.Location("output", self._outputs[value], offset=offset)
        if value in self._inputs:
            return entry.Location("input", self._inputs[value], offset=offset)
        if value.constant is not None:
            return entry.Location("weights", self.weights.offset(value.constant))
        return entry.Location("arena", 0, self._places[value], offset=offset)
