"""Every elementwise op on vectors, and chains of them with numpy broadcasting."""

import math
from dataclasses import fields

import numpy as np
import pytest

from kcompile.codegen.tvm.vector import VECTOR
from kcompile.ir import ops
from kcompile.ir.evaluate import evaluate
from kcompile.ir.graph import Builder
from kcompile.ir.op import Binary, Op, Unary
from kcompile.ir.types import TensorType
from tests.codegen.tvm.harness import Array
from tests.codegen.tvm.model import Model

LOGICAL = (ops.And, ops.Or, ops.Not)
ATTRIBUTES: dict[type[Op], Op] = {
    ops.LeakyRelu: ops.LeakyRelu(0.3),
    ops.Clip: ops.Clip(-0.5, math.inf),
    ops.HardSigmoid: ops.HardSigmoid(0.2),
    ops.Elu: ops.Elu(0.7),
    ops.Celu: ops.Celu(1.3),
    ops.Gelu: ops.Gelu(approximate=True),
}
SPECIAL = np.array(
    [np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-40, 88.0, -100.0, 1e30, -1e30, 0.5, -0.5, 1.0, -1.0], np.float32
)


def instance(cls: type[Op]) -> Op:
    return ATTRIBUTES.get(cls) or cls(*[field.default for field in fields(cls)])


def of_kind(kind: type) -> list[Op]:
    classes = [c for c in VECTOR.lowerings if issubclass(c, kind) and c not in LOGICAL]
    return [instance(cls) for cls in sorted(classes, key=lambda c: c.op_name)] + ([ops.Gelu()] if kind is Unary else [])


UNARY, BINARY = of_kind(Unary), of_kind(Binary)


@pytest.fixture(scope="module")
def floats() -> Model:
    """Each op on ``x`` (and ``y``) of one open extent."""
    b = Builder()
    x, y = (b.input(name, TensorType("float32", ("N",))) for name in "xy")
    outputs = {f"unary{i}": b(op, x) for i, op in enumerate(UNARY)}
    outputs |= {f"binary{i}": b(op, x, y) for i, op in enumerate(BINARY)}
    return Model(b.build(outputs))


def assert_close(op: Op, result: Array, *operands: Array) -> None:
    """Equal up to rounding; NaN and infinity where the op has them."""
    with np.errstate(all="ignore"):
        (expected,) = op.kernel(tuple(x.astype(np.float64) for x in operands))
        expected = expected.astype(np.float32)
    message = f"{op} of {[x.tolist() for x in operands]}" if operands[0].size < 20 else str(op)
    np.testing.assert_allclose(
        result, expected, rtol=2e-6, atol=1e-6 * min(1, np.nanmax(np.abs(operands[0]))), err_msg=message
    )


@pytest.mark.parametrize("size", [0, 1, 15, 16, 23, 4097])
def test_elementwise_ops_match_float64(floats: Model, size: int, rng: np.random.Generator):
    x, y = (rng.normal(scale=2, size=size).astype(np.float32) for _ in "xy")
    results = floats.run({"x": x, "y": y}, threads=2)
    for i, op in enumerate(UNARY if size else []):
        assert_close(op, results[f"unary{i}"], x)
    for i, op in enumerate(BINARY if size else []):
        if not isinstance(op, ops.FloorDiv | ops.Mod):  # a rounded quotient may fall on the other side of an integer
            assert_close(op, results[f"binary{i}"], x, y)


def test_elementwise_ops_of_special_numbers(floats: Model):
    x, y = (part.ravel() for part in np.meshgrid(SPECIAL, SPECIAL))
    results = floats.run({"x": x, "y": y})
    for i, op in enumerate(UNARY):
        same_kind(op, results[f"unary{i}"], x)
    for i, op in enumerate(BINARY):
        if not isinstance(op, ops.FloorDiv | ops.Mod):  # NumPy's own are NaN where ``floor(x / y)`` is infinite
            same_kind(op, results[f"binary{i}"], x, y)


def test_floor_division_and_remainder_of_exact_quotients(floats: Model):
    x, y = (part.ravel().astype(np.float32) for part in np.meshgrid(np.arange(-20, 20) / 4, [0.5, -0.5, 2, -2, 0.25]))
    results = floats.run({"x": x, "y": y})
    np.testing.assert_array_equal(results[f"binary{BINARY.index(ops.FloorDiv())}"], np.floor_divide(x, y))
    np.testing.assert_array_equal(results[f"binary{BINARY.index(ops.Mod())}"], np.mod(x, y))


def same_kind(op: Op, result: Array, *operands: Array) -> None:
    """NaN exactly where the op gives NaN, and the same infinities."""
    with np.errstate(all="ignore"):
        (expected,) = op.kernel(operands)
    for i, values in enumerate(zip(*operands, strict=True)):
        nan = np.isnan(expected[i])
        assert np.isnan(result[i]) == nan, f"{op} of {values}: {result[i]}, not {expected[i]}"
        if np.isinf(expected[i]) or np.isinf(result[i]):
            assert result[i] == expected[i], f"{op} of {values}: {result[i]}, not {expected[i]}"


@pytest.fixture(scope="module")
def integers() -> Model:
    b = Builder()
    outputs = {}
    for dtype in ("int32", "int64", "uint8"):
        x, y = (b.input(f"{name}_{dtype}", TensorType(dtype, ("N",))) for name in "xy")
        arithmetic = (ops.Add(), ops.Sub(), ops.Mul(), ops.FloorDiv(), ops.Mod(), ops.Div())
        for op in (*arithmetic, ops.Maximum(), ops.Minimum(), ops.And(), ops.Or()):
            outputs[f"{op.op_name}_{dtype}"] = b(op, x, y)
        outputs[f"not_{dtype}"] = b(ops.Not(), x)
        for relation in ("==", "!=", "<", "<=", ">", ">="):
            outputs[f"{relation}_{dtype}"] = b(ops.Compare(relation), x, y)
        for target in ("float32", "int32", "bool", "float64", "int8"):
            outputs[f"to_{target}_{dtype}"] = b(ops.Cast(target), x)
        chosen = b(ops.And(), outputs[f"<_{dtype}"], b(ops.Not(), outputs[f"==_{dtype}"]))
        outputs[f"where_{dtype}"] = b(ops.Where(), b(ops.Or(), chosen, outputs[f">_{dtype}"]), x, y)
    f = b.input("f", TensorType("float32", ("N",)))
    for target in ("int32", "bool", "float16", "uint8"):
        outputs[f"float_to_{target}"] = b(ops.Cast(target), f)
    half = b(ops.Cast("float16"), f)
    outputs["half"] = b(ops.Mul(), b(ops.Tanh(), half), half)
    return Model(b.build(outputs))


@pytest.mark.parametrize("size", [1, 37])
def test_integers_and_bools_match_numpy(integers: Model, size: int, rng: np.random.Generator):
    inputs = {}
    for name, t in integers.graph.input_types.items():
        if name == "f":
            inputs[name] = np.abs(rng.normal(size=size) * 20).astype(np.float32)
        else:
            low = 1 if t.dtype == "uint8" else -40
            values = rng.integers(low, 40, size)
            inputs[name] = np.where(values == 0, 1, values).astype(t.dtype)
    expected = evaluate(integers.graph, inputs)
    for name, result in integers.run(inputs).items():
        if name == "half":
            np.testing.assert_allclose(result, expected[name], rtol=2e-3)
        else:
            np.testing.assert_array_equal(result, expected[name], err_msg=name)


BROADCASTS = [
    (("N", 5, 7), (5, 1), (7,)),
    (("N", 1, 33), ("N", 4, 1), ()),
    (("N", 6), (1, 6), ("N", 1)),
    ((3, "N", 2), ("N", 1), (3, 1, 2)),
    ((1, 1), (1,), ()),
    (("N", 2, 3, 4), ("N", 1, 1, 4), (2, 3, 1)),
]


@pytest.fixture(scope="module")
def chains() -> Model:
    """One kernel per case of broadcasts."""
    b = Builder()
    outputs = {}
    for i, shapes in enumerate(BROADCASTS):
        x, y, z = (b.input(f"{name}{i}", TensorType("float32", s)) for name, s in zip("xyz", shapes, strict=True))
        product = b(ops.Mul(), x, y)
        outputs[f"r{i}"] = b(ops.Sub(), b(ops.Relu(), b(ops.Add(), product, z)), b(ops.Sigmoid(), product))
    return Model(b.build(outputs))


@pytest.mark.parametrize(("batch", "threads"), [(0, 1), (1, 1), (3, 2), (300, 3)])
def test_chains_broadcast_as_numpy_does(chains: Model, batch: int, threads: int, rng: np.random.Generator):
    types = {name: t.bind({"N": batch}) for name, t in chains.graph.input_types.items()}
    inputs = {name: rng.normal(size=t.static_shape()).astype(np.float32) for name, t in types.items()}
    expected = evaluate(chains.graph, inputs, precision="float64")
    for name, result in chains.run(inputs, threads).items():
        np.testing.assert_allclose(result, expected[name], rtol=1e-5, atol=1e-6, err_msg=name)


def test_a_chain_is_one_kernel(chains: Model):
    assert [call.family for call in chains.compiled.calls] == ["elementwise"] * len(BROADCASTS)
