"""Optimizers as the code of a step uses them: `scale_loss`, `apply`, on tensors of what is traced."""

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kcompile.errors import ModelError
from kcompile.frontend.tensor import Tensor, current
from kcompile.frontend.tracing import Trace
from kcompile.frontend.training.formulas import as_expression
from kcompile.frontend.training.optimizers.base import Optimizer
from kcompile.frontend.training.owners import weight_constraints
from kcompile.frontend.training.paths import weight_paths
from kcompile.frontend.weight import Weight

if TYPE_CHECKING:
    from kcompile.frontend.layer import Layer
    from kcompile.frontend.training.effects import Effects


def traced_step(what: str) -> tuple[Trace, "Effects"]:
    """What the present step is written with.

    Raises:
        ModelError: no step is traced; `what` needs one.
    """
    t = current()
    if t is None or t.effects is None or t.effects.roots is None:
        law = (
            f"{what} is for the code of a step: `train_step` of a kcompile.Model, or what @kcompile.function decorates"
        )
        raise ModelError(f"{law}. Received: a call outside of one.")
    return t, t.effects


def scale_loss(optimizer: Optimizer, loss: Any) -> Any:
    """The loss whose gradients the optimizer takes."""
    t, effects = traced_step("`scale_loss`")
    return Tensor(optimizer.scaled(effects.state, as_expression(t.b, loss, "a loss")).value)


def apply(optimizer: Optimizer, grads: Sequence[Any], weights: Sequence[Weight] | None) -> None:
    """Write a step for weights by their gradients.

    Raises:
        ModelError: no step is traced, no gradient is given, or the optimizer was built for other weights.
    """
    t, effects = traced_step("`apply` of an optimizer")
    chosen = list(optimizer.weights if weights is None else weights)
    if len(chosen) != len(grads):
        law = f"`apply` of optimizer {type(optimizer).__name__} takes a gradient for each weight"
        raise ModelError(f"{law}. Received: {len(grads)} gradients for {len(chosen)} weights.")
    if not optimizer.weights:
        optimizer.build(
            chosen, {weight: path for root in _roots(effects) for weight, path in weight_paths(root).items()}
        )
    _check_known(optimizer, chosen)
    pairs = [(weight, dw) for weight, dw in zip(chosen, grads, strict=True) if dw is not None]
    _warn_of_missing(optimizer, chosen, [weight for weight, _ in pairs])
    kept = [weight for weight, _ in pairs]
    pack = effects.pack if effects.pack is not None and list(effects.pack.members) == kept else None
    limits = {weight: limit for root in _roots(effects) for weight, limit in weight_constraints(root).items()}
    given = [as_expression(t.b, dw, f"the gradient of `{weight.name}`") for weight, dw in pairs]
    state = effects.state
    optimizer.guarded(state, given, lambda gradients: optimizer.inner.write(state, gradients, kept, pack, limits))


def _roots(effects: "Effects") -> "list[Layer]":
    return effects.roots or []


def _check_known(optimizer: Optimizer, weights: Sequence[Weight]) -> None:
    known = set(optimizer.weights)
    wrong = [f"`{weight.name}` {list(weight.shape)}" for weight in weights if weight not in known]
    if wrong:
        law = f"optimizer {type(optimizer).__name__} changes the weights alone that it was built for"
        advice = "Build it for all of them, optimizer.build(weights), or give others an optimizer of their own"
        raise ModelError(f"{law}. Received: {', '.join(wrong)}. {advice}.")


def _warn_of_missing(optimizer: Optimizer, weights: Sequence[Weight], found: Sequence[Weight]) -> None:
    if not found:
        law = f"`apply` of optimizer {type(optimizer).__name__} needs gradients"
        raise ModelError(f"{law}. Received: None for all weights. Does the loss depend on them, inside of the tape?")
    missing = [optimizer.paths.get(weight, weight.name) for weight in weights if weight not in set(found)]
    if missing:
        warnings.warn(f"the loss does not depend on the weights {', '.join(missing)}, which stay.", stacklevel=2)
