"""Typed expressions: what a kernel computes with.

An `Expr` is `lanes` elements of one dtype, made of TensorIR. Python's operators work on it, a Python number takes the
other operand's dtype, and a scalar is broadcast to the other operand's lanes::

    y = select(x < 0, x * 0.2, x)

Indices are `Index`: a Python `int` while they are known, so that static shapes cost nothing, else a scalar int32
`Expr`. An expression is a formula, not a variable: what is used twice is computed twice unless `Function.let` names it.
"""

from typing import Any, TypeAlias

from kcompile.codegen.tvm.compiler import tirx, tvm

Number: TypeAlias = int | float | bool


class Expr:
    """A formula for `lanes` elements of `dtype`; `named` says that it is a mere name, which costs nothing to repeat."""

    __slots__ = ("dtype", "lanes", "named", "node")

    def __init__(self, node: Any, dtype: str, lanes: int = 1, named: bool = False) -> None:
        self.node = node
        self.dtype = dtype
        self.lanes = lanes
        self.named = named

    @property
    def is_float(self) -> bool:
        """Whether the elements are floating-point numbers."""
        return self.dtype.startswith("float")

    def __add__(self, other: "Expr | Number") -> "Expr":
        return self if _is_index(self, other, 0) else _binary(tirx.Add, self, other)

    __radd__ = __add__

    def __sub__(self, other: "Expr | Number") -> "Expr":
        return self if _is_index(self, other, 0) else _binary(tirx.Sub, self, other)

    def __rsub__(self, other: Number) -> "Expr":
        return constant(other, self.dtype, self.lanes) - self

    def __mul__(self, other: "Expr | Number") -> "Expr":
        return self if _is_index(self, other, 1) else _binary(tirx.Mul, self, other)

    __rmul__ = __mul__

    def __truediv__(self, other: "Expr | Number") -> "Expr":
        return _binary(tirx.Div, self, other)

    def __rtruediv__(self, other: Number) -> "Expr":
        return constant(other, self.dtype, self.lanes) / self

    def __floordiv__(self, other: "Expr | Number") -> "Expr":
        if self.is_float:
            return unary("floor", self / other)
        return self if _is_index(self, other, 1) else _binary(tirx.FloorDiv, self, other)

    def __mod__(self, other: "Expr | Number") -> "Expr":
        return _binary(tirx.FloorMod, self, other)

    def __rfloordiv__(self, other: int) -> "Expr":
        return constant(other, self.dtype, self.lanes) // self

    def __rmod__(self, other: int) -> "Expr":
        return constant(other, self.dtype, self.lanes) % self

    def __neg__(self) -> "Expr":
        return constant(0 if not self.is_float else -0.0, self.dtype, self.lanes) - self

    def __lt__(self, other: "Expr | Number") -> "Expr":
        return _compare(tirx.LT, self, other)

    def __le__(self, other: "Expr | Number") -> "Expr":
        return _compare(tirx.LE, self, other)

    def __gt__(self, other: "Expr | Number") -> "Expr":
        return _compare(tirx.GT, self, other)

    def __ge__(self, other: "Expr | Number") -> "Expr":
        return _compare(tirx.GE, self, other)

    def equals(self, other: "Expr | Number") -> "Expr":
        """Elementwise ``self == other``."""
        return _compare(tirx.EQ, self, other)

    def differs(self, other: "Expr | Number") -> "Expr":
        """Elementwise ``self != other``."""
        return _compare(tirx.NE, self, other)

    def __and__(self, other: "Expr | Number") -> "Expr":
        return _binary(tirx.And if self.dtype == "bool" else tirx.bitwise_and, self, other)

    def __or__(self, other: "Expr | Number") -> "Expr":
        return _binary(tirx.Or if self.dtype == "bool" else tirx.bitwise_or, self, other)

    def __xor__(self, other: "Expr | Number") -> "Expr":
        return _binary(tirx.NE if self.dtype == "bool" else tirx.bitwise_xor, self, other)

    def __invert__(self) -> "Expr":
        make = tirx.Not if self.dtype == "bool" else tirx.bitwise_not
        return Expr(make(self.node), self.dtype, self.lanes)

    def __lshift__(self, other: "Expr | int") -> "Expr":
        return _binary(tirx.shift_left, self, other)

    def __rshift__(self, other: "Expr | int") -> "Expr":
        return _binary(tirx.shift_right, self, other)

    def broadcast(self, lanes: int) -> "Expr":
        """The scalar in every lane; a vector of `lanes` stays itself."""
        if lanes == self.lanes:
            return self
        if self.lanes != 1:
            raise TypeError(f"{self.lanes} lanes cannot become {lanes}")
        return Expr(tirx.Broadcast(self.node, lanes), self.dtype, lanes)

    def cast(self, dtype: str) -> "Expr":
        """The elements converted to `dtype`; floats to integers by truncation, to bool by ``!= 0``."""
        if dtype == self.dtype:
            return self
        if dtype == "bool":
            return self.differs(0)
        if self.dtype == "bool":
            return select(self, constant(1, dtype, self.lanes), constant(0, dtype, self.lanes))
        return Expr(tirx.Cast(prim_type(dtype, self.lanes), self.node), dtype, self.lanes)

    def bits(self, dtype: str, lanes: int | None = None) -> "Expr":
        """The same bits read as another dtype, and as another number of lanes if that is given."""
        count = lanes or self.lanes
        return Expr(tirx.reinterpret(prim_type(dtype, count), self.node), dtype, count)

    def lane(self, index: int) -> "Expr":
        """One element of the vector."""
        return self if self.lanes == 1 else self.slice(index, 1)

    def slice(self, start: int, lanes: int) -> "Expr":
        """`lanes` neighbouring elements of the vector."""
        indices = [tirx.const(start + i, "int32") for i in range(lanes)]
        return Expr(tirx.Shuffle([self.node], indices), self.dtype, lanes)


Index: TypeAlias = int | Expr


def prim_type(dtype: str, lanes: int) -> Any:
    """TVM's type of `lanes` elements."""
    return tvm.ir.PrimType(dtype if lanes == 1 else f"{dtype}x{lanes}")


def constant(value: Number, dtype: str, lanes: int = 1) -> Expr:
    """`value` in every lane."""
    typed = bool(value) if dtype == "bool" else float(value) if dtype.startswith("float") else int(value)
    return Expr(tirx.const(typed, dtype), dtype).broadcast(lanes)


def index(value: Index) -> Expr:
    """An index as an expression."""
    return value if isinstance(value, Expr) else constant(value, "int32")


def select(condition: Expr, yes: Expr | Number, no: Expr | Number) -> Expr:
    """Elementwise ``yes if condition else no``; both are computed."""
    like = yes if isinstance(yes, Expr) else no
    if not isinstance(like, Expr):
        raise TypeError("one of the choices must be an expression, so that the dtype is known")
    lanes = max(condition.lanes, *(c.lanes for c in (yes, no) if isinstance(c, Expr)))
    first, second = (_typed(choice, like.dtype).broadcast(lanes) for choice in (yes, no))
    return Expr(tirx.Select(condition.broadcast(lanes).node, first.node, second.node), like.dtype, lanes)


def maximum(x: Expr, y: Expr | Number) -> Expr:
    """The larger; NaN where either is NaN, as in NumPy."""
    return _first_or_nan(x > y, x, y) if isinstance(y, Expr) else select(x < y, y, x)


def minimum(x: Expr, y: Expr | Number) -> Expr:
    """The smaller; NaN where either is NaN, as in NumPy."""
    return _first_or_nan(x < y, x, y) if isinstance(y, Expr) else select(x > y, y, x)


def _first_or_nan(first: Expr, x: Expr, y: Expr) -> Expr:
    """x where `first` holds or it is NaN, else y."""
    if not x.is_float:
        return select(first, x, y)
    if x.lanes == 1:
        return select(first | is_nan(x), x, y)
    # The inner choice is one instruction of vectors, which gives y if either is NaN.
    return select(is_nan(x), x, select(first, x, y))


def quotient(x: Expr, y: Expr) -> Expr:
    """``x // y`` of integers that are not negative, which need no rounding down."""
    return Expr(tirx.truncdiv(x.node, y.node), x.dtype)


def index_min(x: Index, y: Index) -> Index:
    """The smaller index."""
    if isinstance(x, int) and isinstance(y, int):
        return min(x, y)
    return Expr(tirx.Min(index(x).node, index(y).node), "int32")


def index_max(x: Index, y: Index) -> Index:
    """The larger index."""
    if isinstance(x, int) and isinstance(y, int):
        return max(x, y)
    return Expr(tirx.Max(index(x).node, index(y).node), "int32")


def unary(make: str, x: Expr) -> Expr:
    """One of LLVM's vector intrinsics: sqrt, floor, ceil, trunc, nearbyint (half to even), abs."""
    return Expr(getattr(tirx, make)(x.node), x.dtype, x.lanes)


def masked_intrinsic(name: str, x: Expr) -> Expr:
    """LLVM's AVX-512 intrinsic `name` of a float32 vector, which takes a source and a mask: all lanes are computed."""
    every = tirx.const((1 << max(x.lanes, 8)) - 1, f"uint{max(x.lanes, 8)}")
    node = tirx.call_llvm_pure_intrin(prim_type(x.dtype, x.lanes), name, x.node, x.node, every)
    return Expr(node, x.dtype, x.lanes)


def is_nan(x: Expr) -> Expr:
    """Where `x` is not a number. TVM folds ``x != x`` to false, hence LLVM's own test (class bits 0 and 1)."""
    kind = tirx.const(3, "int32")
    node = tirx.call_llvm_pure_intrin(prim_type("bool", x.lanes), "llvm.is.fpclass", x.node, kind)
    return Expr(node, "bool", x.lanes)


def _is_index(x: Expr, other: "Expr | Number", value: int) -> bool:
    """Whether `other` is the neutral element `value` of integer arithmetic."""
    return not isinstance(other, Expr) and not x.is_float and other == value


def _typed(value: "Expr | Number", dtype: str) -> Expr:
    if not isinstance(value, Expr):
        return constant(value, dtype)
    if value.dtype != dtype:
        raise TypeError(f"operands must have one dtype. Received: {dtype} and {value.dtype}")
    return value


def _operands(x: Expr, other: "Expr | Number") -> tuple[Expr, Expr]:
    y = _typed(other, x.dtype)
    lanes = max(x.lanes, y.lanes)
    return x.broadcast(lanes), y.broadcast(lanes)


def _binary(make: Any, left: Expr, right: "Expr | Number") -> Expr:
    x, y = _operands(left, right)
    return Expr(make(x.node, y.node), x.dtype, x.lanes)


def _compare(make: Any, left: Expr, right: "Expr | Number") -> Expr:
    x, y = _operands(left, right)
    return Expr(make(x.node, y.node), "bool", x.lanes)
