"""Gradients against central differences along random directions, in float64.

For ``L(x) = sum(c * f(x))`` with random ``c`` and a direction ``v``, ``gradient(L) . v`` must be
``(8 (L(x + h v) - L(x - h v)) - (L(x + 2 h v) - L(x - 2 h v))) / (12 h)``, whose error falls with the fourth power of
``h``. One direction over all operands at once sees an error in any of them, except for one in a set of directions of
measure zero.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kcompile.ir.evaluate import evaluate
from kcompile.ir.graph import Builder, Value
from kcompile.ir.op import Op
from kcompile.ir.passes.grad import backward
from kcompile.ir.types import type_of
from kcompile.ir.verify import verify

STEP = 1e-5
TOLERANCE = 1e-6


def check_gradient(
    op: Op, *arrays: NDArray, seed: int = 0, results: Sequence[int] | None = None, step: float = STEP
) -> None:
    """Check `op.vjp` at `arrays`; `results` are those that the loss depends on, by number; by default all floats."""
    rng = np.random.default_rng(seed)
    b = Builder()
    xs = [b.input(f"x{i}", type_of(array)) for i, array in enumerate(arrays)]
    ys = b.multi(op, *xs)
    chosen = [y for i, y in enumerate(ys) if y.type.is_float and (results is None or i in results)]
    loss = weighted_sum(b, chosen, rng)
    floats = [x for x in xs if x.type.is_float]
    gradients = backward(b, loss, floats)
    graph = b.build({"loss": loss, **{f"d{x.name}": dx for x, dx in zip(floats, gradients, strict=True)}})
    verify(graph)
    inputs = {f"x{i}": array for i, array in enumerate(arrays)}
    direction = {x.name: rng.standard_normal(x.type.static_shape()) for x in floats}
    found = evaluate(graph, inputs)
    along = sum(float(np.sum(found[f"d{name}"] * v)) for name, v in direction.items())

    def loss_at(distance: float) -> float:
        moved = {name: inputs[name] + distance * v for name, v in direction.items()}
        return float(evaluate(graph, {**inputs, **moved})["loss"])

    near, far = (loss_at(distance) - loss_at(-distance) for distance in (step / 2, step))
    expected = (8 * near - far) / (6 * step)
    scale = max(1.0, abs(expected), float(np.sqrt(sum(np.sum(found[f"d{n}"] ** 2) for n in direction))))
    assert abs(along - expected) <= TOLERANCE * scale, f"{op}: {along} against {expected} by differences"


def weighted_sum(b: Builder, values: Sequence[Value], rng: np.random.Generator) -> Value:
    """A number that depends on every element of `values`, each with a random weight."""
    from kcompile.ir.ops import Add, Mul, ReduceSum

    total = b.constant(np.asarray(0.0))
    for value in values:
        weights = b.constant(rng.standard_normal(value.type.static_shape()))
        axes = tuple(range(value.type.rank))
        product = b(Mul(), value, weights)
        total = b(Add(), total, b(ReduceSum(axes), product) if axes else product)
    return total


def distinct(rng: np.random.Generator, *shape: int) -> NDArray:
    """Numbers in random order, no two of them closer than 0.1."""
    size = int(np.prod(shape))
    return (rng.permutation(size) * 0.1 + rng.uniform(0.0, 0.001, size) - 0.05 * size).reshape(shape)
