"""Recurrent layers: a cell run over the steps of a sequence.

A step that is masked leaves the states as they are and repeats the output before it, or puts out zeros where
`zero_output_for_mask`. `stateful` layers start at zero in every call: a compiled model keeps nothing between calls.
`implementation`, `unroll` and `use_cudnn` choose how Keras computes, never what.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from kcompile.errors import ModelError
from kcompile.frontend.layer import Layer, register_layer
from kcompile.frontend.layer_configs import deserialize_layer
from kcompile.frontend.layers import arguments
from kcompile.frontend.layers.recurrent_cells import (
    Cell,
    GRUCell,
    LSTMCell,
    Recurrence,
    Run,
    SimpleRNNCell,
    StackedRNNCells,
    require_cell,
)
from kcompile.frontend.layers.writing import cast, squeeze
from kcompile.frontend.tracing import Trace, ensure_built, flatten
from kcompile.ir import dims, ops
from kcompile.ir.graph import Value


class Recurrent(Layer):
    """Base: ``x: T[N, L, K] -> T[N, units]``, or ``T[N, L, units]`` where `return_sequences`.

    With `return_state` the last states follow. With `go_backwards` the steps run from the last to the first, and stand
    in that order in the result.
    """

    supports_masking = True
    hidden_fields = frozenset({"use_cudnn", "implementation", "time_major", "masks_with_initial_state"})

    # The number of axes of an input.
    input_rank: ClassVar[int] = 3

    cell: Recurrence
    return_sequences: bool
    return_state: bool
    go_backwards: bool
    zero_output_for_mask: bool
    # What only older files have: time before batch, and masks that also count beside an initial state.
    time_major: bool
    masks_with_initial_state: bool

    @property
    def sublayers(self) -> dict[str, Layer]:
        return {"cell": self.cell.stands_for}

    def build(self, *input_shapes: Any) -> None:
        shape = input_shapes[0]
        arguments.rank_of(self, shape, self.input_rank)
        ensure_built(self.cell, [(shape[0], *shape[2:])])

    def call(self, t: Trace, *args: Any, **kwargs: Any) -> Value | tuple[Any, ...]:
        x, *states = flatten(args)
        states += [s for s in flatten(kwargs.get("initial_state")) if s is not None]
        if states and len(states) != self.cell.state_count:
            law = f"layer `{self.name}` takes {self.cell.state_count} initial states"
            raise ModelError(f"{law}. Received: {len(states)}.")
        mask = self._mask(t, bool(states))
        if self.time_major:
            x = t(ops.Transpose((1, 0, 2)), x)
            mask = t(ops.Transpose((1, 0)), mask) if mask is not None else None
        run = Run(tuple(states) or None, mask, self.go_backwards, self.zero_output_for_mask)
        outputs, last = self.cell.sequence(t.inside(self.cell), x, run)
        y = self._sequence(t, outputs) if self.return_sequences else self._last(t, outputs, last, run)
        return (y, *self._grouped(last)) if self.return_state else y

    def _mask(self, t: Trace, has_states: bool) -> Value | None:
        mask = t.masks[0]
        # Keras 3 hands a mask that a tensor carries on only to calls with one tensor.
        if mask is None or (has_states and not t.mask_given and not self.masks_with_initial_state):
            return None
        return cast(t, mask if mask.type.rank == 2 else squeeze(t, mask, 2), "bool")

    def _sequence(self, t: Trace, outputs: Value) -> Value:
        y = t(ops.Reverse((1,)), outputs) if self.go_backwards else outputs
        return t(ops.Transpose((1, 0, 2)), y) if self.time_major else y

    def _last(self, t: Trace, outputs: Value, states: Sequence[Value], run: Run) -> Value:
        if self.cell.output_is_state and (run.mask is None or not (run.states or run.zero_masked_output)):
            return states[-self._output_state()]
        # The output of the last step may be another than the state: zeros where it is masked.
        length = outputs.type.shape[1]
        step = ops.Slice(1, 0, 1) if self.go_backwards else ops.Slice(1, dims.sub(length, 1), length)
        return squeeze(t, t(step, outputs), 1)

    def _output_state(self) -> int:
        last = self.cell.cells[-1] if isinstance(self.cell, StackedRNNCells) else self.cell
        return int(last.state_count)

    def _grouped(self, states: Sequence[Value]) -> list[Any]:
        if not isinstance(self.cell, StackedRNNCells):
            return list(states)
        groups: list[Any] = []
        for cell in self.cell.cells:
            own, states = list(states[: cell.state_count]), states[cell.state_count :]
            groups.append(own if len(own) > 1 else own[0])
        return groups

    def compute_mask(self, t: Trace, *args: Any, **kwargs: Any) -> Value | Sequence[Value | None] | None:
        mask = t.masks[0] if self.return_sequences else None
        return [mask] if self.return_state else mask


@register_layer("keras>RNN")
@dataclass(eq=False)
class RNN(Recurrent):
    """Any of Keras's cells, or several stacked ones, over a sequence."""

    cell: Any
    return_sequences: bool = False
    return_state: bool = False
    go_backwards: bool = False
    stateful: bool = False
    unroll: bool = False
    zero_output_for_mask: bool = False
    time_major: bool = False
    masks_with_initial_state: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.cell, list | tuple):
            self.cell = StackedRNNCells(self.cell)
        self.cell = require_cell(deserialize_layer(self.cell), self)


class _OwnCell(Recurrent):
    """Base of the layers that stand for one cell, whose arguments are theirs."""

    cell_class: ClassVar[type[Cell]]
    dtype: str
    trainable: bool

    def __post_init__(self) -> None:
        super().__post_init__()
        shared = [f.name for f in fields(self.cell_class) if f.name not in ("name", "input_shape")]
        given: dict[str, Any] = {name: getattr(self, name) for name in shared}
        self.cell = self.cell_class(name=self.cell_class.keras_name, **given)
        for argument in ("activation", "recurrent_activation"):
            if argument in given:
                setattr(self, argument, getattr(self.cell, argument))


@register_layer("keras>SimpleRNN")
@dataclass(eq=False)
class SimpleRNN(_OwnCell):
    """``h' = activation(x @ kernel + bias + h @ recurrent_kernel)`` over a sequence."""

    optional_fields = frozenset({"seed"})
    cell_class = SimpleRNNCell

    units: int
    activation: Any = "tanh"
    use_bias: bool = True
    kernel_initializer: Any = "glorot_uniform"
    recurrent_initializer: Any = "orthogonal"
    bias_initializer: Any = "zeros"
    kernel_regularizer: Any = None
    recurrent_regularizer: Any = None
    bias_regularizer: Any = None
    activity_regularizer: Any = None
    kernel_constraint: Any = None
    recurrent_constraint: Any = None
    bias_constraint: Any = None
    dropout: float = 0.0
    recurrent_dropout: float = 0.0
    return_sequences: bool = False
    return_state: bool = False
    go_backwards: bool = False
    stateful: bool = False
    unroll: bool = False
    seed: Any = None
    zero_output_for_mask: bool = False
    implementation: int = 2
    time_major: bool = False
    masks_with_initial_state: bool = False


@register_layer("keras>LSTM")
@dataclass(eq=False)
class LSTM(_OwnCell):
    """Long short-term memory over a sequence; the states are h and c. Hochreiter and Schmidhuber 1997."""

    cell_class = LSTMCell

    units: int
    activation: Any = "tanh"
    recurrent_activation: Any = "sigmoid"
    use_bias: bool = True
    kernel_initializer: Any = "glorot_uniform"
    recurrent_initializer: Any = "orthogonal"
    bias_initializer: Any = "zeros"
    unit_forget_bias: bool = True
    kernel_regularizer: Any = None
    recurrent_regularizer: Any = None
    bias_regularizer: Any = None
    activity_regularizer: Any = None
    kernel_constraint: Any = None
    recurrent_constraint: Any = None
    bias_constraint: Any = None
    dropout: float = 0.0
    recurrent_dropout: float = 0.0
    seed: Any = None
    return_sequences: bool = False
    return_state: bool = False
    go_backwards: bool = False
    stateful: bool = False
    unroll: bool = False
    use_cudnn: Any = "auto"
    zero_output_for_mask: bool = False
    implementation: int = 2
    time_major: bool = False
    masks_with_initial_state: bool = False


@register_layer("keras>GRU")
@dataclass(eq=False)
class GRU(_OwnCell):
    """Gated recurrent unit over a sequence; Cho et al. 2014, arXiv:1406.1078."""

    cell_class = GRUCell

    units: int
    activation: Any = "tanh"
    recurrent_activation: Any = "sigmoid"
    use_bias: bool = True
    kernel_initializer: Any = "glorot_uniform"
    recurrent_initializer: Any = "orthogonal"
    bias_initializer: Any = "zeros"
    kernel_regularizer: Any = None
    recurrent_regularizer: Any = None
    bias_regularizer: Any = None
    activity_regularizer: Any = None
    kernel_constraint: Any = None
    recurrent_constraint: Any = None
    bias_constraint: Any = None
    dropout: float = 0.0
    recurrent_dropout: float = 0.0
    seed: Any = None
    return_sequences: bool = False
    return_state: bool = False
    go_backwards: bool = False
    stateful: bool = False
    unroll: bool = False
    reset_after: bool = True
    use_cudnn: Any = "auto"
    zero_output_for_mask: bool = False
    implementation: int = 2
    time_major: bool = False
    masks_with_initial_state: bool = False
