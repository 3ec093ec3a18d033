"""Convolutions whose results stand in the order in which a pooling reads them."""

from dataclasses import dataclass

from kcompile.ir import dims
from kcompile.ir.dims import Dim
from kcompile.ir.op import Arrays, Types
from kcompile.ir.ops.conv import Conv, correlate, explicit_padding
from kcompile.ir.ops.windows import BLOCK_BYTES, BlockwiseOp, add_along_rows, by_window, padded, windows_of
from kcompile.ir.types import Array


@dataclass(frozen=True)
class WindowedConv(BlockwiseOp, name="windowed_conv", operands=("x", "kernel", "bias?")):
    """The convolution `of`, its results ordered by their place in windows of `size` that do not overlap.

    ``y[n, *place, *window, f] = conv(x, kernel, bias)[n, window * size + place, f]``; results in no whole window are
    left out. What stands at one place of all windows is then one piece of memory, so that a pooling compares long runs.
    """

    of: Conv
    size: tuple[int, ...]

    def infer(self, types: Types) -> Types:
        (y,) = self.of.infer(types)
        plain = self.of.data_format == "channels_last" and self.of.groups == 1 and len(self.size) == y.rank - 2
        self.require(plain, "the convolution must have its channels last, one group, and a size per axis", types)
        spatial = y.with_shape(y.shape[1:-1]).static_shape()
        windows = [extent // size for extent, size in zip(spatial, self.size, strict=True)]
        return (y.with_shape((y.shape[0], *self.size, *windows, y.shape[-1])),)

    def write(self, args: Arrays, out: Array, block_bytes: int = BLOCK_BYTES) -> None:
        """Write the result to `out`, from patches of `block_bytes` at a time."""
        of, (x, kernel) = self.of, args[:2]
        window = kernel.shape[:-2]
        x = padded(x, explicit_padding(of.padding, x.shape[1:-1], window, of.strides, of.rates))
        correlate(by_window(windows_of(x, window, of.strides, of.rates), self.size), kernel, out, block_bytes)
        if len(args) > 2:
            add_along_rows(out, args[2])

    def macs(self, types: Types, results: Types) -> Dim:
        return dims.mul(results[0].size, *types[1].shape[:-1])
