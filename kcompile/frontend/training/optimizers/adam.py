"""Adam and its kin; formulas of the files of the same names in ``keras/src/optimizers``."""

from typing import Any

import numpy as np

from kcompile.errors import ModelError
from kcompile.frontend.training.optimizers.base import Moment, Optimizer, Slots
from kcompile.frontend.training.state import State
from kcompile.frontend.weight import Weight
from kcompile.ir.expression import Expression

# How fast Nadam's momentum rises, Dozat 2016.
_NADAM_DECAY = 0.96


def running_means(g: Expression, slots: Slots, beta_1: float, beta_2: float) -> tuple[Expression, Expression]:
    """The new means of the gradient and of its square."""
    m, v = slots["momentum"], slots["velocity"]
    return m + (g - m) * (1 - beta_1), v + (g.square() - v) * (1 - beta_2)


def corrected(rate: Expression, moment: Moment, beta_1: float, beta_2: float) -> Expression:
    """A learning rate for means that began at zero; Kingma and Ba 2015, arXiv:1412.6980, section 2."""
    first, second = (1.0 - beta**moment.step for beta in (beta_1, beta_2))
    return rate * second.sqrt() / first


class _Moments(Optimizer):
    """Base: running means of the gradient and of its square."""

    slot_groups = (("momentum", "velocity"),)
    arguments = ("beta_1", "beta_2", "epsilon")

    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        **options: Any,
    ) -> None:
        self.beta_1, self.beta_2, self.epsilon = beta_1, beta_2, epsilon
        super().__init__(learning_rate, **options)

    def moments(self, g: Expression, slots: Slots) -> tuple[Expression, Expression]:
        """The new means of the gradient and of its square."""
        return running_means(g, slots, self.beta_1, self.beta_2)


class Adam(_Moments):
    """``w - alpha * m / (sqrt(v) + epsilon)`` with the means corrected in alpha; arXiv:1412.6980."""

    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        amsgrad: bool = False,
        **options: Any,
    ) -> None:
        self.amsgrad = amsgrad
        super().__init__(learning_rate, beta_1, beta_2, epsilon, **options)
        if amsgrad:
            self.slot_groups = (("momentum", "velocity"), ("velocity_hat",))

    arguments = ("beta_1", "beta_2", "epsilon", "amsgrad")

    def update(self, w: Expression, g: Expression, slots: Slots, moment: Moment) -> tuple[Expression, Slots]:
        alpha = corrected(moment.learning_rate, moment, self.beta_1, self.beta_2)
        m, v = self.moments(g, slots)
        changed = {"momentum": m, "velocity": v}
        if self.amsgrad:
            v = changed["velocity_hat"] = slots["velocity_hat"].maximum(v)
        return w - m * alpha / (v.sqrt() + self.epsilon), changed


class AdamW(Adam):
    """`Adam` with weight decay; Loshchilov and Hutter 2019, arXiv:1711.05101."""

    def __init__(
        self,
        learning_rate: Any = 0.001,
        weight_decay: float | None = 0.004,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        amsgrad: bool = False,
        **options: Any,
    ) -> None:
        if weight_decay is None:
            raise ModelError("`weight_decay` of optimizer AdamW must be a number. Received: weight_decay=None.")
        super().__init__(learning_rate, beta_1, beta_2, epsilon, amsgrad, weight_decay=weight_decay, **options)


class Adamax(_Moments):
    """`Adam` with the largest gradient in place of the mean square; Kingma and Ba 2015, arXiv:1412.6980, section 7."""

    slot_groups = (("momentum", "norm"),)

    def update(self, w: Expression, g: Expression, slots: Slots, moment: Moment) -> tuple[Expression, Slots]:
        m = slots["momentum"] + (g - slots["momentum"]) * (1 - self.beta_1)
        norm = (self.beta_2 * slots["norm"]).maximum(g.abs())
        first = 1.0 - self.beta_1**moment.step
        after = w - moment.learning_rate * m / (first * (norm + self.epsilon))
        return after, {"momentum": m, "norm": norm}


class Nadam(_Moments):
    """`Adam` with Nesterov momentum; Dozat 2016, "Incorporating Nesterov Momentum into Adam"."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.shared = {"u_product": Weight("u_product", np.ones((), np.float32), trainable=False)}

    def _momentum(self, step: Expression) -> Expression:
        return self.beta_1 * (1.0 - 0.5 * _NADAM_DECAY**step)

    def prepare(self, state: State, moment: Moment) -> dict[str, tuple[Weight, Expression]]:
        weight = self.shared["u_product"]
        factor = state.expression(weight) * self.beta_1 * (1.0 - 0.5 * _NADAM_DECAY**moment.step)
        return {"u_product": (weight, factor)}

    def update(self, w: Expression, g: Expression, slots: Slots, moment: Moment) -> tuple[Expression, Slots]:
        now, following = self._momentum(moment.step), self._momentum(moment.step + 1.0)
        product = moment.shared["u_product"]
        m, v = self.moments(g, slots)
        m_hat = following * m / (1.0 - product * following) + (1.0 - now) * g / (1.0 - product)
        v_hat = v / (1.0 - self.beta_2**moment.step)
        after = w - m_hat * moment.learning_rate / (v_hat.sqrt() + self.epsilon)
        return after, {"momentum": m, "velocity": v}


class Lamb(_Moments):
    """`Adam` whose step has the norm of the weight, times the rate; You et al. 2019, arXiv:1904.00962."""

    elementwise = False

    def update(self, w: Expression, g: Expression, slots: Slots, moment: Moment) -> tuple[Expression, Slots]:
        first, second = (1.0 - beta**moment.step for beta in (self.beta_1, self.beta_2))
        m, v = self.moments(g, slots)
        step = m / first / ((v / second).sqrt() + self.epsilon)
        own, size = w.square().sum().sqrt(), step.square().sum().sqrt()
        both = (own > 0.0) & (size > 0.0)
        ratio = (own / size.maximum(float(np.finfo(np.float32).tiny))).where(both, 1.0)
        return w - ratio * moment.learning_rate * step, {"momentum": m, "velocity": v}
