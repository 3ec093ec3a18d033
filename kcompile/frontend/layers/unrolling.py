"""How a recurrence runs over a sequence, and recurrences whose steps are written one after another."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from kcompile.errors import ModelError
from kcompile.frontend.layer import Layer
from kcompile.frontend.layers.writing import expand_dims, full, like, reshape, squeeze
from kcompile.frontend.tracing import Trace
from kcompile.ir import ops
from kcompile.ir.dims import Shape
from kcompile.ir.graph import Value

# The output of a step and the states after it, from the step's input and the states before it.
Step: TypeAlias = Callable[[Value, tuple[Value, ...]], tuple[Value, tuple[Value, ...]]]


@dataclass(frozen=True)
class Run:
    """How a recurrence runs over a sequence.

    `states` are the first states in the order of the cells, None for zeros; `mask` says which steps count.
    """

    states: tuple[Value, ...] | None = None
    mask: Value | None = None
    reverse: bool = False
    zero_masked_output: bool = False

    def operands(self) -> list[Value]:
        """The optional operands of a recurrent op."""
        return [*(self.states or ()), *([self.mask] if self.mask is not None else [])]

    def attributes(self) -> dict[str, Any]:
        """The attributes of a recurrent op."""
        return {
            "reverse": self.reverse,
            "has_initial_state": self.states is not None,
            "has_mask": self.mask is not None,
            "zero_masked_output": self.zero_masked_output and self.mask is not None,
        }


def unrolled(
    layer: Layer, t: Trace, x: Value, run: Run, state_shapes: Sequence[Shape], step: Step
) -> tuple[Value, tuple[Value, ...]]:
    """The outputs and last states of a recurrence over ``x: T[N, L, ...]``, with its steps one after another.

    Raises:
        ModelError: the number of steps is open.
    """
    length = x.type.shape[1]
    if not isinstance(length, int):
        law = f"layer `{layer.name}` ({type(layer).__name__}) needs a known number of steps"
        raise ModelError(f"{law}. Received: {x.type}.")
    states = run.states or tuple(full(t, shape, 0.0, x.type.dtype) for shape in state_shapes)
    outputs: dict[int, Value] = {}
    output: Value | None = None
    for i in range(length - 1, -1, -1) if run.reverse else range(length):
        new_output, new_states = step(squeeze(t, t(ops.Slice(1, i, i + 1), x), 1), states)
        if run.mask is not None:
            seen = t(ops.Slice(1, i, i + 1), run.mask)
            kept = None if run.zero_masked_output else output
            new_output = _where(t, seen, new_output, kept)
            new_states = tuple(_where(t, seen, n, old) for n, old in zip(new_states, states, strict=True))
        outputs[i], output, states = new_output, new_output, new_states
    return t(ops.Concat(1), *(expand_dims(t, outputs[i], 1) for i in range(length))), states


def _where(t: Trace, seen: Value, new: Value, old: Value | None) -> Value:
    """`new` for the samples that `seen: bool[N, 1]` names, else `old`; None stands for zeros."""
    seen = reshape(t, seen, (seen.type.shape[0], *(1,) * (new.type.rank - 1)))
    return t(ops.Where(), seen, new, like(t, new, 0.0) if old is None else old)
