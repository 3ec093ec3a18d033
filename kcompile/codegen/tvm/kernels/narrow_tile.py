"""Register tiles of products of few bits: 8-bit integers summed in int32, bfloat16 summed in float32.

An instruction multiplies a word of x, four integers or two bfloat16, with one such word of each column's weights, and
adds the products to the column's sum. Weights are packed so that the words of a line's columns follow each other. x86
without VNNI multiplies words of two integers of 16 bits, to which x and the weights are widened: its products of bytes
saturate. Elsewhere a word is one number, and LLVM multiplies and adds.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kcompile.codegen.tvm.arrays import Pointer
from kcompile.codegen.tvm.compiler import tirx
from kcompile.codegen.tvm.expr import Expr, Index, constant, prim_type
from kcompile.codegen.tvm.kernels.tile import Block, Panel, Rows, Tile
from kcompile.codegen.tvm.targets import Machine
from kcompile.codegen.tvm.tir import Function
from kcompile.ir.types import Array, array_dtype

_WORD_BITS = 32
# LLVM's names of the products of pairs of int16, by the lanes of their sums.
_PAIRS = {4: "llvm.x86.sse2.pmadd.wd", 8: "llvm.x86.avx2.pmadd.wd", 16: "llvm.x86.avx512.pmaddw.d.512"}
# Bytes of a cache line.
_LINE = 64
# Bytes of weights from which tiles fetch the next panel, and from which a single row fetches its own, in lines of it.
_FETCHED, _STREAMED = 32_768, 400_000
_LINES_AHEAD = 64


@dataclass(frozen=True)
class Factors:
    """What is multiplied: the dtypes of x, of the weights and of their sum, and how many numbers make a word."""

    x: str
    weights: str
    sum: str
    word: int

    def lanes(self, width: int) -> int:
        """The lanes of a vector that holds `width` columns: no instruction is narrower than 128 bits."""
        return width if self.word == 1 else max(width, 128 // _WORD_BITS)

    def line(self, columns: Block) -> int:
        """The columns of a line of packed weights, with those that fill up the last vector."""
        return sum(map(self.lanes, columns.widths))

    def padded(self, length: int) -> int:
        """`length` in whole words."""
        return -(-length // self.word) * self.word


def factors_of(machine: Machine, x: str) -> Factors:
    """What `machine` multiplies numbers of dtype `x` by: uint8 by int8, or bfloat16, as uint16, by bfloat16."""
    if x == "uint16":
        return Factors("uint16", "uint16", "float32", 2 if "+avx512bf16" in machine.features else 1)
    if {"+avx512vnni", "+avxvnni"}.intersection(machine.features):
        return Factors("uint8", "int8", "int32", 4)
    is_x86 = machine.architecture == "x86_64" and machine.lanes > 1
    return Factors("uint8", "int16", "int32", 2) if is_x86 else Factors("uint8", "int8", "int32", 1)


def product_sum(f: Function, factors: Factors, total: Expr, word: Expr, weights: Expr) -> Expr:
    """`total` and, in every lane, the products of the word of x with that lane's word of the weights."""
    lanes = total.lanes
    if factors.word == 1:
        return total + _widened(weights, factors) * _widened(word, factors)
    words = word.broadcast(lanes)
    if factors.sum == "float32":
        f.import_llvm(_bfloat16_products(lanes))
        operands = total.node, words.node, weights.bits("int32", lanes).node
        return Expr(tirx.call_extern(f"float32x{lanes}", f"kc_dpbf16_{lanes}", *operands), "float32", lanes)
    if factors.word == 2:
        operands = words.bits("int16", 2 * lanes).node, weights.node
        return total + Expr(
            tirx.call_llvm_pure_intrin(prim_type("int32", lanes), _PAIRS[lanes], *operands), "int32", lanes
        )
    name = f"llvm.x86.avx512.vpdpbusd.{lanes * _WORD_BITS}"
    operands = total.node, words.bits("uint8", 4 * lanes).node, weights.node
    return Expr(tirx.call_llvm_pure_intrin(prim_type("int32", lanes), name, *operands), "int32", lanes)


def _widened(x: Expr, factors: Factors) -> Expr:
    """A number in the dtype of the sum."""
    return (x.cast("uint32") << 16).bits("float32") if factors.x == "uint16" else x.cast(factors.sum)


def _bfloat16_products(lanes: int) -> str:
    """A function in LLVM's language for an instruction whose operands TVM has no types for."""
    wide, narrow, words = f"<{lanes} x float>", f"<{2 * lanes} x bfloat>", f"<{lanes} x i32>"
    intrinsic = f"@llvm.x86.avx512bf16.dpbf16ps.{lanes * _WORD_BITS}"
    flags = "+avx512f,+avx512vl,+avx512bf16"
    return f"""target triple = "x86_64-linux-gnu"
declare {wide} {intrinsic}({wide}, {narrow}, {narrow})
define linkonce_odr {wide} @kc_dpbf16_{lanes}({wide} %a, {words} %x, {words} %w) #0 {{
  %p = bitcast {words} %x to {narrow}
  %q = bitcast {words} %w to {narrow}
  %r = call {wide} {intrinsic}({wide} %a, {narrow} %p, {narrow} %q)
  ret {wide} %r
}}
attributes #0 = {{ alwaysinline "target-features"="{flags}" }}
"""


def load_word(pointer: Pointer, offset: Index, factors: Factors, count: int) -> Expr:
    """The word that begins with `count` numbers from `offset` on; where these are fewer than a word's, then zeros."""
    if factors.word == 1:
        return pointer.load(offset)
    stored = "uint16" if factors.word == 2 else "uint8"
    if count == factors.word:
        return pointer.load(offset, factors.word).cast(stored).bits("int32", 1)
    word = constant(0, "int32")
    for i in range(count):
        word = word | (pointer.load(offset + i).cast("int32") << (_WORD_BITS // factors.word * i))
    return word


class NarrowTile(Tile):
    """A `Tile` whose steps take words."""

    def __init__(self, f: Function, rows: int, columns: Block, factors: Factors) -> None:
        # Rounding is not what errors come from, so sums are not split, however many their terms.
        widths = tuple(map(factors.lanes, columns.widths))
        super().__init__(f, rows, Block(columns.columns, widths), factors.sum, terms=0)
        self._factors = factors
        # Sums are kept in the lanes that the instructions have, of which only the columns' are stored.
        self._lanes = self._block.widths
        self._block = columns

    def start(self, bias: Pointer | None, offset: Index) -> None:
        """Set the sums to the bias, or to 0."""
        columns = zip(self._sums, self._block.starts, self._block.widths, self._lanes, strict=True)
        for sums, first, width, lanes in columns:
            zero = constant(0, self._dtype)
            value = _repeated(bias.load(offset + first, width), lanes) if bias else zero
            for row in range(self._rows):
                for chain in range(self._chains):
                    sums[row * self._chains + chain] = zero if chain else value

    def multiply(self, x: Rows, weights: Panel, length: Index, rows: Sequence[int] | None = None) -> None:
        """Add the products of the first `length` numbers of `rows` of x with their lines of the panel.

        A last word that is not whole has zeros in its weights.
        """
        rows = range(self._rows) if rows is None else rows
        word = self._factors.word
        words, rest = divmod(length, word) if isinstance(length, int) else (length // word, 0)
        chains = min(self._chains, max(words, 1)) if isinstance(words, int) else self._chains
        with self._f.loop(words // chains) as k:
            for chain in range(chains):
                self._words(x, weights, k * chains + chain, rows, chain, word)
        done = self._f.name_index(words - words % chains)
        with self._f.loop(words - done) as k:
            self._words(x, weights, done + k, rows, 0, word)
        if rest:
            self._words(x, weights, words, rows, 0, rest)

    def _words(self, x: Rows, weights: Panel, k: Index, rows: Sequence[int], chain: int, count: int) -> None:
        """The word numbered k of each row, which has `count` numbers."""
        f, factors = self._f, self._factors
        line = f.name_index(weights.at + k * (weights.line * factors.word))
        step = _LINE // array_dtype(factors.weights).itemsize
        if weights.ahead is not None and self._rows > 1:
            weights.pointer.prefetch(weights.ahead + k * step)
        elif weights.streamed and self._rows == 1:
            for first in range(0, sum(self._lanes) * factors.word, step):
                weights.pointer.prefetch(line + (first + _LINES_AHEAD * sum(self._lanes) * factors.word))
        loaded: list[Expr] = []
        for lanes in self._lanes:
            first = sum(self._lanes[: len(loaded)])
            loaded.append(weights.pointer.load(line + first * factors.word, lanes * factors.word))
        at = f.name_index(x.at + k * factors.word)
        for row in rows:
            word = f.let(load_word(x.pointer, f.name_index(at + row * x.between), factors, count))
            for sums, weight in zip(self._sums, loaded, strict=True):
                i = row * self._chains + chain
                sums[i] = product_sum(f, factors, sums[i], word, weight)

    def _results(self, row: int) -> list[Expr]:
        totals = zip(super()._results(row), self._block.widths, strict=True)
        return [total if total.lanes == width else self._f.let(total.slice(0, width)) for total, width in totals]


def _repeated(x: Expr, lanes: int) -> Expr:
    """The vector, over and over, in `lanes` lanes."""
    if x.lanes in (1, lanes):
        return x
    indices = [tirx.const(i, "int32") for i in range(lanes)]
    return Expr(tirx.Shuffle([x.node] * (lanes // x.lanes), indices), x.dtype, lanes)


def pack_words(runs: Array, panels: Sequence[Block], factors: Factors) -> Array:
    """``[runs, length, M]`` panel by panel: ``[runs][length / word][line][word]``, filled up with zeros."""
    count, length, _ = runs.shape
    words = factors.padded(length) // factors.word
    parts: list[Array] = []
    start = 0
    for panel in panels:
        packed = np.zeros((count, words * factors.word, factors.line(panel)), factors.weights)
        first = 0
        for width in panel.widths:
            packed[:, :length, first : first + width] = runs[:, :, start : start + width]
            first, start = first + factors.lanes(width), start + width
        parts.append(packed.reshape(count, words, factors.word, -1).swapaxes(2, 3).reshape(-1))
    return np.concatenate(parts) if parts else np.zeros(0, runs.dtype)


def fetched(tile: Index, length: int, size: int, panels: int, at: Index, factors: Factors) -> Index | None:
    """Where the tile numbered `tile` of a panel, which begins at `at`, starts to fetch the next panel.

    A panel has `length` words a column and `size` numbers.
    """
    itemsize = array_dtype(factors.weights).itemsize
    return at + size + tile * (length * (_LINE // itemsize)) if itemsize * size * panels >= _FETCHED else None


def is_streamed(size: int, panels: int, factors: Factors) -> bool:
    """Whether the weights, panels of `size` numbers, are too many for the second-level cache."""
    return array_dtype(factors.weights).itemsize * size * panels >= _STREAMED
