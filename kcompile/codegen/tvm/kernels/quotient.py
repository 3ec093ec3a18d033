"""Activations of recurrent cells, whose divisions wait until all factors are there."""

from kcompile.codegen.tvm import math as polynomials
from kcompile.codegen.tvm.expr import Expr, constant
from kcompile.codegen.tvm.tir import Function
from kcompile.codegen.tvm.vector import apply
from kcompile.ir import ops
from kcompile.ir.op import Op


class Quotient:
    """``top / bottom``, divided only when all factors are there; no bottom means 1.

    `excess` is given in the place of a bottom of ``1 + excess``: a product with it is then rounded once, and not the
    bottom as well.
    """

    def __init__(self, f: Function, top: Expr, bottom: Expr | None = None, excess: Expr | None = None) -> None:
        self._f = f
        self._top = f.let(top)
        self._excess = excess
        self._bottom = f.let(excess + 1.0) if excess else bottom

    def __mul__(self, other: "Quotient | Expr") -> "Quotient":
        factor = other if isinstance(other, Quotient) else Quotient(self._f, other)
        return Quotient(self._f, self._top * factor._top, self._common(factor))

    def _common(self, factor: "Quotient") -> Expr | None:
        if not self._bottom or not factor._bottom:
            return self._bottom or factor._bottom
        if self._excess:
            return self._f.let(self._excess * factor._bottom + factor._bottom)
        return self._f.let(self._bottom * factor._bottom)

    @property
    def value(self) -> Expr:
        """The quotient's value."""
        return self._f.let(self._top / self._bottom) if self._bottom else self._top


def activated(f: Function, activation: Op | None, x: Expr) -> Quotient:
    """The activation of x, as a quotient where it is one; x itself where there is none."""
    x = f.let(x)
    if isinstance(activation, ops.Sigmoid):
        return Quotient(f, constant(1.0, "float32", x.lanes), excess=polynomials.sigmoid_excess(f, x))
    if isinstance(activation, ops.Tanh):
        return Quotient(f, *polynomials.tanh_quotient(f, x))
    return Quotient(f, apply(f, activation, [x]) if activation else x)
