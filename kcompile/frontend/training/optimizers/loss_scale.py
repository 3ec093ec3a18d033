"""Loss scaling that finds its factor; the rules of ``keras/src/optimizers/loss_scale_optimizer.py``."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import numpy as np

from kcompile.errors import ModelError
from kcompile.frontend.training.optimizers.base import Moment, Optimizer, Slots
from kcompile.frontend.training.state import State
from kcompile.frontend.weight import Weight
from kcompile.ir.expression import Expression

# Options of other optimizers that files of older versions hold, with the only value that they may have.
_UNUSED: dict[str, Any] = {
    "weight_decay": None,
    "clipnorm": None,
    "global_clipnorm": None,
    "clipvalue": None,
    "use_ema": False,
    "ema_momentum": 0.99,
    "ema_overwrite_frequency": None,
    "loss_scale_factor": None,
    "gradient_accumulation_steps": None,
    "dynamic": True,
}


class LossScaleOptimizer(Optimizer):
    """Another optimizer, for a loss times a factor that keeps small gradients of float16 from becoming zero.

    A step whose gradients are not all finite changes no weight and halves the factor; after `dynamic_growth_steps`
    steps in a row that change them it is doubled. Micikevicius et al. 2018, arXiv:1710.03740.

    Args:
        inner_optimizer: what makes the steps; its own `loss_scale_factor` is taken off.
        initial_scale: the factor of the first step.

    Raises:
        ModelError: the inner optimizer is none, or an option is given that belongs to it.
    """

    def __init__(
        self,
        inner_optimizer: Any,
        initial_scale: float = 2.0**15,
        dynamic_growth_steps: int = 2000,
        name: str | None = None,
        **options: Any,
    ) -> None:
        wrong = [key for key, value in options.items() if key not in _UNUSED or value != _UNUSED[key]]
        if wrong:
            raise ModelError(f"LossScaleOptimizer takes no {', '.join(wrong)}. Give them to the inner optimizer.")
        if not isinstance(inner_optimizer, Optimizer) or isinstance(inner_optimizer, LossScaleOptimizer):
            received = type(inner_optimizer).__name__
            raise ModelError(
                f"`inner_optimizer` of LossScaleOptimizer must be another optimizer. Received: {received}."
            )
        self._inner = inner_optimizer
        self.initial_scale, self.dynamic_growth_steps = initial_scale, dynamic_growth_steps
        super().__init__(0.0, name=name)
        inner_optimizer.loss_scale_factor = None
        self._own = [self.iteration, self.rate]
        self.step_counter = Weight("step_counter", np.zeros((), np.int32), trainable=False)
        self.dynamic_scale = Weight("dynamic_scale", np.asarray(initial_scale, np.float32), trainable=False)
        # Steps are counted, and rates read, where they are used.
        self.iteration, self.rate = inner_optimizer.iteration, inner_optimizer.rate
        self.schedule = inner_optimizer.schedule

    @property
    def inner(self) -> Optimizer:
        return self._inner

    @property
    def inner_optimizer(self) -> Optimizer:
        """The optimizer that makes the steps."""
        return self._inner

    def update(self, w: Expression, g: Expression, slots: Slots, moment: Moment) -> tuple[Expression, Slots]:
        return self._inner.update(w, g, slots, moment)

    def build(self, weights: Sequence[Weight], paths: Mapping[Weight, str] | None = None) -> None:
        self._inner.build(weights, paths)
        self.weights, self.slots, self.paths = self._inner.weights, self._inner.slots, self._inner.paths

    def scaled(self, state: State, loss: Expression) -> Expression:
        return loss * state.expression(self.dynamic_scale)

    def guarded(self, state: State, gradients: Sequence[Expression], write: Callable[[list[Expression]], None]) -> None:
        scale, count = state.expression(self.dynamic_scale), state.expression(self.step_counter)
        rests = [(g - g).sum() for g in gradients]  # zero, but for infinities and NaN
        finite = sum(rests[1:], rests[0]).equals(0.0)
        before, written = dict(state.current), dict(state.written)
        write([g / scale for g in gradients])
        for key, value in list(state.written.items()):
            if written.get(key) is not value:
                old = Expression(state.b, before.get(key, state.original(key)))
                state.write(key, Expression(state.b, value).where(finite, old).value)
        grows = count.equals(self.dynamic_growth_steps - 1)
        state.write(self.step_counter, (count.like(0).where(grows, count + 1)).where(finite, count.like(0)).value)
        state.write(self.dynamic_scale, (scale * 2.0).where(grows, scale).where(finite, scale * 0.5).value)

    @property
    def variables(self) -> list[Weight]:
        return [*self._own, self.step_counter, self.dynamic_scale, *self._inner.variables]

    @property
    def rates(self) -> dict[str, float]:
        return self._inner.rates

    @property
    def iterations(self) -> int:
        return self._inner.iterations

    def finalize(self) -> None:
        self._inner.finalize()

    def get_config(self) -> dict[str, Any]:
        from kcompile.frontend.training.optimizers import serialize

        return {
            "name": self.name,
            "inner_optimizer": serialize(self._inner),
            "initial_scale": self.initial_scale,
            "dynamic_growth_steps": self.dynamic_growth_steps,
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        from kcompile.frontend.training.optimizers import get

        arguments = dict(config)
        return cls(get(arguments.pop("inner_optimizer", None)), **arguments)
