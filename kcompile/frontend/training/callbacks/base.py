"""What a callback is, and the list that calls them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kcompile.errors import ModelError

if TYPE_CHECKING:
    from kcompile.frontend.model import Model

Logs = dict[str, Any]


class Callback:
    """Base of callbacks: what is called around epochs and batches.

    Attributes:
        model: that is trained.
        params: ``verbose``, ``epochs`` and ``steps``.
        acts_last: whether it is called after all others at every event.
    """

    acts_last: bool = False

    def __init__(self) -> None:
        self._model: Model | None = None
        self.params: dict[str, Any] = {}

    @property
    def model(self) -> "Model":
        """The model that is trained.

        Raises:
            ModelError: the callback was given to none.
        """
        if getattr(self, "_model", None) is None:
            raise ModelError(f"{type(self).__name__} has no model. Give it to `fit` as a callback.")
        assert self._model is not None
        return self._model

    def set_model(self, model: "Model") -> None:
        """Tell the callback its model."""
        self._model = model

    def set_params(self, params: dict[str, Any]) -> None:
        """Tell the callback ``verbose``, ``epochs`` and ``steps``."""
        self.params = params

    def set_callbacks(self, callbacks: Sequence["Callback"]) -> None:
        """Tell the callback all that take part, itself included."""

    def get_state(self) -> dict[str, Any]:
        """What the callback has seen so far, as numbers, texts, arrays, lists and dicts; a backup keeps it."""
        return {}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from what `get_state` gave, in a `fit` that resumes an interrupted one."""

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Before the first epoch."""

    def on_train_end(self, logs: Logs | None = None) -> None:
        """After the last epoch."""

    def on_train_abort(self, logs: Logs | None = None) -> None:
        """Instead of `on_train_end` where an exception ends the training, Ctrl-C among them: close what is open."""

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Before an epoch."""

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """After an epoch and its validation; what it adds to `logs` reaches the callbacks after it."""

    def on_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """Before a batch of training."""

    def on_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """After a batch of training."""

    def on_train_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """Before a batch of training."""
        self.on_batch_begin(batch, logs)

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """After a batch of training."""
        self.on_batch_end(batch, logs)

    def on_test_begin(self, logs: Logs | None = None) -> None:
        """Before an evaluation."""

    def on_test_end(self, logs: Logs | None = None) -> None:
        """After an evaluation."""

    def on_test_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """Before a batch of an evaluation."""

    def on_test_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """After a batch of an evaluation."""

    def on_predict_begin(self, logs: Logs | None = None) -> None:
        """Before predictions."""

    def on_predict_end(self, logs: Logs | None = None) -> None:
        """After predictions."""

    def on_predict_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """Before a batch of predictions."""

    def on_predict_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """After a batch of predictions."""


class CallbackList:
    """Calls callbacks in turn; those that do nothing at an event cost nothing there."""

    def __init__(self, callbacks: Sequence[Callback], model: "Model", params: dict[str, Any]) -> None:
        self.callbacks = sorted(callbacks, key=lambda callback: callback.acts_last)
        for callback in self.callbacks:
            callback.set_model(model)
            callback.set_params(params)
            callback.set_callbacks(self.callbacks)
        self._by_event: dict[str, list[Any]] = {}

    def _listeners(self, event: str) -> list[Any]:
        if event not in self._by_event:
            self._by_event[event] = [getattr(c, event) for c in self.callbacks if _listens(c, event)]
        return self._by_event[event]

    def call(self, event: str, *arguments: Any) -> None:
        """Call all callbacks at an event (``"on_epoch_end"``)."""
        for listener in self._listeners(event):
            listener(*arguments)


# What `on_train_batch_begin` and `on_train_batch_end` pass on to.
_SHORT = {"on_train_batch_begin": "on_batch_begin", "on_train_batch_end": "on_batch_end"}


def _listens(callback: Callback, event: str) -> bool:
    """Whether a callback has a method of its own for an event."""
    names = [event, *([_SHORT[event]] if event in _SHORT else [])]
    return any(name in vars(callback) or getattr(type(callback), name) is not getattr(Callback, name) for name in names)
