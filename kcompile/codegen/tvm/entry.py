"""The C functions that the runtime calls: the arena's size, the stages in order, and what a profile compares with.

``int32_t kc_measure(const int64_t *symbols, int32_t threads, int64_t *measures)``
``int32_t kc_main(inputs, outputs, weights, arena, symbols, worker, thread, threads, slice, first, last)``
``int32_t kc_peak(float *x, int32_t rounds, int64_t *operations)``
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kcompile.codegen.tvm.arena import CACHED, MOST_ROWS, THREADS, Arena, Place
from kcompile.codegen.tvm.build import global_variable
from kcompile.codegen.tvm.compiler import tirx, tvm
from kcompile.codegen.tvm.expr import Expr, constant, prim_type, quotient, select
from kcompile.codegen.tvm.targets import Machine
from kcompile.codegen.tvm.tir import Function
from kcompile.ir import dims
from kcompile.ir.dims import Dim
from kcompile.ir.types import TensorType
from kcompile.runtime.equality import Equality

_LARGEST = 2**31 - 1
_UNBOUNDED = 1 << 62
# Sums that a core adds to in turn: two units of a latency of up to six cycles; they fit in 16 registers.
_CHAINS = 12
_VOID = tvm.ir.PointerType(prim_type("uint8", 1))


@dataclass(frozen=True)
class Location:
    """Where an argument lies: the n-th input or output, bytes into the weights, or a place in the arena.

    `offset` are the bytes of that array before it, in libraries only.
    """

    kind: str
    number: int = 0
    place: Place | None = None
    per_thread: bool = False
    offset: int = 0


@dataclass(frozen=True)
class Call:
    """A call of the function called `name`."""

    name: str
    arguments: tuple[Location, ...]
    symbols: tuple[str, ...]


class _Entry(Function):
    """A function whose symbols, if it has any, are int64 and stand in an array."""

    def __init__(self, name: str, machine: Machine, symbols: Sequence[str] | None) -> None:
        super().__init__(name, machine)
        self.parameters: list[Any] = []
        self.values: dict[str, Expr] = {}
        if symbols is not None:
            array = self.array("symbols", "int64")
            self.values = {name: self.load(array, i, "int64") for i, name in enumerate(symbols)}

    def array(self, name: str, dtype: str) -> Any:
        """A pointer parameter, as a buffer."""
        variable = tirx.Var(name, tvm.ir.PointerType(prim_type(dtype, 1)))
        self.parameters.append(variable)
        buffer = tirx.decl_buffer((_UNBOUNDED,), dtype, name=name)
        self.emit(tirx.DeclBuffer(buffer, data=variable))
        return buffer

    def number(self, name: str) -> Expr:
        """An int32 parameter."""
        variable = tirx.Var(name, prim_type("int32", 1))
        self.parameters.append(variable)
        return Expr(variable, "int32", named=True)

    def load(self, buffer: Any, i: int, dtype: str) -> Expr:
        return self.bind(Expr(tirx.BufferLoad(buffer, [tirx.const(i, "int32")]), dtype))

    def symbol(self, name: str) -> Expr:
        return self.values[name]

    def call(self, name: str, arguments: Sequence[Any]) -> None:
        """Call another function of the module."""
        self.emit(tirx.Evaluate(tvm.ir.Call(global_variable(name), list(arguments), ret_ty=prim_type("int32", 1))))

    def block(self, name: str, pointer: Any) -> Any:
        """The memory that starts at a pointer, as a buffer."""
        variable = tirx.Var(name, _VOID)
        self.emit(tirx.Bind(variable, pointer))
        buffer = tirx.decl_buffer((_UNBOUNDED,), "uint8", name=name)
        self.emit(tirx.DeclBuffer(buffer, data=variable))
        return buffer

    def wide(self, dim: Dim) -> Expr:
        """An extent as an int64."""
        value = self.extent(dim)
        return value if isinstance(value, Expr) else constant(value, "int64")

    def finish(self) -> Any:
        """The PrimFunc. Memory is shared between threads, so nothing is promised about aliasing."""
        self.emit(tirx.Return(tirx.const(0, "int32")))
        return tirx.PrimFunc(self.parameters, self.body(), ret_type=prim_type("int32", 1))


def arena_bytes(
    machine: Machine, symbols: Sequence[str], arena: Arena, types: Sequence[TensorType], laws: Sequence[Equality] = ()
) -> Any:
    """``kc_measure``: the arena's bytes, and the number of slices in which the batch is computed.

    -1 bytes where an extent is negative, a law is broken, or offsets need more than 31 bits.
    """
    f = _Entry("kc_measure", machine, symbols)
    f.values[THREADS] = f.let(f.number("threads").cast("int64"))
    fits = constant(True, "bool")
    for name in symbols:
        fits = fits & (f.values[name] >= 0) & (f.values[name] <= _LARGEST)
    for dim in dict.fromkeys(dim for t in types for dim in t.shape if isinstance(dim, str)):
        fits = fits & (f.wide(dim) >= 0)
    for law in laws:
        fits = fits & f.wide(law.left).equals(f.wide(law.right))
    slices = constant(1, "int64")
    if arena.batch:
        batch, rows = f.values[arena.batch], _rows(f, arena)
        slices = _at_least(_ceil_div(batch, rows), 1)
        f.values[arena.batch] = f.let(_at_most(batch, rows))
    # A product of several large symbols could wrap around in 64 bits, but not in the range of a double.
    for size in dict.fromkeys(t.size for t in types if isinstance(t.size, str)):
        fits = fits & (_approximate(f, size) <= float(_LARGEST))
    measures = f.array("measures", "int64")
    for i, value in enumerate((select(fits, _total(f, arena), -1), slices)):
        f.emit(tirx.BufferStore(measures, value.node, [tirx.const(i, "int32")]))
    return f.finish()


def main(
    machine: Machine,
    symbols: Sequence[str],
    arena: Arena,
    calls: Sequence[Call],
    inputs: Sequence[TensorType],
    outputs: Sequence[TensorType],
) -> Any:
    """``kc_main``: the calls from number `first` on and before `last` for a slice, with a barrier between any two."""
    f = _Entry("kc_main", machine, symbols)
    symbols_array = f.parameters.pop()
    address = f"int{8 * machine.pointer_bytes}"
    arrays = {kind: f.array(kind, address) for kind in ("input", "output")}
    blocks = {kind: f.array(kind, "uint8") for kind in ("weights", "arena")}
    f.parameters.append(symbols_array)
    worker = tirx.Var("worker", tvm.ir.PointerType(prim_type("uint8", 1)))
    f.parameters.append(worker)
    names = ("thread", "threads", "slice", "first", "last")
    thread, threads, number, first, last = (f.number(name) for name in names)
    f.values[THREADS] = f.let(threads.cast("int64"))
    start = _enter_slice(f, arena, number.cast("int64"))
    external = {
        (kind, i): f.let(f.load(arrays[kind], i, address) + _before(f, arena, type, start).cast(address))
        for kind, types in (("input", inputs), ("output", outputs))
        for i, type in enumerate(types)
    }
    starts = _starts(f, arena)
    narrow = {name: f.let(f.values[name].cast("int32")) for name in symbols}

    def pointer(location: Location) -> Any:
        if location.kind in arrays:
            return tirx.reinterpret(_VOID, external[location.kind, location.number].node)
        place = location.place
        offset = constant(location.number, "int64")
        if place:
            offset = starts[place.slot] + f.wide(place.offset)
            if location.per_thread:
                offset = offset + thread.cast("int64") * f.wide(place.size)
        return tirx.address_of(tirx.BufferLoad(blocks[location.kind], [f.let(offset).node]))

    for i, call in enumerate(calls):
        with f.when((first <= i) & (last > i)):
            if i:
                f.emit(tirx.Evaluate(tirx.call_extern("int32", "kc_barrier", worker)))
            arguments = [*map(pointer, call.arguments), *(narrow[name].node for name in call.symbols)]
            arguments += [thread.node, threads.node]
            f.call(call.name, arguments)
    return f.finish()


def _enter_slice(f: _Entry, arena: Arena, number: Expr) -> Expr:
    """Make the batch a slice's, and give the row at which it starts; slices are of one length but for the last."""
    if arena.batch is None:
        return constant(0, "int64")
    batch = f.values[arena.batch]
    slices = f.let(_at_least(_ceil_div(batch, _rows(f, arena)), 1))
    length = f.let(_ceil_div(batch, slices))
    start = f.let(number * length)
    f.values[arena.batch] = f.let(_at_most(length, batch - start))
    return start


def _before(f: _Entry, arena: Arena, type: TensorType, rows: Expr) -> Expr:
    """The bytes of the first `rows` rows of an input or output; none of one that is the same for all rows."""
    row = dims.exact_div(type.size, arena.batch) if arena.batch else None
    return constant(0, "int64") if row is None else rows * f.wide(dims.mul(type.itemsize, row))


def _rows(f: _Entry, arena: Arena) -> Expr:
    """The most rows of a slice: `Arena.rows`."""
    assert arena.batch is not None
    values, sizes = dict(f.values), list[Expr]()
    f.values[THREADS] = constant(1, "int64")
    for rows in (1, 0):
        f.values[arena.batch] = constant(rows, "int64")
        sizes.append(_total(f, arena))
    f.values.update(values)
    row, rows = f.let(sizes[0] - sizes[1]), constant(1, "int64")
    for power in range(1, MOST_ROWS + 1):
        rows = f.let(select(row * 2**power <= CACHED, constant(2**power, "int64"), rows))
    return rows


def _ceil_div(x: Expr, y: Expr) -> Expr:
    return quotient(x + y - 1, y)


def _at_least(x: Expr, y: int) -> Expr:
    return select(x < y, constant(y, "int64"), x)


def _at_most(x: Expr, y: Expr) -> Expr:
    return select(y < x, y, x)


def peak(machine: Machine) -> Any:
    """``kc_peak``: rounds of multiply-adds in registers, enough of them to hide each other's latency.

    `x` holds a factor and a summand, and takes a vector of results; `operations` becomes a round's number of
    floating-point operations.
    """
    f = _Entry("kc_peak", machine, None)
    x = f.array("x", "float32")
    rounds = f.number("rounds")
    factor, summand = (f.load(x, i, "float32").broadcast(machine.lanes) for i in range(2))
    sums = f.accumulators(_CHAINS, machine.lanes)
    for i in range(_CHAINS):
        sums[i] = summand * float(i)
    with f.loop(rounds):
        for i in range(_CHAINS):
            sums[i] = sums[i] * factor + summand
    total = sums[0]
    for i in range(1, _CHAINS):
        total = f.let(total + sums[i])
    start = tirx.const(0, "int32")
    place = start if machine.lanes == 1 else tirx.Ramp(start, tirx.const(1, "int32"), machine.lanes)
    f.emit(tirx.BufferStore(x, total.node, [place]))
    operations = f.array("operations", "int64")
    f.emit(tirx.BufferStore(operations, tirx.const(2 * _CHAINS * machine.lanes, "int64"), [start]))
    return f.finish()


# LLVM functions, which LLVM inlines. One does what TensorIR can only where addresses have 64 bits. The other keeps
# loads and stores in order: TVM tells LLVM that arrays of different names never overlap, which holds in a kernel alone.
_HELPERS = """
define void @fence() {
  call void asm sideeffect "", "~{memory}"()
  ret void
}
define ptr @pointer_at(ptr %array, i32 %i) {
  %place = getelementptr ptr, ptr %array, i32 %i
  %pointer = load ptr, ptr %place
  ret ptr %pointer
}
"""


def library_run(
    machine: Machine, calls: Sequence[Call], inputs: int, outputs: int, weights: str | None, states: Sequence[int] = ()
) -> Any:
    """``int32_t run(inputs, outputs, workspace)``: every call, one after another; it returns 0.

    With `weights`, LLVM text that defines ``weights_address()``, the weights are in the object; without, they are a
    parameter before the workspace. With `states`, a parameter before those points to memory in which the inputs and
    outputs beyond the first ones lie at these offsets.
    """
    f = _Entry("run", machine, None)
    arrays = {kind: f.array(kind, "uint8") for kind in ("input", "output")}
    blocks = {"state": f.array("state", "uint8")} if states else {}
    blocks |= {} if weights else {"weights": f.array("weights", "uint8")}
    blocks["arena"] = f.array("workspace", "uint8")
    if weights:
        blocks["weights"] = f.block("weights", tirx.call_extern(_VOID, "weights_address"))
    external: dict[tuple[str, int], Any] = {}
    for kind, count in (("input", inputs), ("output", outputs)):
        for i in range(count):
            held = tirx.call_extern(_VOID, "pointer_at", arrays[kind].data, tirx.const(i, "int32"))
            external[kind, i] = f.block(f"{kind}{i}", held)
    beyond = {"input": inputs, "output": outputs}

    def pointer(location: Location) -> Any:
        if (location.kind, location.number) in external:
            block, offset = external[location.kind, location.number], location.offset
        elif location.kind in arrays:
            block, offset = blocks["state"], states[location.number - beyond[location.kind]]
            offset += location.offset
        else:
            block = blocks[location.kind]
            offset = location.number if location.place is None else int(location.place.offset) + location.offset
        return tirx.address_of(tirx.BufferLoad(block, [tirx.const(offset, "int32")]))

    for call in calls:
        f.call(call.name, [pointer(argument) for argument in call.arguments])
        f.emit(tirx.Evaluate(tirx.call_extern("void", "fence")))
    f.emit(tirx.Return(tirx.const(0, "int32")))
    text = tvm.ir.StringImm(_HELPERS + (weights or ""))
    body = tirx.AttrStmt(tirx.const(0, "int32"), "pragma_import_llvm", text, f.body())
    return tirx.PrimFunc(f.parameters, body, ret_type=prim_type("int32", 1))


def _slot_sizes(f: _Entry, arena: Arena) -> list[Expr]:
    sizes: list[Expr] = []
    for slot in arena.slots:
        size = f.wide(slot[0])
        for other in slot[1:]:
            size = f.let(Expr(tirx.Max(size.node, f.wide(other).node), "int64"))
        sizes.append(size)
    return sizes


def _total(f: _Entry, arena: Arena) -> Expr:
    """The bytes of all slots."""
    total = constant(0, "int64")
    for size in _slot_sizes(f, arena):
        total = f.let(total + size)
    return total


def _starts(f: _Entry, arena: Arena) -> list[Expr]:
    starts = [constant(0, "int64")]
    for size in _slot_sizes(f, arena):
        starts.append(f.let(starts[-1] + size))
    return starts


def _approximate(f: _Entry, dim: Dim) -> Expr:
    """An extent in float64."""
    exact = dict(f.values)
    f.values.update({name: value.cast("float64") for name, value in exact.items()})
    try:
        value = f.extent(dim)
    finally:
        f.values.update(exact)
    return value if isinstance(value, Expr) else constant(value, "float64")
