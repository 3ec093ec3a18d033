"""Layers one after another that are one layer."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kcompile.frontend.layer import Layer, register_layer
from kcompile.frontend.layer_configs import deserialize_layer, serialize_layer
from kcompile.frontend.tracing import Trace, flatten
from kcompile.frontend.training.naming import snake_case
from kcompile.ir.graph import Value


@register_layer("keras>Pipeline")
@dataclass(eq=False)
class Pipeline(Layer):
    """``layers[-1](... layers[0](x))``."""

    autocast = False
    hidden_fields = frozenset({"dtype", "trainable"})

    layers: Any

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(isinstance(self.layers, list | tuple) and bool(self.layers), "layers", "a list of layers")
        self.layers = [deserialize_layer(layer) for layer in self.layers]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "layers": [serialize_layer(layer) for layer in self.layers]}

    @property
    def sublayers(self) -> dict[str, Layer]:
        counts: Counter[str] = Counter()
        named: dict[str, Layer] = {}
        for layer in self.layers:
            name = snake_case(type(layer).__name__)
            named[f"layers/{name}_{counts[name]}" if counts[name] else f"layers/{name}"] = layer
            counts[name] += 1
        return named

    def call(self, t: Trace, *args: Any, **kwargs: Any) -> Any:
        result, masks = args[0], list(t.masks)
        for layer in self.layers:
            result, mask = t.run_with_mask(layer, result, masks=masks)
            values = [leaf for leaf in flatten(result) if isinstance(leaf, Value)]
            masks = list(flatten(mask)) if mask is not None else [None] * len(values)
        t.result_masks = masks
        return result

    def compute_mask(self, t: Trace, *args: Any, **kwargs: Any) -> Value | Sequence[Value | None] | None:
        return t.result_masks
