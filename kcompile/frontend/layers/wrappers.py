"""Layers around other layers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kcompile.errors import ModelError
from kcompile.frontend.layer import Layer, register_layer
from kcompile.frontend.layer_configs import deserialize_layer, serialize_layer
from kcompile.frontend.layers import arguments
from kcompile.frontend.layers.activation import ELU, Activation, LeakyReLU, ReLU
from kcompile.frontend.layers.core import Dense, Embedding
from kcompile.frontend.layers.recurrent import Recurrent
from kcompile.frontend.layers.regularization import Dropout
from kcompile.frontend.layers.writing import like, reshape
from kcompile.frontend.tracing import Trace, ensure_built, flatten, map_structure
from kcompile.ir import dims, ops
from kcompile.ir.graph import Value


def _renamed(layer: Layer, prefix: str, **changes: Any) -> Layer:
    """A new layer of the same config, whose name starts with `prefix`."""
    spec = serialize_layer(layer)
    name = f"{prefix}{layer.name.removeprefix(prefix)}"
    hidden = {field: getattr(layer, field) for field in layer.hidden_fields if hasattr(layer, field)}
    spec["config"] = {**spec["config"], **hidden, **changes, "name": name}
    return deserialize_layer(spec)


@register_layer("keras>Bidirectional")
@dataclass(eq=False)
class Bidirectional(Layer):
    """A recurrent layer run over the steps in both directions, and the two results merged.

    `merge_mode` is "concat", "sum", "mul", "ave", or None for a pair. The states of the forward layer come before those
    of the backward layer, as initial states and in the result. Masked steps of sequences are zeros.
    """

    supports_masking = True

    layer: Any
    merge_mode: str | None = "concat"
    backward_layer: Any = None

    def __post_init__(self) -> None:
        super().__post_init__()
        arguments.choice(self, "merge_mode", ("concat", "sum", "mul", "ave", None))
        given = self._recurrent(self.layer)
        self.layer = self.forward_layer = self._recurrent(_renamed(given, "forward_"))
        backward = self.backward_layer or _renamed(given, "backward_", go_backwards=True)
        self.backward_layer = self._recurrent(backward)
        self._check_directions()
        for layer in (self.forward_layer, self.backward_layer):
            layer.zero_output_for_mask = layer.return_sequences

    def _recurrent(self, spec: Any) -> Recurrent:
        layer = deserialize_layer(spec)
        if isinstance(layer, Recurrent):
            return layer
        raise ModelError(
            f"layer `{self.name}` (Bidirectional) wraps recurrent layers. Received: {type(layer).__name__}."
        )

    def _check_directions(self) -> None:
        forward, backward = self.forward_layer, self.backward_layer
        same = [a for a in ("return_sequences", "return_state") if getattr(forward, a) != getattr(backward, a)]
        if same or forward.go_backwards == backward.go_backwards:
            law = f"the two layers of `{self.name}` must agree in return_sequences and return_state"
            raise ModelError(f"{law}, and differ in go_backwards. They do not in: {', '.join(same) or 'go_backwards'}.")

    @property
    def sublayers(self) -> dict[str, Layer]:
        return {"forward_layer": self.forward_layer, "backward_layer": self.backward_layer}

    def build(self, *input_shapes: Any) -> None:
        for layer in self.sublayers.values():
            ensure_built(layer, input_shapes[:1])

    def call(self, t: Trace, *args: Any, **kwargs: Any) -> Any:
        x, *states = flatten(args)
        states += [s for s in flatten(kwargs.get("initial_state")) if s is not None]
        half = len(states) // 2
        forward = self._run(t, self.forward_layer, x, states[:half])
        backward = self._run(t, self.backward_layer, x, states[half:])
        y, y_back = forward[0], backward[0]
        if self.forward_layer.return_sequences:
            y_back = t(ops.Reverse((0 if self.forward_layer.time_major else 1,)), y_back)
        merged = self._merged(t, y, y_back)
        last = (*forward[1:], *backward[1:])
        if self.merge_mode is None:
            return (y, y_back, *last)
        return (merged, *last) if last else merged

    def _run(self, t: Trace, layer: Recurrent, x: Value, states: list[Value]) -> tuple[Any, ...]:
        named = {"mask": t.masks[0]} if t.mask_given else {}
        carried = [None if t.mask_given else t.masks[0], *[None] * len(states)]
        given = {"initial_state": states} if states else {}
        # An explicit mask stands among the tensors of the call, behind the states.
        masks = [*carried, *[None] * len(named)]
        result = t.run(layer, x, masks=masks, **given, **named)
        return result if isinstance(result, tuple) else (result,)

    def _merged(self, t: Trace, y: Value, y_back: Value) -> Value:
        match self.merge_mode:
            case "concat":
                return t(ops.Concat(y.type.rank - 1), y, y_back)
            case "mul":
                return t(ops.Mul(), y, y_back)
            case "ave":
                return t(ops.Mul(), t(ops.Add(), y, y_back), like(t, y, 0.5))
            case _:
                return t(ops.Add(), y, y_back)

    def compute_mask(self, t: Trace, *args: Any, **kwargs: Any) -> Value | Sequence[Value | None] | None:
        mask = t.masks[0] if self.forward_layer.return_sequences else None
        return [mask, mask] if self.merge_mode is None else [mask]


@register_layer("keras>TimeDistributed")
@dataclass(eq=False)
class TimeDistributed(Layer):
    """`layer` applied to each step: ``x: T[N, L, ...] -> T[N, L, ...]``."""

    supports_masking = True

    # Layers that do the same to the steps whether the time axis is there or not.
    POINTWISE = (Dense, Embedding, Activation, ReLU, LeakyReLU, ELU, Dropout)

    layer: Any

    def __post_init__(self) -> None:
        super().__post_init__()
        self.layer = deserialize_layer(self.layer)

    @property
    def sublayers(self) -> dict[str, Layer]:
        return {"layer": self.layer}

    def build(self, *input_shapes: Any) -> None:
        shape = input_shapes[0]
        if len(shape) < 3 and not isinstance(self.layer, self.POINTWISE):
            law = f"layer `{self.name}` (TimeDistributed) takes inputs with 3 or more axes"
            raise ModelError(f"{law}. Received: shape ({', '.join(map(str, shape))}).")
        ensure_built(self.layer, [(dims.mul(*s[:2]), *s[2:]) for s in input_shapes])

    def call(self, t: Trace, *args: Any, **kwargs: Any) -> Any:
        x = next(flatten(args))
        if isinstance(self.layer, self.POINTWISE):
            return t.run(self.layer, x)
        batch, length = x.type.shape[:2]
        steps = dims.mul(batch, length)
        mask = t.masks[0]
        # A mask of the steps is none of what is inside a step.
        inner = reshape(t, mask, (steps, *mask.type.shape[2:])) if mask is not None and mask.type.rank > 2 else None
        y = t.run(self.layer, reshape(t, x, (steps, *x.type.shape[2:])), masks=[inner])
        return map_structure(lambda v: reshape(t, v, (batch, length, *v.type.shape[1:])), y)
