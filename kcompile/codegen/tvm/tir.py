"""Writing one TensorIR function: pointers, loops, vectors and accumulators.

A kernel is a frozen dataclass (its fields decide everything about the code, so that equal kernels are shared) whose
`build` writes a function::

    @dataclass(frozen=True)
    class Scale(Kernel, family="scale"):
        \"\"\"``y = factor * x``; x, y: f32[rows, columns].\"\"\"

        rows: Dim                                        # may be symbolic: "N", "T//2"
        columns: int
        factor: float

        def build(self, f: Function) -> None:
            x, y = f.pointer("x"), f.pointer("y")        # in the order of the call's arguments
            with f.parallel(f.extent(self.rows)) as row:  # the units that threads share
                for c, lanes in f.vectors(self.columns):  # full vectors, then ever narrower ones
                    offset = row * self.columns + c
                    y.store(offset, x.load(offset, lanes) * self.factor)

Statements are written where they are called: `Pointer.load` and `Function.let` give names that hold their value from
there on, other expressions are computed where they are used.

Extents and offsets are `Index`: Python integers while they are known, else int32 expressions over the model's symbols
(batch, open lengths), which a function receives as parameters. Offsets count elements, not bytes. Buffers are dense and
exact: nothing may be read or written beyond them, whatever the shape.
"""

import ast
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

from kcompile.codegen.tvm.arrays import Accumulators, Pointer
from kcompile.codegen.tvm.compiler import tirx, tvm
from kcompile.codegen.tvm.expr import Expr, Index, index, prim_type, quotient
from kcompile.codegen.tvm.targets import Machine
from kcompile.ir.dims import Dim

# TVM wants a length of every buffer; no access is checked against it.
_UNBOUNDED = 1 << 30


@dataclass(frozen=True)
class Kernel(ABC):
    """A template of one function; subclasses name their `family` and hold all that decides the code."""

    family: ClassVar[str] = ""

    def __init_subclass__(cls, family: str = "", **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        cls.family = family

    @property
    def overwritable(self) -> tuple[int, ...]:
        """The numbers of the pointers in whose place the result may lie.

        Of these, each element is read only by the thread that writes the result's element of the same number, and only
        before that is written.
        """
        return ()

    @abstractmethod
    def build(self, f: "Function") -> None:
        """Write the function: declare every pointer, then compute under one `Function.parallel`."""


class Function:
    """A function under construction for `machine`."""

    def __init__(
        self,
        name: str,
        machine: Machine,
        halves: frozenset[int] = frozenset(),
        in_place: tuple[int, int] | None = None,
    ) -> None:
        """A function whose pointers numbered `halves` lead to float16, but are read as float32.

        The two pointers `in_place` are one parameter, which stands where the first is declared. `dtypes` becomes the
        list of the dtypes that the pointers are read as.
        """
        self.name = name
        self.machine = machine
        self._halves = halves
        self._in_place = in_place
        self._declared: list[Pointer] = []
        self.dtypes: list[str] = []
        self.symbols: dict[str, Expr] = {}
        self._pointers: list[Any] = []
        self._blocks: list[list[Any]] = [[]]
        self._count = 0
        self._names: set[Any] = set()
        self._imports: dict[str, None] = {}
        self._thread, self._threads = (self._scalar(n) for n in ("thread", "threads"))
        self.shared = machine.threaded

    # ---- parameters

    def pointer(self, name: str, dtype: str = "float32") -> Pointer:
        """The next pointer parameter. No two pointers of a function may overlap where one is written."""
        number = len(self.dtypes)
        half = dtype == "float32" and number in self._halves
        self.dtypes.append(dtype)
        if self._in_place and number == self._in_place[1]:
            self._declared.append(self._declared[self._in_place[0]])
            return self._declared[-1]
        halves = "float16" if self.machine.widens_halves else "uint16"
        stored = halves if half else "uint8" if dtype == "bool" else dtype
        variable = tirx.Var(name, tvm.ir.PointerType(prim_type(stored, 1)))
        self._pointers.append(variable)
        buffer = tirx.decl_buffer((_UNBOUNDED,), stored, name=name)
        self._blocks[0].insert(0, tirx.DeclBuffer(buffer, data=variable))
        self._declared.append(Pointer(self, buffer, dtype, stored))
        return self._declared[-1]

    def extent(self, dim: Dim) -> Index:
        """An extent of the IR as an index; its symbols become parameters."""
        value = _evaluate(ast.parse(dim, mode="eval").body, self) if isinstance(dim, str) else dim
        return self.name_index(value)

    def symbol(self, name: str) -> Expr:
        """The int32 parameter that carries the symbol `name`."""
        if name not in self.symbols:
            self.symbols[name] = self._scalar(name)
        return self.symbols[name]

    # ---- variables

    def let(self, value: Expr) -> Expr:
        """A name for the present value of an expression."""
        if value.named:
            return value
        if value.dtype == "int32" and value.lanes == 1:
            return self.bind(value)
        if value.dtype == "bool" and value.lanes > 1:
            return value  # TVM has no names for these; as every load has a name, repeating the formula is the same
        return self.variable(value)

    def variable(self, value: Index) -> Expr:
        """`let` for formulas that TVM's analyzer must not see: it substitutes what is bound into each other.

        That takes exponential time in a polynomial, and much where an index is used often. What is stored it does not
        look into. LLVM makes registers of both.
        """
        value = index(value)
        buffer = self._allocate(1, str(prim_type(value.dtype, value.lanes).dtype))
        zero = tirx.const(0, "int32")
        self.emit(tirx.BufferStore(buffer, value.node, [zero]))
        return Expr(tirx.BufferLoad(buffer, [zero]), value.dtype, value.lanes, named=True)

    def bind(self, value: Expr) -> Expr:
        """`let` for indices and loads."""
        variable = tirx.Var(f"v{self._next()}", prim_type(value.dtype, value.lanes))
        self.emit(tirx.Bind(variable, value.node))
        return Expr(variable, value.dtype, value.lanes, named=True)

    def accumulators(self, count: int, lanes: int, dtype: str = "float32") -> Accumulators:
        """`count` variables of `lanes` elements, not initialised."""
        return Accumulators(self, self._allocate(count, str(prim_type(dtype, lanes).dtype)), dtype, lanes)

    def stack(self, size: int, dtype: str = "float32") -> Pointer:
        """A small array on the stack, not initialised; offsets may be any index."""
        return Pointer(self, self._allocate(size, dtype), dtype, dtype)

    # ---- control

    @contextmanager
    def parallel(self, units: Index) -> Generator[Index]:
        """A loop over the units that the threads share; every unit is computed whole by one thread."""
        begin, count = self.share(units)
        with self.loop(count) as i:
            yield self.name_index(begin + i)

    def share(self, units: Index) -> tuple[Index, Index]:
        """The first of the thread's `units`, and how many it has: as many as the others, or one more."""
        if not self.shared:
            return 0, units
        total = self.let(index(units))
        share = self.let(quotient(total, self._threads))
        rest = self.let(total - share * self._threads)
        begin = self.let(self._thread * share + Expr(tirx.Min(self._thread.node, rest.node), "int32"))
        more = Expr(tirx.Cast(prim_type("int32", 1), (self._thread < rest).node), "int32")
        return begin, share + more

    def share_of(self, total: Expr) -> tuple[Expr, Expr]:
        """Where the thread's part of a `total`, which is int64, begins and ends."""
        ends = (total * (self._thread.cast("int64") + i) for i in range(2))
        begin, end = (self.let(quotient(end, self._threads.cast("int64"))) for end in ends)
        return begin, end

    def parallel_tiles(self, extent: Index, size: int) -> Iterator[tuple[Index, Index]]:
        """``(start, length)`` of pieces of `size` elements and of the rest, shared by the threads.

        The body is written once for full pieces and once for the rest.
        """
        full, rest = extent // size, extent % size
        if isinstance(full, int):
            units: Index = full + (rest != 0)
        else:
            full, rest = self.let(full), self.let(index(rest))
            units = (extent + (size - 1)) // size
        with self.parallel(units) as unit:
            if full != 0:
                with self.when(index(unit) < full):
                    yield unit * size, size
            if rest != 0:
                with self.when(index(unit).equals(full)):
                    yield unit * size, rest

    def unravel(self, number: Index, extents: Sequence[Index]) -> list[Index]:
        """The index along each axis of the element with this row-major `number`."""
        indices: list[Index] = []
        for extent in reversed(extents[1:]):
            if extent == 1:
                indices.append(0)
                continue
            whole = self.let(quotient(index(number), index(extent)))
            indices.append(self.let(number - whole * extent))
            number = whole
        return [number, *reversed(indices)]

    def name_index(self, value: Index) -> Index:
        """`let` for an index that may be known."""
        return self.let(value) if isinstance(value, Expr) else value

    @contextmanager
    def loop(self, extent: Index) -> Generator[Index]:
        """A loop over 0 … extent-1; the body is written once."""
        if extent == 1:
            yield 0
            return
        variable = tirx.Var(f"i{self._next()}", prim_type("int32", 1))
        with self._block() as body:
            yield Expr(variable, "int32", named=True)
        zero, stop = tirx.const(0, "int32"), index(extent).node
        self.emit(tirx.For(variable, zero, stop, tirx.ForKind.SERIAL, _sequence(body)))

    @contextmanager
    def when(self, condition: Expr) -> Generator[None]:
        """Statements that run if the scalar `condition` holds."""
        with self._block() as body:
            yield
        self.emit(tirx.IfThenElse(condition.node, _sequence(body), None))

    def tiles(self, extent: Index, size: int) -> Iterator[tuple[Index, int]]:
        """``(start, length)`` of pieces that cover `extent`; the body is written once per distinct length.

        Pieces are `size` long; the rest is one shorter piece if the extent is known, else pieces of 4 and of 1.
        """
        if not isinstance(extent, int):
            yield from self._open_tiles(extent, size)
            return
        if extent >= size:
            with self.loop(extent // size) as i:
                yield i * size, size
        if extent % size:
            yield extent - extent % size, extent % size

    def vectors(self, extent: Index, lanes: int | None = None) -> Iterator[tuple[Index, int]]:
        """``(start, lanes)`` of vectors that cover `extent`; the body is written once per distinct width.

        Vectors have `lanes` elements (the machine's for float32 unless given); the rest is covered by halves, quarters
        and so on if the extent is known, else by fours and single elements.
        """
        widest = lanes or self.machine.lanes
        if not isinstance(extent, int):
            yield from self._open_tiles(extent, widest)
            return
        start = 0
        for width in split(extent, widest, repeat=False):
            count = (extent - start) // width
            with self.loop(count) as i:
                yield i * width + start, width
            start += count * width

    # ---- the result

    def emit(self, statement: Any) -> None:
        """Append a TensorIR statement to the block being written."""
        self._blocks[-1].append(statement)

    def import_llvm(self, text: str) -> None:
        """Have functions in LLVM's language, which `tirx.call_extern` can name, beside this one."""
        self._imports[text] = None

    def finish(self) -> Any:
        """The PrimFunc: pointers, symbols in order of their first use, thread number and threads if there are any."""
        scalars = [*self.symbols.values(), *((self._thread, self._threads) if self.shared else ())]
        parameters = [*self._pointers, *(scalar.node for scalar in scalars)]
        self.emit(tirx.Return(tirx.const(0, "int32")))
        function = tirx.PrimFunc(parameters, self.body(), ret_type=prim_type("int32", 1))
        return function.with_attr("tirx.noalias", True)

    def body(self) -> Any:
        """All statements so far."""
        body = _sequence(self._blocks[0])
        for text in self._imports:
            body = tirx.AttrStmt(tirx.const(0, "int32"), "pragma_import_llvm", tvm.ir.StringImm(text), body)
        return body

    def _open_tiles(self, extent: Expr, size: int) -> Iterator[tuple[Index, int]]:
        done: Index = 0
        for length in sorted({size, min(size, 4), 1}, reverse=True):
            count = self.name_index((extent - done) // length)
            with self.loop(count) as i:
                yield done + i * length, length
            done = self.name_index(done + count * length)

    def _allocate(self, size: int, dtype: str) -> Any:
        buffer = tirx.decl_buffer((size,), dtype, name=f"a{self._next()}", scope="local")
        self.emit(tirx.AllocBuffer(buffer))
        return buffer

    @contextmanager
    def _block(self) -> Generator[list[Any]]:
        self._blocks.append([])
        try:
            yield self._blocks[-1]
        finally:
            self._blocks.pop()

    def _scalar(self, name: str) -> Expr:
        return Expr(tirx.Var(name, prim_type("int32", 1)), "int32", named=True)

    def _next(self) -> int:
        self._count += 1
        return self._count


def split(extent: int, lanes: int, *, repeat: bool = True) -> list[int]:
    """`extent` as widths that are `lanes` or smaller powers of two, widest first: 23 = 16 + 4 + 2 + 1.

    `repeat` says whether equal widths are listed as often as they occur.
    """
    widths: list[int] = []
    width = lanes
    while extent:
        count, extent = divmod(extent, width)
        widths += [width] * (count if repeat else min(count, 1))
        width //= 2
    return widths


def _sequence(statements: list[Any]) -> Any:
    if len(statements) == 1:
        return statements[0]
    return tirx.SeqStmt(statements) if statements else tirx.Evaluate(tirx.const(0, "int32"))


def _evaluate(tree: ast.expr, f: Function) -> Index:
    """The value of an extent's text (`kcompile.ir.dims`): symbols, integers and ``+ - * //``."""
    match tree:
        case ast.Constant(value=int() as value):
            return value
        case ast.Name(id=name):
            return f.symbol(name)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_evaluate(operand, f)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _evaluate(left, f) + _evaluate(right, f)
        case ast.BinOp(left=left, op=ast.Sub(), right=right):
            return _evaluate(left, f) - _evaluate(right, f)
        case ast.BinOp(left=left, op=ast.Mult(), right=right):
            return _evaluate(left, f) * _evaluate(right, f)
        case ast.BinOp(left=left, op=ast.FloorDiv(), right=ast.Constant(value=int() as divisor)):
            return _evaluate(left, f) // divisor
        case _:
            raise ValueError(f"no extent: {ast.unparse(tree)}")
