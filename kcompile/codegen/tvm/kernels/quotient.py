"""Activations of recurrent cells, whose divisions wait until all factors are there."""

from kcompile.codegen.tvm import math as polynomials
from kcompile.codegen.tvm.expr import Expr, constant
from kcompile.codegen.tvm.tir import Function
from kcompile.codegen.tvm.vector import apply
from kcompile.ir import ops
from kcompile.ir.op import Op


class Quotient:
    """``top / bottom``, divided only when all factors are there; no bottom means 1."""

    def __init__(self, f: Function, top: Expr, bottom: Expr | None = None) -> None:
        self._f = f
        self._top = f.let(top)
        self._bottom = bottom

    def __mul__(self, other: "Quotient | Expr") -> "Quotient":
        factor = other if isinstance(other, Quotient) else Quotient(self._f, other)
        bottoms = [bottom for bottom in (self._bottom, factor._bottom) if bottom]
        bottom = self._f.let(bottoms[0] * bottoms[1]) if len(bottoms) == 2 else bottoms[0] if bottoms else None
        return Quotient(self._f, self._top * factor._top, bottom)

    @property
    def value(self) -> Expr:
        """The quotient's value."""
        return self._f.let(self._top / self._bottom) if self._bottom else self._top


def activated(f: Function, activation: Op | None, x: Expr) -> Quotient:
    """The activation of x, as a quotient where it is one; x itself where there is none."""
    x = f.let(x)
    if isinstance(activation, ops.Sigmoid):
        return Quotient(f, constant(1.0, "float32", x.lanes), polynomials.sigmoid_divisor(f, x))
    if isinstance(activation, ops.Tanh):
        return Quotient(f, *polynomials.tanh_quotient(f, x))
    return Quotient(f, apply(f, activation, [x]) if activation else x)
