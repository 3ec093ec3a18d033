"""What an optimizer is: one update rule for one variable, written as IR, and what all optimizers do around it.

Formulas, the order of operations and defaults are those of Keras 3 (``keras/src/optimizers/base_optimizer.py`` and the
file of each optimizer).
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import numpy as np

from kcompile.errors import ModelError
from kcompile.frontend.tensor import current
from kcompile.frontend.training.formulas import tensors
from kcompile.frontend.training.naming import snake_case
from kcompile.frontend.training.optimizers.schedules import LearningRateSchedule, schedule_from_config
from kcompile.frontend.training.state import Pack, State
from kcompile.frontend.weight import Weight
from kcompile.ir.expression import Expression
from kcompile.ir.types import Array

Slots = Mapping[str, Expression]


@dataclass(frozen=True)
class Moment:
    """What all updates of one step share: the learning rate, the number of the step from 1 on, and what is prepared."""

    learning_rate: Expression
    step: Expression
    shared: dict[str, Expression] = field(default_factory=dict[str, Expression])


class Rate(float):
    """A learning rate: a number, and what Keras's variable of it does."""

    def __new__(cls, value: Any, optimizer: "Optimizer") -> Self:
        made = super().__new__(cls, value)
        made._optimizer = optimizer
        return made

    _optimizer: "Optimizer"

    def numpy(self) -> np.float32:
        """The number as NumPy's."""
        return np.float32(self)

    def assign(self, value: float) -> None:
        """Set the optimizer's learning rate."""
        self._optimizer.learning_rate = value

    def __reduce__(self) -> tuple[type[float], tuple[float]]:
        return float, (float(self),)


class Optimizer(ABC):
    """Base of optimizers.

    Args:
        learning_rate: a number or a `LearningRateSchedule`.
        weight_decay: each step takes this share of the learning rate off each weight.
        clipnorm: gradients of each weight are scaled to this norm at most.
        clipvalue: elements of gradients are clipped to this size.
        global_clipnorm: all gradients together are scaled to this norm at most.
        use_ema: whether moving averages of the weights are kept and become the weights at the end of `fit`.
        ema_momentum: how much of the old average stays.
        ema_overwrite_frequency: every so many steps the averages become the weights.
        loss_scale_factor: the loss is multiplied by it for the gradients, which are divided by it again.
        gradient_accumulation_steps: weights change every so many steps, by the mean of the gradients since.

    Raises:
        ModelError: an argument breaks its law.
    """

    # Names of the slots of a weight, in groups: Keras creates one group after another, each weight by weight.
    slot_groups: tuple[tuple[str, ...], ...] = ()
    # Arguments of a subclass, for its config.
    arguments: ClassVar[tuple[str, ...]] = ()
    # Whether elements are updated independently of one another, so that weights can be packed into one vector.
    elementwise: ClassVar[bool] = True
    # Whether an integer stands among the variables in the place of a slot that a weight lacks.
    fills_slots: ClassVar[bool] = True

    def __init__(
        self,
        learning_rate: Any = 0.001,
        weight_decay: float | None = None,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        use_ema: bool = False,
        ema_momentum: float = 0.99,
        ema_overwrite_frequency: int | None = None,
        loss_scale_factor: float | None = None,
        gradient_accumulation_steps: int | None = None,
        name: str | None = None,
    ) -> None:
        self.name = name or snake_case(type(self).__name__)
        self.weight_decay, self.clipnorm, self.clipvalue = weight_decay, clipnorm, clipvalue
        self.global_clipnorm, self.use_ema, self.ema_momentum = global_clipnorm, use_ema, ema_momentum
        self.ema_overwrite_frequency, self.loss_scale_factor = ema_overwrite_frequency, loss_scale_factor
        self.gradient_accumulation_steps = gradient_accumulation_steps
        self.schedule = learning_rate if isinstance(learning_rate, LearningRateSchedule) else None
        is_number = isinstance(learning_rate, int | float | np.number) and not isinstance(learning_rate, bool)
        self.require(bool(self.schedule) or is_number, "learning_rate", learning_rate, "a number or a schedule")
        self._check()
        self.iteration = Weight("iteration", np.zeros((), np.int32), trainable=False)
        rate = 0.0 if self.schedule else learning_rate
        self.rate = Weight("learning_rate", np.asarray(rate, np.float32), trainable=False)
        self.weights: list[Weight] = []
        self.paths: Mapping[Weight, str] = {}
        self.slots: dict[str, dict[Weight, Weight]] = {}
        self.shared: dict[str, Weight] = {}
        self._undecayed: set[Weight] = set()
        self._undecayed_names: list[str] = []

    def require(self, law: bool, argument: str, value: object, expected: str) -> None:
        """Raise a ModelError that names the argument and what was received, unless `law` holds."""
        if not law:
            where = f"`{argument}` of optimizer {type(self).__name__}"
            raise ModelError(f"{where} must be {expected}. Received: {argument}={value!r}.")

    def _check(self) -> None:
        clips = {"clipnorm": self.clipnorm, "clipvalue": self.clipvalue, "global_clipnorm": self.global_clipnorm}
        if sum(value is not None for value in clips.values()) > 1:
            received = ", ".join(f"{name}={value}" for name, value in clips.items())
            raise ModelError(f"an optimizer takes one of {', '.join(clips)}. Received: {received}.")
        self.require(0 <= self.ema_momentum <= 1, "ema_momentum", self.ema_momentum, "from 0 to 1")
        for name, least in (("ema_overwrite_frequency", 1), ("gradient_accumulation_steps", 2)):
            value = getattr(self, name)
            fits = value is None or (isinstance(value, int) and value >= least)
            self.require(fits, name, value, f"None or an integer from {least} on")

    # -- what an optimizer defines ------------------------------------------------------------------------------------

    @abstractmethod
    def update(self, w: Expression, g: Expression, slots: Slots, moment: Moment) -> tuple[Expression, Slots]:
        """The new weight and its new slots, from the old ones and the gradient."""

    def initial(self, slot: str) -> float:
        """What a slot holds at first."""
        del slot
        return 0.0

    def slot_shape(self, slot: str, shape: tuple[int, ...]) -> tuple[int, ...] | None:
        """The shape of a slot for a weight of a shape; None where that weight has no such slot."""
        del slot
        return shape

    def first(self, slot: str, weight: Weight) -> Array:
        """What a slot that a weight has holds at first."""
        return np.full(self.slot_shape(slot, weight.shape) or (), self.initial(slot), weight.array.dtype)

    def has_slot(self, slot: str, weight: Weight) -> bool:
        """Whether a weight has a slot of the groups."""
        return self.slot_shape(slot, weight.shape) is not None

    def decay_of(self, weight: Weight) -> float | None:
        """What share of the learning rate each step takes off a weight, where it decays."""
        del weight
        return self.weight_decay

    def prepare(self, state: State, moment: Moment) -> dict[str, tuple[Weight, Expression]]:
        """What the updates of a step share: weights with their new values, by name."""
        del state, moment
        return {}

    @property
    def inner(self) -> "Optimizer":
        """The optimizer that makes the steps: this one, or the one that it wraps."""
        return self

    def scaled(self, state: State, loss: Expression) -> Expression:
        """The loss whose gradients are taken."""
        del state
        return loss * self.loss_scale_factor if self.loss_scale_factor else loss

    def guarded(self, state: State, gradients: Sequence[Expression], write: Callable[[list[Expression]], None]) -> None:
        """Write a step by the gradients of what `scaled` gives, by a function that writes one by gradients."""
        del state
        write(list(gradients))

    def write(
        self,
        state: State,
        gradients: Sequence[Expression],
        weights: Sequence[Weight],
        pack: Pack | None = None,
        constraints: Mapping[Weight, Callable[[Expression], Expression]] | None = None,
    ) -> None:
        """Write a step for `weights` by their gradients; `pack` holds them, where they are updated as one vector."""
        from kcompile.frontend.training.optimizers.apply import apply_gradients

        apply_gradients(self, state, gradients, weights, pack, constraints or {})

    def scale_loss(self, loss: Any) -> Any:
        """The loss whose gradients `apply` takes: in a `train_step`, a tensor; a number elsewhere."""
        from kcompile.frontend.training.optimizers.stepping import scale_loss

        return scale_loss(self, loss)

    def apply(self, grads: Sequence[Any], trainable_variables: Sequence[Weight] | None = None) -> None:
        """Change weights by gradients, within a step that is traced; weights without a gradient (None) stay.

        Args:
            trainable_variables: by default those that the optimizer was built for.

        Raises:
            ModelError: no step is traced, no gradient is given, or the optimizer was built for other weights.
        """
        from kcompile.frontend.training.optimizers.stepping import apply

        apply(self, grads, trainable_variables)

    def apply_gradients(self, grads_and_vars: Iterable[tuple[Any, Weight]]) -> None:
        """`apply`, of pairs of a gradient and its weight."""
        pairs = list(grads_and_vars)
        self.apply([gradient for gradient, _ in pairs], [weight for _, weight in pairs])

    # -- variables ----------------------------------------------------------------------------------------------------

    @property
    def learning_rate(self) -> Any:
        """The learning rate of the next step: a number; in the code of a step, a tensor."""
        if traced_state() is not None:
            return self._traced_rate()
        return Rate(self.rate.array if self.schedule is None else self.schedule(self.iteration.array), self)

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        if self.schedule is not None:
            raise ModelError("the learning rate of an optimizer that was made with a schedule cannot be set.")
        self.rate.array = np.asarray(value, np.float32)

    @property
    def built(self) -> bool:
        """Whether the state for the weights is there."""
        return bool(self.weights)

    @property
    def rates(self) -> dict[str, float]:
        """The learning rates of the next step, by names for logs."""
        return {"learning_rate": self.learning_rate}

    def _traced_rate(self) -> Any:
        state = traced_state()
        assert state is not None
        if self.schedule is None:
            return tensors(state.expression(self.rate))
        return tensors(self.schedule.at(state.expression(self.iteration).cast("float32")))

    @property
    def iterations(self) -> Any:
        """How many steps were made; of accumulated gradients, how often weights changed.

        In the code of a step, a tensor.
        """
        state = traced_state()
        if state is not None:
            made = tensors(state.expression(self.iteration))
            return made // self.gradient_accumulation_steps if self.gradient_accumulation_steps else made
        return int(self.iteration.array) // (self.gradient_accumulation_steps or 1)

    def build(self, weights: Sequence[Weight], paths: Mapping[Weight, str] | None = None) -> None:
        """Create the slots of `weights`, which lie in layers by these `paths`; nothing for weights that have theirs."""
        if self.weights == list(weights):
            return
        self.weights, self.slots, self.paths = list(weights), {}, paths or {}
        for group in self._groups():
            self.slots.update({name: {} for name in group})
            for weight in self.weights:
                for name in group:
                    self._add_slot(name, weight)

    def _groups(self) -> list[tuple[str, ...]]:
        own: list[tuple[str, ...]] = [("average",)] if self.use_ema else []
        own += [("gradient_accumulator",)] if self.gradient_accumulation_steps else []
        return [*own, *self.slot_groups]

    def _add_slot(self, name: str, weight: Weight) -> None:
        own = name in ("average", "gradient_accumulator")
        if own or self.has_slot(name, weight):
            value = np.zeros(weight.shape, weight.array.dtype) if own else self.first(name, weight)
            self.slots[name][weight] = Weight(f"{weight.name}_{name}", value, trainable=False)

    def slots_of(self, weight: Weight) -> dict[str, Weight]:
        """The slots of a weight by name."""
        return {name: by_weight[weight] for name, by_weight in self.slots.items() if weight in by_weight}

    @property
    def variables(self) -> list[Weight]:
        """The state as Keras orders it: the number of steps, the learning rate, then the slots.

        Where a weight lacks a slot that others have, an integer stands in its place.
        """
        found = [self.iteration, *([] if self.schedule else [self.rate])]
        for group in self._groups():
            for weight in self.weights:
                slots = [self.slots[name].get(weight) for name in group]
                filler = [_placeholder(weight)] if self.fills_slots else []
                found += [kept for slot in slots for kept in (filler if slot is None else [slot])]
        return [*found, *self.shared.values()]

    def finalize(self) -> None:
        """Make the moving averages the weights, where they are kept; `fit` ends with it."""
        for weight, average in self.slots.get("average", {}).items():
            weight.array = average.array

    def exclude_from_weight_decay(
        self, var_list: Sequence[Weight] | None = None, var_names: Sequence[str] | None = None
    ) -> None:
        """Leave weights out of the weight decay: these, and those whose name holds one of these patterns."""
        self._undecayed, self._undecayed_names = set(var_list or ()), list(var_names or ())

    def decays(self, weight: Weight) -> bool:
        """Whether weight decay applies to a weight."""
        named = any(re.search(pattern, weight.name) for pattern in self._undecayed_names)
        return weight not in self._undecayed and not named

    # -- config -------------------------------------------------------------------------------------------------------

    def get_config(self) -> dict[str, Any]:
        """The arguments that make an equal optimizer, as Keras names them."""
        rate: Any = self.schedule.serialize() if self.schedule else float(self.rate.array)
        names = (
            "weight_decay",
            "clipnorm",
            "global_clipnorm",
            "clipvalue",
            "use_ema",
            "ema_momentum",
            "ema_overwrite_frequency",
            "loss_scale_factor",
            "gradient_accumulation_steps",
            *self.arguments,
        )
        return {"name": self.name, "learning_rate": rate, **{name: getattr(self, name) for name in names}}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """The optimizer that `config` describes."""
        arguments = dict(config)
        if isinstance(arguments.get("learning_rate"), Mapping):
            arguments["learning_rate"] = schedule_from_config(arguments["learning_rate"])
        return cls(**arguments)


def _placeholder(weight: Weight) -> Weight:
    return Weight(weight.name, np.zeros((), np.int32), trainable=False)


def traced_state() -> State | None:
    """The state of the step that is traced, where one is."""
    t = current()
    return None if t is None or t.effects is None else t.effects.state
