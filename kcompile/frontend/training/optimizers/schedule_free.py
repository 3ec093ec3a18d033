"""Schedule-free AdamW; formulas of ``keras/src/optimizers/schedule_free_adamw.py``."""

from typing import Any

from kcompile.frontend.training.optimizers.base import Moment, Optimizer, Slots
from kcompile.frontend.weight import Weight
from kcompile.ir.expression import Expression
from kcompile.ir.types import Array


class ScheduleFreeAdamW(Optimizer):
    """Steps of RMSprop from a point of their own, whose mean the weights follow; Defazio et al. 2024, arXiv:2405.15682.

    Args:
        beta_1: how much of the mean the weights are, and not of the point.
        warmup_steps: in which the learning rate rises from zero.
    """

    slot_groups = (("momentum", "velocity"),)
    arguments = ("beta_1", "beta_2", "epsilon", "warmup_steps")

    def __init__(
        self,
        learning_rate: Any = 0.0025,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        warmup_steps: int = 0,
        **options: Any,
    ) -> None:
        self.beta_1, self.beta_2, self.epsilon, self.warmup_steps = beta_1, beta_2, epsilon, warmup_steps
        super().__init__(learning_rate, **options)

    def first(self, slot: str, weight: Weight) -> Array:
        return weight.array.copy() if slot == "momentum" else super().first(slot, weight)

    def update(self, w: Expression, g: Expression, slots: Slots, moment: Moment) -> tuple[Expression, Slots]:
        rate, step = moment.learning_rate, moment.step
        if self.warmup_steps > 0:
            rate = rate * (step / float(self.warmup_steps)).minimum(1.0)
        old, v = slots["momentum"], slots["velocity"]
        v = v + (g.square() - v) * (1 - self.beta_2)
        point = old - rate * g / ((v / (1.0 - self.beta_2**step)).sqrt() + self.epsilon)
        mean = (w - old * (1 - self.beta_1)) / self.beta_1
        share = 1.0 / step
        mean = mean * (1.0 - share) + point * share
        return point * (1 - self.beta_1) + mean * self.beta_1, {"momentum": point, "velocity": v}
