"""Optimizers that scale the gradient: formulas of the files of the same names in ``keras/src/optimizers``."""

from typing import Any

from kcompile.frontend.training.optimizers.base import Moment, Optimizer, Slots
from kcompile.ir.expression import Expression


class SGD(Optimizer):
    """``w - learning_rate * g``, or with a velocity that keeps `momentum` of itself; Nesterov 1983 with `nesterov`."""

    arguments = ("momentum", "nesterov")

    def __init__(
        self, learning_rate: Any = 0.01, momentum: float = 0.0, nesterov: bool = False, **options: Any
    ) -> None:
        self.momentum, self.nesterov = momentum, nesterov
        super().__init__(learning_rate, **options)
        self.require(0 <= momentum <= 1, "momentum", momentum, "from 0 to 1")
        if momentum:
            self.slot_groups = (("momentum",),)

    def update(self, w: Expression, g: Expression, slots: Slots, moment: Moment) -> tuple[Expression, Slots]:
        step = g * moment.learning_rate
        if not self.momentum:
            return w - step, {}
        m = slots["momentum"] * self.momentum - step
        return w + (m * self.momentum - step if self.nesterov else m), {"momentum": m}


class RMSprop(Optimizer):
    """``w - learning_rate * g / sqrt(v + epsilon)`` with v the running mean of ``g ** 2``; Hinton 2012, lecture 6e.

    With `centered`, v less the square of the running mean of g.
    """

    arguments = ("rho", "momentum", "epsilon", "centered")

    def __init__(
        self,
        learning_rate: Any = 0.001,
        rho: float = 0.9,
        momentum: float = 0.0,
        epsilon: float = 1e-7,
        centered: bool = False,
        **options: Any,
    ) -> None:
        self.rho, self.momentum, self.epsilon, self.centered = rho, momentum, epsilon, centered
        super().__init__(learning_rate, **options)
        optional = {"momentum": momentum > 0, "average_gradient": centered}
        self.slot_groups = (("velocity",), *((name,) for name, wanted in optional.items() if wanted))

    def update(self, w: Expression, g: Expression, slots: Slots, moment: Moment) -> tuple[Expression, Slots]:
        velocity = self.rho * slots["velocity"] + (1 - self.rho) * g.square()
        changed, denominator = {"velocity": velocity}, velocity + self.epsilon
        if self.centered:
            average = self.rho * slots["average_gradient"] + (1 - self.rho) * g
            changed["average_gradient"] = average
            denominator = velocity - average.square() + self.epsilon
        step = moment.learning_rate * g / denominator.sqrt()
        if self.momentum > 0:
            step = changed["momentum"] = self.momentum * slots["momentum"] + step
        return w - step, changed


class Adagrad(Optimizer):
    """``w - learning_rate * g / sqrt(sum of g ** 2 + epsilon)``; Duchi et al. 2011."""

    slot_groups = (("accumulator",),)
    arguments = ("initial_accumulator_value", "epsilon")

    def __init__(
        self,
        learning_rate: Any = 0.001,
        initial_accumulator_value: float = 0.1,
        epsilon: float = 1e-7,
        **options: Any,
    ) -> None:
        self.initial_accumulator_value, self.epsilon = initial_accumulator_value, epsilon
        super().__init__(learning_rate, **options)

    def initial(self, slot: str) -> float:
        return self.initial_accumulator_value

    def update(self, w: Expression, g: Expression, slots: Slots, moment: Moment) -> tuple[Expression, Slots]:
        total = slots["accumulator"] + g.square()
        return w - moment.learning_rate * g / (total + self.epsilon).sqrt(), {"accumulator": total}


class Adadelta(Optimizer):
    """Steps as large as the last ones were, relative to the gradients; Zeiler 2012, arXiv:1212.5701."""

    slot_groups = (("accumulated_grad", "accumulated_delta_var"),)
    arguments = ("rho", "epsilon")

    def __init__(self, learning_rate: Any = 0.001, rho: float = 0.95, epsilon: float = 1e-7, **options: Any) -> None:
        self.rho, self.epsilon = rho, epsilon
        super().__init__(learning_rate, **options)

    def update(self, w: Expression, g: Expression, slots: Slots, moment: Moment) -> tuple[Expression, Slots]:
        seen, made = slots["accumulated_grad"], slots["accumulated_delta_var"]
        seen = self.rho * seen + (1 - self.rho) * g.square()
        step = -((made + self.epsilon).sqrt() * g / (seen + self.epsilon).sqrt())
        made = self.rho * made + (1 - self.rho) * step.square()
        return w + moment.learning_rate * step, {"accumulated_grad": seen, "accumulated_delta_var": made}


class Ftrl(Optimizer):
    """Follow the regularized leader; McMahan et al. 2013, "Ad Click Prediction: a View from the Trenches"."""

    slot_groups = (("accumulator", "linear"),)
    arguments = (
        "learning_rate_power",
        "initial_accumulator_value",
        "l1_regularization_strength",
        "l2_regularization_strength",
        "l2_shrinkage_regularization_strength",
        "beta",
    )

    def __init__(
        self,
        learning_rate: Any = 0.001,
        learning_rate_power: float = -0.5,
        initial_accumulator_value: float = 0.1,
        l1_regularization_strength: float = 0.0,
        l2_regularization_strength: float = 0.0,
        l2_shrinkage_regularization_strength: float = 0.0,
        beta: float = 0.0,
        **options: Any,
    ) -> None:
        self.learning_rate_power, self.initial_accumulator_value = learning_rate_power, initial_accumulator_value
        self.l1_regularization_strength = l1_regularization_strength
        self.l2_regularization_strength = l2_regularization_strength
        self.l2_shrinkage_regularization_strength, self.beta = l2_shrinkage_regularization_strength, beta
        super().__init__(learning_rate, **options)
        self.require(learning_rate_power <= 0, "learning_rate_power", learning_rate_power, "0 at most")
        for name in self.arguments[1:5]:
            self.require(getattr(self, name) >= 0, name, getattr(self, name), "0 at least")

    def initial(self, slot: str) -> float:
        return self.initial_accumulator_value if slot == "accumulator" else 0.0

    def update(self, w: Expression, g: Expression, slots: Slots, moment: Moment) -> tuple[Expression, Slots]:
        rate, power = moment.learning_rate, -self.learning_rate_power
        before, linear = slots["accumulator"], slots["linear"]
        after = before + g.square()
        shrunk = g + (2 * self.l2_shrinkage_regularization_strength) * w
        linear = linear + (shrunk - (after**power - before**power) / rate * w)
        l2 = self.l2_regularization_strength + self.beta / (2.0 * rate)
        quadratic = after**power / rate + 2.0 * l2
        l1 = self.l1_regularization_strength
        return (linear.clip(-l1, l1) - linear) / quadratic, {"accumulator": after, "linear": linear}


class Lion(Optimizer):
    """``w - learning_rate * sign(beta_1 * m + (1 - beta_1) * g)``; Chen et al. 2023, arXiv:2302.06675."""

    slot_groups = (("momentum",),)
    arguments = ("beta_1", "beta_2")

    def __init__(self, learning_rate: Any = 0.001, beta_1: float = 0.9, beta_2: float = 0.99, **options: Any) -> None:
        self.beta_1, self.beta_2 = beta_1, beta_2
        super().__init__(learning_rate, **options)
        self.require(0 < beta_1 <= 1, "beta_1", beta_1, "above 0 and 1 at most")

    def update(self, w: Expression, g: Expression, slots: Slots, moment: Moment) -> tuple[Expression, Slots]:
        m = slots["momentum"]
        direction = (m * self.beta_1 + g * (1.0 - self.beta_1)).sign()
        return w - moment.learning_rate * direction, {"momentum": m * self.beta_2 + g * (1.0 - self.beta_2)}
