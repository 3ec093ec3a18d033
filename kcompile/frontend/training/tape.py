"""Gradients in the code of a step, with the word that TensorFlow has for them."""

from collections.abc import Iterator
from itertools import repeat
from types import TracebackType
from typing import Any, Self

from kcompile.errors import GraphError, ModelError
from kcompile.frontend.tensor import Tensor
from kcompile.frontend.tracing import flatten, map_structure
from kcompile.frontend.training.effects import Effects
from kcompile.frontend.training.optimizers.stepping import traced_step
from kcompile.frontend.training.state import Pack
from kcompile.frontend.weight import Weight
from kcompile.ir.graph import Builder, Value
from kcompile.ir.ops import Full
from kcompile.ir.passes.grad import pullback


class GradientTape:
    """Gradients of what the code of a step computes inside of the tape.

        with kcompile.GradientTape() as tape:
            y_pred = self(x, training=True)
            loss = self.compute_loss(x, y, y_pred)
        gradients = tape.gradient(loss, self.trainable_weights)
        self.optimizer.apply(gradients, self.trainable_weights)

    What was computed from a weight before the tape was entered is a constant to it. Tapes may stand in each other, for
    gradients of gradients.

    Args:
        persistent: of no effect: every tape gives gradients as often as it is asked.
        watch_accessed_variables: of no effect: gradients are found when they are asked for.
    """

    def __init__(self, persistent: bool = False, watch_accessed_variables: bool = True) -> None:
        del persistent, watch_accessed_variables
        self._effects: Effects | None = None
        self._values: dict[Weight | Pack, Value] = {}

    def __enter__(self) -> Self:
        _, self._effects = traced_step("a GradientTape")
        self._values = self._effects.state.restart()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        del kind, error, trace

    def watch(self, tensor: Any) -> None:
        """Of no effect: gradients by tensors are found when they are asked for."""

    def gradient(
        self, target: Any, sources: Any, output_gradients: Any = None, unconnected_gradients: str = "none"
    ) -> Any:
        """The gradient of the sum of `target` by each weight or tensor of `sources`, in their structure.

        Args:
            target: a tensor of any shape, or several.
            output_gradients: factors of the elements of `target`, in its structure.
            unconnected_gradients: what stands for a source on which the target does not depend: None, or "zero".

        Raises:
            ModelError: the tape was not entered, a source is no weight or tensor, or an op has no gradient.
        """
        t, effects = traced_step("`gradient` of a GradientTape")
        if self._effects is not effects:
            law = "`gradient` is of what a step computes in `with GradientTape() as tape:`"
            raise ModelError(f"{law}. Received: a tape that this step has not entered.")
        ys = [leaf for leaf in flatten(target) if isinstance(leaf, Tensor)]
        leaves = list(flatten(sources))
        wrong = ", ".join(sorted({type(leaf).__name__ for leaf in leaves if not isinstance(leaf, Tensor | Weight)}))
        if wrong:
            raise ModelError(f"`sources` of a gradient must be weights or tensors. Received: {wrong}.")
        values = [self._value_of(effects, leaf) for leaf in leaves]
        found = self._gradients(t.b, ys, list(flatten(output_gradients)), values)
        if unconnected_gradients == "zero":
            pairs = zip(values, found, strict=True)
            found = [Tensor(_filled(t.b, x, 0.0)) if dx is None else dx for x, dx in pairs]
        queue = iter(found)
        return map_structure(lambda _: next(queue), sources)

    def _value_of(self, effects: Effects, source: Tensor | Weight) -> Value:
        if isinstance(source, Tensor):
            return source.value
        return self._values[source] if source in self._values else effects.state.original(source)

    @staticmethod
    def _gradients(b: Builder, ys: list[Tensor], factors: list[Any], values: list[Value]) -> list[Tensor | None]:
        wrt = [value for value in values if value.type.is_float]
        given: Iterator[Any] = iter(factors) if len(factors) == len(ys) else repeat(None)
        weighted = [(y.value, dy) for y, dy in zip(ys, given, strict=False) if y.value.type.is_float]
        dys = tuple(dy.value if isinstance(dy, Tensor) else _filled(b, y, 1.0) for y, dy in weighted)
        try:
            found = dict(zip(wrt, pullback(b, [y for y, _ in weighted], dys, wrt), strict=True))
        except GraphError as error:
            raise ModelError(f"a GradientTape needs ops that have gradients. Received: {error}") from error
        gradients = [found.get(value) for value in values]
        return [None if dx is None else Tensor(dx) for dx in gradients]


def _filled(b: Builder, like: Value, number: float) -> Value:
    return b(Full(like.type.shape, number, like.type.dtype))
