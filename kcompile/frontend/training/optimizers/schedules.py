"""Learning-rate schedules: the rate as a function of the number of steps made, as IR.

Formulas of https://keras.io/api/optimizers/learning_rate_schedules/ in the order of operations of Keras 3
(``keras/src/optimizers/schedules/learning_rate_schedule.py``).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np

from kcompile.errors import ModelError
from kcompile.frontend import registry
from kcompile.frontend.training.eager import compute
from kcompile.frontend.training.formulas import as_formula
from kcompile.ir.expression import Expression


@dataclass(eq=False)
class LearningRateSchedule:
    """Base; a subclass says the rate in `at`."""

    def at(self, step: Expression) -> Expression:
        """The learning rate after `step` steps: ``f32[] -> f32[]``; what kcompile's own schedules define."""
        return as_formula(self.__call__, f"schedule {type(self).__name__}")(step)

    def __call__(self, step: Any) -> Any:
        """The learning rate after `step` steps, which may be a number; what a schedule of a user's own defines."""
        return self.at(step) if isinstance(step, Expression) else compute(self.at, np.asarray(step, np.float32))

    def get_config(self) -> dict[str, Any]:
        """The arguments that make an equal schedule."""
        return asdict(self)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """The schedule that `config` describes."""
        return cls(**config)

    def serialize(self) -> dict[str, Any]:
        """The schedule as Keras 3 writes it."""
        own = type(self) in SCHEDULES.values()
        return {
            "module": "keras.optimizers.schedules" if own else None,
            "class_name": type(self).__name__,
            "config": self.get_config(),
            "registered_name": None if own else registry.get_registered_name(type(self)),
        }

    def _require_positive(self, argument: str) -> None:
        value = getattr(self, argument)
        if not value > 0:
            raise ModelError(f"`{argument}` of a schedule must be above 0. Received: {argument}={value}.")


@dataclass(eq=False)
class ExponentialDecay(LearningRateSchedule):
    """``initial_learning_rate * decay_rate ** (step / decay_steps)``; with `staircase`, of the whole part."""

    initial_learning_rate: float
    decay_steps: float
    decay_rate: float
    staircase: bool = False
    name: str = "ExponentialDecay"

    def __post_init__(self) -> None:
        self._require_positive("decay_steps")

    def at(self, step: Expression) -> Expression:
        part = step / self.decay_steps
        part = part.floor() if self.staircase else part
        return self.initial_learning_rate * self.decay_rate**part


@dataclass(eq=False)
class InverseTimeDecay(LearningRateSchedule):
    """``initial_learning_rate / (1 + decay_rate * step / decay_steps)``; with `staircase`, of the whole part."""

    initial_learning_rate: float
    decay_steps: float
    decay_rate: float
    staircase: bool = False
    name: str = "InverseTimeDecay"

    def __post_init__(self) -> None:
        self._require_positive("decay_steps")

    def at(self, step: Expression) -> Expression:
        part = step / self.decay_steps
        part = part.floor() if self.staircase else part
        return self.initial_learning_rate / (1.0 + self.decay_rate * part)


@dataclass(eq=False)
class PiecewiseConstantDecay(LearningRateSchedule):
    """``values[i]`` up to and with step ``boundaries[i]``, the last value after the last boundary."""

    boundaries: Sequence[float]
    values: Sequence[float]
    name: str = "PiecewiseConstant"

    def __post_init__(self) -> None:
        if len(self.boundaries) != len(self.values) - 1:
            law = "`values` of a schedule must be one more than its `boundaries`"
            raise ModelError(f"{law}. Received: {len(self.values)} values and {len(self.boundaries)} boundaries.")

    def at(self, step: Expression) -> Expression:
        rate = step.like(self.values[-1])
        for boundary, value in zip(reversed(self.boundaries), reversed(self.values[:-1]), strict=True):
            rate = step.like(value).where(step <= boundary, rate)
        return rate


@dataclass(eq=False)
class PolynomialDecay(LearningRateSchedule):
    """``(initial - end) * (1 - step / decay_steps) ** power + end``; with `cycle`, again and again over more steps."""

    initial_learning_rate: float
    decay_steps: float
    end_learning_rate: float = 0.0001
    power: float = 1.0
    cycle: bool = False
    name: str = "PolynomialDecay"

    def __post_init__(self) -> None:
        self._require_positive("decay_steps")

    def at(self, step: Expression) -> Expression:
        if self.cycle:
            part = step / (self.decay_steps * (step / self.decay_steps).ceil().maximum(1.0))
        else:
            part = step.minimum(self.decay_steps) / self.decay_steps
        return (self.initial_learning_rate - self.end_learning_rate) * (1.0 - part) ** self.power + (
            self.end_learning_rate
        )


@dataclass(eq=False)
class CosineDecay(LearningRateSchedule):
    """Half a cosine from the initial rate to `alpha` times it, after a linear warm-up to `warmup_target`.

    Loshchilov and Hutter 2017, arXiv:1608.03983.
    """

    initial_learning_rate: float
    decay_steps: float
    alpha: float = 0.0
    name: str = "CosineDecay"
    warmup_target: float | None = None
    warmup_steps: float = 0

    def __post_init__(self) -> None:
        self._require_positive("decay_steps")

    def _decayed(self, step: Expression, top: float) -> Expression:
        curve = 0.5 * (1.0 + (math.pi * (step / self.decay_steps)).cos())
        return top * ((1.0 - self.alpha) * curve + self.alpha)

    def at(self, step: Expression) -> Expression:
        if self.warmup_target is None:
            return self._decayed(step.minimum(self.decay_steps), self.initial_learning_rate)
        step = step.minimum(self.decay_steps + self.warmup_steps)
        decayed = self._decayed(step - self.warmup_steps, self.warmup_target)
        if not self.warmup_steps:
            return decayed
        rise = (self.warmup_target - self.initial_learning_rate) * (step / self.warmup_steps)
        return (rise + self.initial_learning_rate).where(step < self.warmup_steps, decayed)


@dataclass(eq=False)
class CosineDecayRestarts(LearningRateSchedule):
    """`CosineDecay` again and again, each time over `t_mul` times as many steps from `m_mul` times the rate.

    Loshchilov and Hutter 2017, arXiv:1608.03983.
    """

    initial_learning_rate: float
    first_decay_steps: float
    t_mul: float = 2.0
    m_mul: float = 1.0
    alpha: float = 0.0
    name: str = "SGDRDecay"

    def __post_init__(self) -> None:
        self._require_positive("first_decay_steps")

    def at(self, step: Expression) -> Expression:
        part = step / self.first_decay_steps
        if self.t_mul == 1.0:
            restarts = part.floor()
            part = part - restarts
        else:
            restarts = ((1.0 - part * (1.0 - self.t_mul)).log() / math.log(self.t_mul)).floor()
            scale = self.t_mul**restarts
            part = (part - (1.0 - scale) / (1.0 - self.t_mul)) / scale
        curve = 0.5 * self.m_mul**restarts * (1.0 + (math.pi * part).cos())
        return self.initial_learning_rate * ((1.0 - self.alpha) * curve + self.alpha)


SCHEDULES: dict[str, type[LearningRateSchedule]] = {
    cls.__name__: cls
    for cls in (
        CosineDecay,
        CosineDecayRestarts,
        ExponentialDecay,
        InverseTimeDecay,
        PiecewiseConstantDecay,
        PolynomialDecay,
    )
}


def schedule_from_config(parts: Mapping[str, Any]) -> LearningRateSchedule:
    """The schedule that ``{"class_name": ..., "config": ...}`` describes.

    Raises:
        ModelError: there is none of that name, or it does not take these arguments.
    """
    name = str(parts.get("class_name"))
    cls = registry.find(parts.get("registered_name"), name) or SCHEDULES.get(name)
    if cls is None:
        raise ModelError(f"a schedule must be one of {', '.join(SCHEDULES)}. Received: {name!r}.")
    try:
        return cls.from_config(parts["config"])
    except TypeError:
        raise ModelError(f"schedule {cls.__name__} does not take these arguments: {parts['config']}.") from None
