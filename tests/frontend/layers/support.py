"""Running a layer alone, without a model around it."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from kcompile.frontend.layer import Layer
from kcompile.frontend.tracing import Trace, flatten
from kcompile.ir.evaluate import evaluate
from kcompile.ir.graph import Builder
from kcompile.ir.types import type_of


def run(layer: Layer, *arrays: np.ndarray, masks: Sequence[np.ndarray | None] = (), **arguments: Any) -> Any:
    """The result of a call of `layer`, a list where it has several; several tensors are given as a list."""
    results, _ = run_with_mask(layer, *arrays, masks=masks, **arguments)
    return results


def run_with_mask(
    layer: Layer, *arrays: np.ndarray, masks: Sequence[np.ndarray | None] = (), as_list: bool = True, **arguments: Any
) -> tuple[Any, Any]:
    """The result of a call and its mask."""
    b = Builder()
    t = Trace(b, lambda weight, path: b.constant(weight.value, path))
    feed: dict[str, np.ndarray] = {}

    def entered(name: str, array: np.ndarray) -> Any:
        feed[name] = array
        return b.input(name, type_of(array))

    values = [entered(f"x{i}", array) for i, array in enumerate(arrays)]
    carried = [None if m is None else entered(f"m{i}", m) for i, m in enumerate(masks)] or [None] * len(values)
    given = [values] if len(values) > 1 and as_list else values
    results, mask = t.run_with_mask(layer, *given, masks=carried, **arguments)
    outputs = [v for v in (*flatten(results), *flatten(mask)) if v is not None]
    arrays_out = list(evaluate(b.build(outputs), feed).values())
    count = len(list(flatten(results)))
    made = arrays_out[:count]
    return (made if count > 1 else made[0]), (arrays_out[count] if len(arrays_out) > count else None)


def weight_names(layer: Layer) -> list[tuple[str, tuple[int, ...]]]:
    """The names and shapes of the weights, in order."""
    return [(weight.name, weight.shape) for weight in layer.weights]
