"""The cross-entropy of classes that labels name, and its gradient."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kcompile.ir import expression
from kcompile.ir.op import Arrays, Gradients, Op, Types, Values
from kcompile.ir.types import Array

if TYPE_CHECKING:
    from kcompile.ir.graph import Builder


def _require(op: Op, types: Types) -> None:
    p, labels = types[:2]
    fits = p.is_float and p.rank > 0 and labels.dtype == "int32" and labels.shape == p.shape[:-1]
    op.require(fits, "p must be floats [..., C] and the labels int32 [...]", types)
    op.require(isinstance(p.shape[-1], int) and p.shape[-1] > 0, "the number of classes must be known", types)


@dataclass(frozen=True)
class CrossEntropy(Op, name="cross_entropy", operands=("p", "labels")):
    """``-log(p[label])``, p clipped to ``epsilon ... 1 - epsilon``, and 0 where no class has the label's number.

    ``p: f[..., C], labels: i32[...] -> f[...]``
    """

    epsilon: float

    def infer(self, types: Types) -> Types:
        _require(self, types)
        return (types[0].with_shape(types[1].shape),)

    def kernel(self, args: Arrays) -> Arrays:
        losses = np.empty(args[1].shape, args[0].dtype)
        self.write(args, losses)
        return (losses,)

    def write(self, args: Arrays, out: Array) -> None:
        """Write the result to `out`."""
        p, labels = args
        classes = p.shape[-1]
        places = np.arange(0, p.size, classes) + labels.reshape(-1)
        chosen = p.reshape(-1).take(places, mode="clip").reshape(out.shape)
        low, high = p.dtype.type(self.epsilon), p.dtype.type(1.0 - self.epsilon)
        np.log(np.minimum(np.maximum(chosen, low), high), out=out)
        np.negative(out, out=out)
        # A number below zero is a large one without its sign.
        numbers = labels.view(np.uint32)
        if numbers.size and numbers.max() >= classes:
            out[numbers >= classes] = 0

    def vjp(self, b: "Builder", xs: Values, ys: Values, dys: Gradients) -> Gradients:
        p, labels, dy = expression.lift(b, *xs, *dys)
        return p.apply(CrossEntropyGradient(self.epsilon), labels, dy).value, None


@dataclass(frozen=True)
class CrossEntropyGradient(Op, name="cross_entropy_gradient", operands=("p", "labels", "dy")):
    """The gradient of `CrossEntropy` by ``p``, or, `through_softmax`, by that of which ``p`` is the softmax.

    The latter is ``dy * (p - 1)`` at the label and ``dy * p`` elsewhere; Bridle 1990.
    """

    epsilon: float
    through_softmax: bool = False

    def infer(self, types: Types) -> Types:
        _require(self, types)
        self.require(types[2] == types[0].with_shape(types[1].shape), "dy must be what the loss gives", types)
        return types[:1]

    def kernel(self, args: Arrays) -> Arrays:
        dp = np.empty(args[0].shape, args[0].dtype)
        self.write(args, dp)
        return (dp,)

    def write(self, args: Arrays, out: Array) -> None:
        """Write the result to `out`."""
        p, labels, dy = args
        at_label = labels[..., None] == np.arange(p.shape[-1], dtype=np.int32)
        chosen = np.add.reduce(np.multiply(p, at_label, out=out), axis=-1)
        # Where the clip holds the probability, or no class has the number, nothing passes.
        inside = (chosen > p.dtype.type(self.epsilon)) & (chosen < p.dtype.type(1.0 - self.epsilon))
        passing = np.where(inside, dy, p.dtype.type(0))[..., None]
        if self.through_softmax:
            np.subtract(p, at_label, out=out)
            np.multiply(out, passing, out=out)
        else:
            out[...] = 0
            np.divide(-passing, p, out=out, where=at_label & inside[..., None])
