"""Layers that turn texts and integers into a few numbers by hashing them."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from kcompile.errors import ModelError
from kcompile.frontend.layer import Layer, register_layer
from kcompile.frontend.layers import arguments
from kcompile.frontend.layers.categories import encode, output_mode
from kcompile.frontend.layers.lookups import salt_of, table
from kcompile.frontend.layers.writing import cast, like
from kcompile.frontend.tracing import Trace
from kcompile.ir import ops
from kcompile.ir.graph import Value


class _Hashed(Layer):
    """Base of the layers whose results are integers, of type int64 by default, or codes of them."""

    autocast = False

    num_bins: int
    output_mode: str
    sparse: bool

    def prepare(self, *modes: str) -> None:
        """Check the arguments that all have, and choose the dtype that is not given."""
        self.dtype = self.dtype or ("int64" if self.output_mode == "int" else "float32")
        Layer.__post_init__(self)
        arguments.positive(self, "num_bins")
        self.output_mode = output_mode(self, self.output_mode, *modes)

    def finished(self, t: Trace, bins: Value) -> Value:
        """Bins as the layer returns them."""
        if self.output_mode == "int":
            return cast(t, bins, self.compute_dtype)
        return encode(t, bins, self.output_mode, self.num_bins, self.compute_dtype)


@register_layer("keras>Hashing")
@dataclass(eq=False)
class Hashing(_Hashed):
    """The bin of each text by FarmHash64, or by SipHash with `salt` as its key; of a number, that of its decimal text.

    With `mask_value`, bin 0 is for elements that equal it alone.
    """

    num_bins: int
    mask_value: Any = None
    salt: Any = None
    output_mode: str = "int"
    sparse: bool = False
    dtype: str = field(default="", kw_only=True)

    def __post_init__(self) -> None:
        self.prepare("int", "one_hot", "multi_hot", "count")
        fits = self.output_mode != "int" or self.dtype in ("int32", "int64")
        self.require(fits, "dtype", '"int32" or "int64" in mode "int"')
        self.salt = salt_of(self)

    def call(self, t: Trace, *args: Any, **kwargs: Any) -> Value:
        x: Value = args[0]
        masked = self.mask_value is not None and self.num_bins > 1
        text = x
        if x.type.dtype != "string":
            text = t(ops.FormatInteger(), cast(t, x, "int64") if x.type.is_float else x)
        bins = t(ops.HashText(self.num_bins - masked, tuple(self.salt or ())), text)
        if masked:
            others = t(ops.Add(), bins, like(t, bins, 1))
            bins = t(ops.Where(), self._is_masked(t, x), like(t, bins, 0), others)
        return self.finished(t, bins)

    def _is_masked(self, t: Trace, x: Value) -> Value:
        if x.type.dtype != "string":
            return t(ops.Compare("=="), x, like(t, x, self.mask_value))
        found = table(t, x, np.array([self.mask_value], np.str_), np.array([1, 0], np.int64))
        return cast(t, found, "bool")


@register_layer("keras>HashedCrossing")
@dataclass(eq=False)
class HashedCrossing(_Hashed):
    """The bin of each combination of elements: of two or more inputs ``[N]`` or ``[N, 1]``, texts or integers."""

    hidden_fields = frozenset({"trainable"})

    num_bins: int
    output_mode: str = "int"
    sparse: bool = False
    dtype: str = field(default="", kw_only=True)

    def __post_init__(self) -> None:
        self.prepare("int", "one_hot")

    def call(self, t: Trace, *args: Any, **kwargs: Any) -> Value:
        given: Any = args[0]
        xs: list[Value] = list(given) if isinstance(given, list | tuple) else [given]
        fits = len(xs) > 1 and all(x.type.rank < 3 and x.type.shape[1:] in ((), (1,)) for x in xs)
        if not fits:
            received = ", ".join(str(x.type) for x in xs)
            law = f"layer `{self.name}` takes two inputs or more of shape (N,) or (N, 1)"
            raise ModelError(f"{law}. Received: {received}.")
        return self.finished(t, t(ops.HashCross(self.num_bins), *xs))
