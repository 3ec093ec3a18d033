"""Layers that call a function of the user's."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from kcompile.errors import ModelError
from kcompile.frontend.layer import Layer


class Lambda(Layer):
    """``function(x, **arguments)``, written with ``kcompile.ops``.

    Args:
        function: gets `mask` and `training` too where it names them.
        output_shape: of no effect: the function's own ops give the shape.
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
        self.function, self.mask = function, mask
        self.arguments = dict(arguments or {})
        self._takes = inspect.signature(function).parameters

    def call(self, inputs: Any, mask: Any = None, training: Any = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        given = {"mask": mask, "training": training}
        return self.function(inputs, **self.arguments, **{k: v for k, v in given.items() if k in self._takes})

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self.mask(inputs, mask) if callable(self.mask) else self.mask

    def get_config(self) -> NoReturn:
        """A function is no config.

        Raises:
            ModelError: always.
        """
        law = f"layer `{self.name}` holds a function, which no file of kcompile's does"
        raise ModelError(f"{law}. Write it as a registered class: @kcompile.saving.register_keras_serializable().")


class FunctionActivation(Layer):
    """An activation that is a function of the user's, ``function(x)``."""

    def __init__(self, function: Callable[[Any], Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.function = function

    def call(self, x: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        return self.function(x)
