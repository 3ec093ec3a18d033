"""Low-rank updates of kernels in ``.h5`` files, which list them beside the kernels that they change.

In ``.keras`` files Keras merges them itself, as `_get_kernel_with_merged_lora` of its `Dense` does.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from kcompile.frontend.keras_file.layout import Owned
from kcompile.frontend.keras_file.old_layouts import Stored
from kcompile.frontend.layer import Layer
from kcompile.ir.types import Array


def merged_updates(weights: Sequence[Owned], stored: Sequence[Stored]) -> list[Stored]:
    """The arrays with ``kernel + lora_alpha / lora_rank * a @ b`` for each kernel with an update, and without these."""
    by_path = {entry.path.removesuffix(":0"): entry for entry in stored}
    owners = {owned.owner.name: owned.owner for owned in weights}
    made: list[Stored] = []
    for entry in stored:
        path, _, name = entry.path.removesuffix(":0").rpartition("/")
        if name.startswith("lora_"):
            continue
        parts = [by_path.get(f"{path}/lora_{name}_{part}") for part in "ab"]
        a, b = parts
        made.append(_merged(entry, a, b, owners.get(path.rpartition("/")[2])) if a and b else entry)
    return made


def _merged(entry: Stored, a: Stored, b: Stored, owner: Layer | None) -> Stored:
    rank = a.shape[-1] if a.shape else 1
    alpha = getattr(owner, "lora_alpha", None)
    scale = 1.0 if alpha is None else float(alpha) / max(rank, 1)

    def read() -> Array:
        kernel = entry.read()
        return (kernel + scale * np.tensordot(a.read(), b.read(), 1)).astype(kernel.dtype)

    fits = a.shape and b.shape and (*a.shape[:-1], *b.shape[1:]) == entry.shape and b.shape[:1] == (rank,)
    return replace(entry, read=read) if fits else entry
