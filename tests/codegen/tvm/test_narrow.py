"""Products of few bits, stage by stage on guarded memory, against sums of integers written out."""

from dataclasses import replace

import numpy as np
import pytest

from kcompile.codegen.tvm.targets import MACHINES, Machine, host, machine, required_flags, with_narrow_products
from kcompile.ir import ops
from kcompile.ir.graph import Graph
from kcompile.ir.op import Op
from kcompile.ir.types import Array, TensorType
from kcompile.runtime.bundle import machine_misfit
from tests.codegen.tvm.plans import Planned, graph_of

_RNG = np.random.default_rng(3)
# Input, window with channels per group and filters, strides, padding, dilation, groups.
CONVOLUTIONS = [
    ((2, 9, 7, 8), (3, 3, 8, 24), (1, 1), "same", (), 1),
    ((1, 11, 13, 3), (5, 7, 3, 20), (2, 2), "valid", (), 1),  # runs that end within a word
    ((2, 6, 30, 16), (1, 1, 16, 7), (1, 1), "valid", (), 1),
    ((1, 9, 9, 12), (3, 3, 12, 33), (2, 1), ((1, 1), (0, 2)), (), 1),
    ((1, 12, 12, 5), (3, 3, 5, 4), (1, 1), "valid", (2, 2), 1),
    ((1, 8, 9, 6), (3, 2, 6, 5), (1, 1), "same", (), 1),  # skipped taps that begin within a word
    ((1, 7, 7, 16), (3, 3, 8, 12), (1, 1), "same", (), 2),
    ((2, 50, 4), (9, 4, 18), (3,), "same", (), 1),
    ((1, 4, 4, 8), (4, 4, 8, 10), (1, 1), "valid", (), 1),
    ((2, 9, 8, 21), (3, 3, 1, 21), (1, 1), "same", (), 21),  # depthwise
    ((1, 20, 6), (5, 1, 6), (2,), "valid", (), 6),
]
DENSE = [((5, 16), 24), ((1, 37), 10), ((2, 3, 64), 70), ((30, 7), 1), ((0, 8), 16), ((3, 1), 3)]


def machines() -> list[Machine]:
    """What runs here: levels without instructions for few bits, and with them."""
    levels = [MACHINES["x86-64-v3"], MACHINES["aarch64"]]
    levels.append(replace(MACHINES["x86-64-v3"], features=("+avxvnni",)))
    levels.append(replace(MACHINES["x86-64-v4"], features=("+avx512vnni", "+avx512bf16")))
    needs = [{"flags": sorted(required_flags(m)), "architecture": m.architecture, "name": m.name} for m in levels]
    return [m for m, need in zip(levels, needs, strict=True) if not machine_misfit(need)]


def integers(*shape: int, dtype: str = "uint8") -> Array:
    # The extremes too: products of 255 and -127 are what saturating instructions get wrong.
    limits = {"uint8": (0, 256), "int8": (-127, 128)}[dtype]
    numbers = _RNG.integers(*limits, shape)
    return np.where(_RNG.random(shape) < 0.5, limits[0] if dtype == "int8" else 255, numbers).astype(dtype)


def bfloat16(*shape: int) -> Array:
    return (_RNG.standard_normal(shape).astype(np.float32).view(np.uint32) >> 16).astype(np.uint16).reshape(shape)


def cases(kind: str) -> list[tuple[Graph, dict[str, Array]]]:
    found: list[tuple[Graph, dict[str, Array]]] = []

    def add(op: Op, x_shape: tuple[int, ...], kernel_shape: tuple[int, ...]) -> None:
        filters = kernel_shape[-1]
        if kind == "int8":
            x, kernel = integers(*x_shape), integers(*kernel_shape, dtype="int8")
            bias = _RNG.integers(-(2**20), 2**20, filters).astype(np.int32)
        else:
            x, kernel = bfloat16(*x_shape), bfloat16(*kernel_shape)
            bias = _RNG.standard_normal(filters).astype(np.float32)
        batch = "N" if isinstance(op, ops.DenseNarrow) else x_shape[0]
        graph = graph_of(op, TensorType(x.dtype.name, (batch, *x_shape[1:])), kernel, *([bias] if filters % 2 else []))
        found.append((graph, {"x0": x}))

    for x, kernel, strides, padding, dilation, groups in CONVOLUTIONS:
        add(ops.ConvNarrow(strides, padding, dilation, groups), x, kernel)  # type: ignore[arg-type]
    for x, units in DENSE:
        add(ops.DenseNarrow(), x, (x[-1], units))
    return found


def instructions(target: Machine) -> str:
    return " ".join([target.name, *target.features])


@pytest.mark.parametrize("target", machines(), ids=instructions)
def test_products_of_integers_are_exact_on_every_level(target: Machine) -> None:
    drawn = cases("int8")
    planned = Planned([graph for graph, _ in drawn], target)
    for graph, inputs in drawn:
        planned.check(graph, inputs)


@pytest.mark.parametrize("target", [machines()[0], machines()[-1]], ids=instructions)
def test_products_of_bfloat16_match_float64(target: Machine) -> None:
    drawn = cases("bfloat16")
    planned = Planned([graph for graph, _ in drawn], target)
    for graph, inputs in drawn:
        planned.check(graph, inputs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("height", "width", "channels", "filters"), [(14, 13, 32, 40), (9, 30, 17, 66)])
def test_winograd_in_bfloat16_is_off_by_its_roundings_alone(height: int, width: int, channels: int, filters: int):
    x, kernel = bfloat16(2, height, width, channels), bfloat16(3, 3, channels, filters)
    graph = graph_of(ops.ConvNarrow((1, 1), "same"), TensorType("uint16", x.shape), kernel)
    planned = Planned([graph], with_narrow_products(host()))
    # Sums of 9 * channels products of numbers of deviation 1, each off by about 2 * 2^-9: eight deviations of that.
    planned.check(graph, {"x0": x}, atol=16 * 2**-9 * np.sqrt(9 * channels))


def test_products_are_sums_written_out_and_not_only_what_the_op_says() -> None:
    x, kernel = integers(3, 10), integers(10, 5, dtype="int8")
    graph = graph_of(ops.DenseNarrow(), TensorType("uint8", (3, 10)), kernel)
    (y,) = Planned([graph], with_narrow_products(host()))(graph, {"x0": x}).values()
    for row in range(3):
        for unit in range(5):
            assert y[row, unit] == sum(int(a) * int(b) for a, b in zip(x[row], kernel[:, unit], strict=True))


def test_code_for_other_instructions_is_refused_where_they_are_missing() -> None:
    flags = required_flags(machine("x86-64-v4", features=("+avx512vnni", "+avx512bf16")))
    assert flags == required_flags(MACHINES["x86-64-v4"]) | {"avx512_vnni", "avx512_bf16"}


@pytest.mark.parametrize("lanes", [1, 23])
def test_quantising_rounds_ties_to_even_and_saturates(lanes: int) -> None:
    numbers = np.array([0.5, 1.5, -0.5, 2.5, -2.5, 300, -300, np.inf, -np.inf, 0.49999997, 126.5, -1e30], np.float32)
    x = np.tile(numbers, (lanes, 1)).T.copy()
    for zero in (np.uint8(0), np.uint8(255), np.int8(-128), np.int8(3)):
        graph = graph_of(
            ops.QuantizeLinear(), TensorType("float32", x.shape), np.asarray(1, np.float32), np.asarray(zero)
        )
        limits = np.iinfo(zero.dtype)
        (y,) = Planned([graph])(graph, {"x0": x}).values()
        expected = [min(max(round(v) if np.isfinite(v) else v, -1000), 1000) + int(zero) for v in numbers.tolist()]
        np.testing.assert_array_equal(y[:, 0], np.clip(expected, limits.min, limits.max))


def test_bfloat16_rounds_to_nearest_even_and_keeps_nan_and_infinity() -> None:
    bits = np.array([0x3F800000, 0x3F808000, 0x3F818000, 0x3F808001, 0x7F800000, 0xFF800000, 0x7FFFFFFF], np.uint32)
    x = bits.view(np.float32)
    graph = graph_of(ops.ToBfloat16(), TensorType("float32", x.shape))
    (y,) = Planned([graph])(graph, {"x0": x}).values()
    assert y[:6].tolist() == [0x3F80, 0x3F80, 0x3F82, 0x3F81, 0x7F80, 0xFF80]
    assert y[6] & 0x7F80 == 0x7F80
    assert y[6] & 0x7F
