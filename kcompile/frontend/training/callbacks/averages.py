"""`SwapEMAWeights`: evaluates with the moving averages of the weights."""

from typing import Any

from kcompile.errors import ModelError
from kcompile.frontend.training.callbacks.base import Callback, Logs


class SwapEMAWeights(Callback):
    """Puts the optimizer's moving averages in the place of the weights while the model evaluates or predicts.

    Args:
        swap_on_epoch: whether they also stand there between epochs, for callbacks after this one that save the model.

    Raises:
        ModelError: the optimizer keeps no averages (``use_ema=True``).
    """

    def __init__(self, swap_on_epoch: bool = False) -> None:
        super().__init__()
        self.swap_on_epoch = swap_on_epoch
        self._swapped = False

    def get_state(self) -> dict[str, Any]:
        return {"swapped": self._swapped}

    def set_state(self, state: dict[str, Any]) -> None:
        self._swapped = state["swapped"]

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self._swapped = False

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self._bring(False)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        if not self.swap_on_epoch:
            return
        self._bring(True)
        if epoch == self.params["epochs"] - 1 or self.model.stop_training:
            # The end of `fit` makes the averages the weights; they are there already.
            for weight, average in self._averages():
                average.array = weight.array

    def on_test_begin(self, logs: Logs | None = None) -> None:
        self._bring(True)

    def on_test_end(self, logs: Logs | None = None) -> None:
        self._bring(False)

    def on_predict_begin(self, logs: Logs | None = None) -> None:
        self._bring(True)

    def on_predict_end(self, logs: Logs | None = None) -> None:
        self._bring(False)

    def _bring(self, averages: bool) -> None:
        """Let the averages stand in the weights, or the weights themselves."""
        if averages == self._swapped:
            return
        for weight, average in self._averages():
            weight.array, average.array = average.array, weight.array
        self._swapped = averages

    def _averages(self) -> list[tuple[Any, Any]]:
        optimizer = self.model.optimizer
        if not optimizer.use_ema:
            law = "SwapEMAWeights needs an optimizer that keeps averages, made with use_ema=True"
            raise ModelError(f"{law}. Received: {type(optimizer).__name__} with use_ema=False.")
        return list(optimizer.slots.get("average", {}).items())
