"""What a search is for."""

from dataclasses import dataclass
from typing import Any

from kcompile.errors import ModelError
from kcompile.frontend.training.callbacks.monitoring import names_what_rises
from kcompile.frontend.tuning.store import Direction

# Parts of the names of metrics of which less is better.
_FALLING = ("loss", "error", "mse", "mae", "mape", "msle", "crossentropy", "divergence", "hinge", "poisson", "logcosh")


@dataclass(frozen=True)
class Objective:
    """The number of the logs that a search is for.

    Args:
        name: such as ``"val_loss"``.
        direction: "min" or "max".

    Raises:
        ModelError: the direction is another.
    """

    name: str
    direction: Direction

    def __post_init__(self) -> None:
        if self.direction not in ("min", "max"):
            raise ModelError(f'`direction` of Objective must be "min" or "max". Received: {self.direction!r}.')


def as_objective(objective: Any) -> Objective:
    """An objective from its name.

    Raises:
        ModelError: the name does not say whether more is better.
    """
    if isinstance(objective, Objective):
        return objective
    if not isinstance(objective, str):
        raise ModelError(f"`objective` must be a name in the logs or an Objective. Received: {objective!r}.")
    name = objective.removeprefix("val_")
    if any(part in name for part in _FALLING):
        return Objective(objective, "min")
    if names_what_rises(name):
        return Objective(objective, "max")
    law = f"whether more of `{objective}` is better is not known"
    raise ModelError(f'{law}. Give kcompile.tune.Objective("{objective}", "min") or "max".')
