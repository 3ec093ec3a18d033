"""How a recurrence runs over a sequence, and recurrences that are written step by step: known steps one after another,
an open number of them as the body of a loop.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from kcompile.errors import ModelError
from kcompile.frontend.layer import Layer
from kcompile.frontend.layers.writing import expand_dims, full, like, reshape, squeeze
from kcompile.frontend.tracing import Trace
from kcompile.ir import ops
from kcompile.ir.dims import Shape
from kcompile.ir.graph import Builder, Value

# The output of a step and the states after it, from the step's input and the states before it.
Step: TypeAlias = Callable[[Trace, Value, tuple[Value, ...]], tuple[Value, tuple[Value, ...]]]


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
    """The outputs and last states of a recurrence over ``x: T[N, L, ...]``.

    Raises:
        ModelError: the number of steps is open while training.
    """
    length = x.type.shape[1]
    states = run.states or tuple(full(t, shape, 0.0, x.type.dtype) for shape in state_shapes)
    if not isinstance(length, int):
        if t.training:
            law = f"layer `{layer.name}` ({type(layer).__name__}) needs a known number of steps to be trained"
            raise ModelError(f"{law}. Received: {x.type}.")
        return _looped(t, x, run, states, step)
    outputs: dict[int, Value] = {}
    output: Value | None = None
    for i in range(length - 1, -1, -1) if run.reverse else range(length):
        seen = t(ops.Slice(1, i, i + 1), run.mask) if run.mask is not None else None
        given = squeeze(t, t(ops.Slice(1, i, i + 1), x), 1)
        output, states = _step(t, given, states, step, seen, None if run.zero_masked_output else output)
        outputs[i] = output
    return t(ops.Concat(1), *(expand_dims(t, outputs[i], 1) for i in range(length))), states


def _step(
    t: Trace, x: Value, states: tuple[Value, ...], step: Step, seen: Value | None, last: Value | None
) -> tuple[Value, tuple[Value, ...]]:
    """A step that samples pass over which ``seen: bool[N, 1]`` does not name; `last` is the output before it."""
    output, new_states = step(t, x, states)
    if seen is None:
        return output, new_states
    kept = tuple(_where(t, seen, new, old) for new, old in zip(new_states, states, strict=True))
    return _where(t, seen, output, last), kept


def _looped(t: Trace, x: Value, run: Run, states: tuple[Value, ...], step: Step) -> tuple[Value, tuple[Value, ...]]:
    """The recurrence as a loop, among whose states the last output is where masked steps repeat it."""
    b = Builder("step")
    inner, read = t.loop_body(b)
    entered = [b.input(f"state_{i}", state.type) for i, state in enumerate(states)]
    given = b.input("x", x.type.with_shape((x.type.shape[0], *x.type.shape[2:])))
    masks = [b.input("mask", run.mask.type.with_shape(run.mask.type.shape[:1]))] if run.mask is not None else []
    seen = expand_dims(inner, masks[0], 1) if masks else None
    output, _ = step(inner, given, tuple(entered))
    repeats = bool(masks) and not run.zero_masked_output
    if repeats:
        states = (*states, full(t, output.type.shape, 0.0, output.type.dtype))
        entered.append(b.input("output", output.type))
    count = len(entered) - repeats
    output, new = _step(inner, given, tuple(entered[:count]), step, seen, entered[-1] if repeats else None)
    body = b.build([*new, *[output] * repeats, output])
    body = replace(body, inputs=(*read.values(), *entered, given, *masks))
    sequences = [x, *([run.mask] if run.mask is not None else [])]
    op = ops.Scan(body, len(read), len(entered), run.reverse)
    found = t.multi(op, *read, *states, *sequences)
    return found[-1], tuple(found[:count])


def _where(t: Trace, seen: Value, new: Value, old: Value | None) -> Value:
    """`new` for the samples that `seen: bool[N, 1]` names, else `old`; None stands for zeros."""
    seen = reshape(t, seen, (seen.type.shape[0], *(1,) * (new.type.rank - 1)))
    return t(ops.Where(), seen, new, like(t, new, 0.0) if old is None else old)
