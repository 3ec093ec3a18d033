"""What builds and trains the models of a search."""

from collections.abc import Callable
from typing import Any

from kcompile.errors import ModelError
from kcompile.frontend.model import Model
from kcompile.frontend.tuning.hyperparameters import HyperParameters


class HyperModel:
    """A build function with a `fit` of its own, as a class to derive from."""

    def __init__(self, name: str | None = None, tunable: bool = True) -> None:
        self.name, self.tunable = name, tunable

    def build(self, hp: HyperParameters) -> Model:
        """A compiled model."""
        raise NotImplementedError

    def fit(self, hp: HyperParameters, model: Model, *args: Any, **kwargs: Any) -> Any:
        """Train; what comes back is the history, a score, or a dict with the score under the objective's name."""
        del hp
        return model.fit(*args, **kwargs)


class _Built(HyperModel):
    def __init__(self, build: Callable[[HyperParameters], Any]) -> None:
        super().__init__()
        self._build = build

    def build(self, hp: HyperParameters) -> Model:
        return self._build(hp)


def as_hypermodel(given: Any) -> HyperModel:
    """A hypermodel from a build function.

    Raises:
        ModelError: it is no function.
    """
    if isinstance(given, HyperModel):
        return given
    if isinstance(given, type) or not callable(given):
        law = "`hypermodel` must be a function that takes hyper-parameters, or a HyperModel"
        raise ModelError(f"{law}. Received: {given!r}.")
    return _Built(given)
