"""Data that is read batch by batch."""

from collections.abc import Iterator
from typing import Any

from kcompile.errors import InputError


class PyDataset:
    """Batches by number; a subclass says how many there are and gives each.

        class Squares(kcompile.utils.PyDataset):
            def __len__(self):
                return 10

            def __getitem__(self, index):
                x = np.full((8, 1), index, "float32")
                return x, x**2

    Args:
        workers: of no effect, as are the arguments after it: batches are read one after another.
    """

    def __init__(self, workers: int = 1, use_multiprocessing: bool = False, max_queue_size: int = 10) -> None:
        self.workers, self.use_multiprocessing, self.max_queue_size = workers, use_multiprocessing, max_queue_size

    @property
    def num_batches(self) -> int:
        """The number of batches."""
        return len(self)

    def __len__(self) -> int:
        raise InputError(f"{type(self).__name__} must say how many batches there are, in `__len__`.")

    def __getitem__(self, index: int) -> Any:
        """Batch number `index`: ``x``, ``(x, y)`` or ``(x, y, sample_weight)``."""
        raise InputError(f"{type(self).__name__} must give batch number {index}, in `__getitem__`.")

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))

    def on_epoch_begin(self) -> None:
        """What happens before each epoch: nothing."""

    def on_epoch_end(self) -> None:
        """What happens after each epoch: nothing."""
