"""One step of any optimizer, in the order of Keras 3 (``keras/src/optimizers/base_optimizer.py``).

Accumulation, clipping, weight decay, the update itself, moving averages, constraints.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from kcompile.frontend.training.optimizers.base import Moment, Optimizer
from kcompile.frontend.training.state import Pack, State
from kcompile.frontend.weight import Weight
from kcompile.ir.expression import Expression
from kcompile.ir.ops import Mod

Constraint = Callable[[Expression], Expression]


@dataclass
class _Variable:
    """What is updated as one: a weight, or all of them in a vector."""

    key: Weight | Pack
    gradient: Expression
    slots: dict[str, Weight | Pack]
    decay: float | None


def packs(optimizer: Optimizer) -> bool:
    """Whether the optimizer can update all of its weights as one vector."""
    weights = optimizer.weights
    alike = len({weight.array.dtype for weight in weights}) == 1 and len({optimizer.decays(w) for w in weights}) == 1
    return optimizer.elementwise and alike and not optimizer.clipnorm and len(weights) > 1


def apply_gradients(
    optimizer: Optimizer,
    state: State,
    gradients: Sequence[Expression],
    weights: Sequence[Weight],
    pack: Pack | None,
    constraints: Mapping[Weight, Constraint],
) -> None:
    """Write the new values of weights, of their slots and of the number of steps.

    Args:
        gradients: of `weights`, in their order, which are the optimizer's or some of them.
        pack: of the weights, where they are updated as one vector.
    """
    variables = _variables(optimizer, state, gradients, weights, pack)
    iteration = state.expression(optimizer.iteration)
    every = optimizer.gradient_accumulation_steps
    now = (iteration + 1).apply(Mod(), every).equals(0) if every else None
    for variable in variables:
        if optimizer.loss_scale_factor:
            variable.gradient = variable.gradient / optimizer.loss_scale_factor
        if now is not None and every:
            _accumulate(state, variable, now, every)
    _clip(optimizer, variables)
    _update(optimizer, state, variables, iteration, now)
    if optimizer.use_ema:
        _average(optimizer, state, variables, iteration)
    _constrain(state, weights, pack, constraints)
    state.write(optimizer.iteration, (iteration + 1).value)


def _variables(
    optimizer: Optimizer,
    state: State,
    gradients: Sequence[Expression],
    weights: Sequence[Weight],
    pack: Pack | None,
) -> list[_Variable]:
    if pack is None:
        pairs = zip(weights, gradients, strict=True)
        return [_Variable(w, g, dict(optimizer.slots_of(w)), _decay(optimizer, w)) for w, g in pairs]
    flat = Expression(state.b, state.packed([gradient.value for gradient in gradients]))
    slots: dict[str, Weight | Pack] = {
        name: state.pack(list(by_weight.values())) for name, by_weight in optimizer.slots.items()
    }
    return [_Variable(pack, flat, slots, _decay(optimizer, optimizer.weights[0]))]


def _decay(optimizer: Optimizer, weight: Weight) -> float | None:
    return optimizer.decay_of(weight) if optimizer.decays(weight) else None


def _accumulate(state: State, variable: _Variable, now: Expression, every: int) -> None:
    slot = variable.slots["gradient_accumulator"]
    total = variable.gradient + state.expression(slot)
    state.write(slot, total.like(0.0).where(now, total).value)
    variable.gradient = (total / float(every)).where(now, variable.gradient)


def _clip(optimizer: Optimizer, variables: Sequence[_Variable]) -> None:
    if optimizer.clipnorm:
        for variable in variables:
            norm = variable.gradient.square().sum().sqrt()
            variable.gradient = variable.gradient * optimizer.clipnorm / norm.maximum(optimizer.clipnorm)
    elif optimizer.global_clipnorm:
        total = sum((v.gradient.square().sum() for v in variables[1:]), variables[0].gradient.square().sum())
        norm = total.sqrt()
        scale = optimizer.global_clipnorm * (1.0 / norm).minimum(1.0 / optimizer.global_clipnorm) + (norm - norm)
        for variable in variables:
            variable.gradient = variable.gradient * scale
    elif optimizer.clipvalue:
        for variable in variables:
            variable.gradient = variable.gradient.clip(-optimizer.clipvalue, optimizer.clipvalue)


def _update(
    optimizer: Optimizer, state: State, variables: Sequence[_Variable], iteration: Expression, now: Expression | None
) -> None:
    rate = (
        state.expression(optimizer.rate)
        if optimizer.schedule is None
        else optimizer.schedule.at(iteration.cast("float32"))
    )
    every = optimizer.gradient_accumulation_steps
    count = iteration / every if every else iteration
    moment = Moment(rate, (count + 1).cast("float32"))
    for name, (weight, value) in optimizer.prepare(state, moment).items():
        _write(state, weight, value, now)
        moment.shared[name] = value
    for variable in variables:
        w = state.expression(variable.key)
        if variable.decay is not None:
            w = w - w * variable.decay * rate
        slots = {name: state.expression(slot) for name, slot in variable.slots.items()}
        after, changed = optimizer.update(w, variable.gradient, slots, moment)
        _write(state, variable.key, after, now)
        for name, value in changed.items():
            _write(state, variable.slots[name], value, now)


def _write(state: State, key: Weight | Pack, value: Expression, now: Expression | None) -> None:
    """Write a value; where gradients are accumulated, in the steps only that change weights."""
    state.write(key, (value if now is None else value.where(now, state.expression(key))).value)


def _average(optimizer: Optimizer, state: State, variables: Sequence[_Variable], iteration: Expression) -> None:
    every, frequency = optimizer.gradient_accumulation_steps, optimizer.ema_overwrite_frequency
    count = iteration / every if every else iteration
    for variable in variables:
        slot, w = variable.slots["average"], state.expression(variable.key)
        momentum = count.differs(0).cast(w.type.dtype) * optimizer.ema_momentum
        average = momentum * state.expression(slot) + (1.0 - momentum) * w
        state.write(slot, average.value)
        if frequency:
            due = (count + 1).apply(Mod(), frequency).equals(0)
            state.write(variable.key, average.where(due, w).value)


def _constrain(
    state: State, weights: Sequence[Weight], pack: Pack | None, constraints: Mapping[Weight, Constraint]
) -> None:
    if not any(weight in constraints for weight in weights):
        return
    present = {weight: state.expression(weight) for weight in weights}
    changed = {w: constraints[w](value) if w in constraints else value for w, value in present.items()}
    if pack is not None:
        state.write(pack, state.packed([value.value for value in changed.values()]))
        return
    for weight, value in changed.items():
        state.write(weight, value.value)
