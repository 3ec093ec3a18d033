"""Angles of points in the plane."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kcompile.ir import expression
from kcompile.ir.op import Arrays, Binary, Gradients, Values

if TYPE_CHECKING:
    from kcompile.ir.expression import Expression
    from kcompile.ir.graph import Builder, Value

# atan(z) = z + z^3 * P(z^2) / Q(z^2) for |z| <= 0.66, highest power first: S. L. Moshier, Cephes library, atan.
_P = (
    -8.750608600031904122785e-1,
    -1.615753718733365076637e1,
    -7.500855792314704667340e1,
    -1.228866684490136173410e2,
    -6.485021904942025371773e1,
)
_Q = (
    1.0,
    2.485846490142306297962e1,
    1.650270098316988542046e2,
    4.328810604912902668951e2,
    4.853903996359136964868e2,
    1.945506571482613964425e2,
)
_NEAR = 0.66


@dataclass(frozen=True)
class Atan2(Binary, name="atan2"):
    """The angle of the point ``(y, x)`` seen from the origin, from -pi to pi; a zero counts as positive."""

    def kernel(self, args: Arrays) -> Arrays:
        return (np.arctan2(args[0] + 0, args[1] + 0),)

    def decompose(self, b: "Builder", xs: "Sequence[Value]") -> "tuple[Value, ...]":
        y, x = expression.lift(b, *xs)
        steep, large = y.abs().minimum(x.abs()), y.abs().maximum(x.abs())
        angle = _atan(steep / large.where(large > 0.0, 1.0))
        angle = (math.pi / 2 - angle).where(y.abs() > x.abs(), angle)
        angle = (math.pi - angle).where(x < 0.0, angle)
        return ((-angle).where(y < 0.0, angle).value,)

    def vjp(self, b: "Builder", xs: Values, ys: Values, dys: Gradients) -> Gradients:
        y, x, dy = expression.lift(b, *xs, *dys)
        share = dy / (x.square() + y.square())
        return expression.unbroadcast(share * x, xs[0].type), expression.unbroadcast(-share * y, xs[1].type)


def _atan(q: "Expression") -> "Expression":
    """The arc tangent of numbers from 0 to 1."""
    far = q > _NEAR
    z = ((q - 1.0) / (q + 1.0)).where(far, q)
    square = z.square()
    angle = z + z * square * _polynomial(square, _P) / _polynomial(square, _Q)
    return angle + q.like(math.pi / 4).where(far, 0.0)


def _polynomial(x: "Expression", coefficients: Sequence[float]) -> "Expression":
    """Horner's scheme, from the highest power on."""
    result = x.like(coefficients[0])
    for coefficient in coefficients[1:]:
        result = result * x + coefficient
    return result
