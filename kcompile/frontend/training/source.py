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


def unpack_x_y_sample_weight(data: Any) -> tuple[Any, Any, Any]:
    """The parts of what a step gets: ``x``, ``(x,)``, ``(x, y)`` or ``(x, y, sample_weight)``; None for missing ones.

    Raises:
        InputError: it has more parts.
    """
    parts: tuple[Any, ...] = tuple(data) if isinstance(data, list | tuple) else (data,)  # pyright: ignore[reportUnknownArgumentType]
    if not 1 <= len(parts) <= 3:
        raise InputError(f"a batch must be x, (x, y) or (x, y, sample_weight). Received: {len(parts)} parts.")
    x, y, weights = (*parts, None, None)[:3]
    return x, y, weights


def pack_x_y_sample_weight(x: Any, y: Any = None, sample_weight: Any = None) -> Any:
    """A batch as a step gets it: `x` alone where there are no labels, or a tuple."""
    if y is None:
        return (x,) if isinstance(x, list | tuple) else x
    return (x, y) if sample_weight is None else (x, y, sample_weight)
