"""Layers that call a function of the user's."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Self

from kcompile.errors import ModelError, shown
from kcompile.frontend import registry
from kcompile.frontend.layer import Layer


class Lambda(Layer):
    """``function(x, **arguments)``, written with ``kcompile.ops``.

    Args:
        function: gets `mask` and `training` too where it names them.
        output_shape: kept for Keras, of no effect here: the function's own ops give the shape.
        mask: the mask of the result, or a function ``(inputs, mask) -> mask``.
        arguments: more arguments of the function.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        output_shape: Any = None,
        mask: Any = None,
        arguments: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not callable(function):
            raise ModelError(f"`function` of layer `{self.name}` must be a function. Received: {function!r}.")
        self.function, self.mask, self.output_shape_argument = function, mask, output_shape
        self.arguments = dict(arguments or {})
        self._takes = inspect.signature(function).parameters

    def call(self, inputs: Any, mask: Any = None, training: Any = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        given = {"mask": mask, "training": training}
        return self.function(inputs, **self.arguments, **{k: v for k, v in given.items() if k in self._takes})

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self.mask(inputs, mask) if callable(self.mask) else self.mask

    def get_config(self) -> dict[str, Any]:
        """The arguments that make an equal layer, functions by their names, as Keras 3 writes them.

        Raises:
            ModelError: a function has no name.
        """
        parts = {"function": self.function, "mask": self.mask, "output_shape": self.output_shape_argument}
        written = {key: self._written(value) for key, value in parts.items() if value is not None}
        return {**super().get_config(), **written, "arguments": dict(self.arguments)}

    def _written(self, value: Any) -> Any:
        if not callable(value):
            return value
        name = str(getattr(value, "__name__", "<lambda>"))
        if name == "<lambda>":
            law = f"layer `{self.name}` holds a lambda, which no file of kcompile's does"
            advice = "Give it a function that @kcompile.saving.register_keras_serializable() registers"
            raise ModelError(f"{law}. {advice}.")
        found = registry.get_registered_name(value)
        return {"module": "builtins", "class_name": "function", "config": found, "registered_name": "function"}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """The layer that `config` describes, by functions that are registered.

        Raises:
            ModelError: it holds code, or names a function that is not registered.
        """
        function = named_function(config)
        if function is None:
            law = "a Lambda's config must name a registered function"
            raise ModelError(f"{law}. Received: {shown(config.get('function'))}.")
        kept = {
            key: config[key] for key in ("output_shape", "arguments", "name", "trainable", "dtype") if key in config
        }
        mask = config.get("mask")
        return cls(function, mask=_named(mask) or mask, **kept)


def named_function(config: Mapping[str, Any]) -> Callable[..., Any] | None:
    """The registered function that a Lambda's config names; None where it holds code, or the name is not known."""
    return _named(config.get("function"))


def _named(given: Any) -> Callable[..., Any] | None:
    named: Any = given.get("config") if isinstance(given, Mapping) and given.get("class_name") == "function" else given  # pyright: ignore
    return registry.find(named)


class FunctionActivation(Layer):
    """An activation that is a function of the user's, ``function(x)``."""

    def __init__(self, function: Callable[[Any], Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.function = function

    def call(self, x: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self.function(x)
