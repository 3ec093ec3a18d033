"""Adafactor; formulas of ``keras/src/optimizers/adafactor.py``."""

from typing import Any

from kcompile.frontend.training.optimizers.base import Moment, Optimizer, Slots
from kcompile.ir.expression import Expression


def _size(x: Expression) -> Expression:
    return x.square().mean().sqrt()


class Adafactor(Optimizer):
    """Adaptive steps from the sums of squares of rows and columns alone; Shazeer and Stern 2018, arXiv:1804.04235."""

    slot_groups = (("row", "column", "velocity"),)
    arguments = ("beta_2_decay", "epsilon_1", "epsilon_2", "clip_threshold", "relative_step")
    elementwise = False

    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta_2_decay: float = -0.8,
        epsilon_1: float = 1e-30,
        epsilon_2: float = 1e-3,
        clip_threshold: float = 1.0,
        relative_step: bool = True,
        **options: Any,
    ) -> None:
        self.beta_2_decay, self.epsilon_1, self.epsilon_2 = beta_2_decay, epsilon_1, epsilon_2
        self.clip_threshold, self.relative_step = clip_threshold, relative_step
        super().__init__(learning_rate, **options)

    def slot_shape(self, slot: str, shape: tuple[int, ...]) -> tuple[int, ...] | None:
        if slot == "velocity":
            return shape
        if len(shape) < 2:
            return None
        return shape[:-1] if slot == "row" else (*shape[:-2], shape[-1])

    def update(self, w: Expression, g: Expression, slots: Slots, moment: Moment) -> tuple[Expression, Slots]:
        limit = 1.0 / moment.step.sqrt()
        rate = moment.learning_rate.minimum(limit)
        alpha = _size(w).maximum(self.epsilon_2) * rate
        square = g.square() + self.epsilon_1
        keep = 1.0 - moment.step**self.beta_2_decay
        if "row" in slots:
            row = keep * slots["row"] + (1.0 - keep) * square.mean((-1,))
            column = keep * slots["column"] + (1.0 - keep) * square.mean((-2,))
            share = row / row.mean((-1,), keepdims=True)
            velocity = share.expand(-1) * column.expand(-2)
            changed = {"row": row, "column": column, "velocity": velocity}
        else:
            velocity = keep * slots["velocity"] + (1.0 - keep) * square
            changed = {"velocity": velocity}
        step = g / velocity.sqrt()
        return w - alpha * (step / (_size(step) / self.clip_threshold).maximum(1.0)), changed
