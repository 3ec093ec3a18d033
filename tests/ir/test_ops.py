"""What holds for every op: its rules for types, arrays, text and decomposition agree."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings

from kcompile.errors import GraphError, TypeRuleError
from kcompile.ir import dims
from kcompile.ir.evaluate import evaluate
from kcompile.ir.graph import Builder, Graph
from kcompile.ir.op import OPS, Op
from kcompile.ir.parse import parse
from kcompile.ir.text import constants_of, to_text
from kcompile.ir.types import TensorType, dtype_of, type_of
from tests.strategies import CASES, OpCase, op_cases
from tests.tolerances import KERNEL, assert_close

# A quarter of the examples for what hardly depends on them.
few = settings(max_examples=max(settings().max_examples // 4, 1))

each_op = pytest.mark.parametrize("cls", OPS.values(), ids=OPS)


def graph_of(case: OpCase) -> Graph:
    b = Builder("case")
    xs = [b.input(f"x{i}", type_of(array)) for i, array in enumerate(case.arrays)]
    return b.build(b.multi(case.op, *xs))


def inputs_of(case: OpCase) -> dict[str, np.ndarray]:
    return {f"x{i}": array for i, array in enumerate(case.arrays)}


def test_every_op_has_cases() -> None:
    assert [name for name, cls in OPS.items() if cls not in CASES] == []


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
@each_op
def test_kernel_returns_the_inferred_shapes_and_dtypes(cls: type[Op], dtype: str) -> None:
    @given(op_cases(cls, dtype))
    def check(case: OpCase) -> None:
        inferred = case.op.result_types(tuple(type_of(array) for array in case.arrays))
        with np.errstate(all="ignore"):
            assert tuple(type_of(array) for array in case.op.kernel(case.arrays)) == inferred

    check()


@each_op
def test_kernel_leaves_its_operands_alone(cls: type[Op]) -> None:
    @few
    @given(op_cases(cls))
    def check(case: OpCase) -> None:
        before = [array.copy() for array in case.arrays]
        for array in case.arrays:
            array.flags.writeable = False
        with np.errstate(all="ignore"):
            case.op.kernel(case.arrays)
        for array, copy in zip(case.arrays, before, strict=True):
            np.testing.assert_array_equal(array, copy)

    check()


@each_op
def test_float32_graph_evaluated_in_float64_gives_float64_of_the_same_value(cls: type[Op]) -> None:
    @few
    @given(op_cases(cls, "float32"))
    def check(case: OpCase) -> None:
        plain = evaluate(graph_of(case), inputs_of(case))
        precise = evaluate(graph_of(case), inputs_of(case), precision="float64")
        for name, array in plain.items():
            assert precise[name].dtype == (np.float64 if array.dtype.kind == "f" else array.dtype)
            if array.dtype.kind == "f" and not cls.op_name.startswith(_DISCONTINUOUS):
                assert_close(precise[name].astype(array.dtype), array, KERNEL["float32"], terms=64)

    check()


# Where a rounding error decides between two values.
_DISCONTINUOUS = ("floor_div", "mod", "floor", "ceil", "round", "sign", "cast", "sort")


@each_op
def test_op_reads_back_from_its_text(cls: type[Op]) -> None:
    @few
    @given(op_cases(cls))
    def check(case: OpCase) -> None:
        graph = graph_of(case)
        text = to_text(graph)
        again = parse(text, constants_of(graph))
        assert to_text(again) == text
        if not {"graph", "body"} & {field.name for field in dataclasses.fields(cls)}:
            assert again.outputs[0].op == case.op

    check()


@each_op
def test_decomposition_computes_the_same(cls: type[Op]) -> None:
    @given(op_cases(cls))
    def check(case: OpCase) -> None:
        b = Builder("decomposed")
        xs = [b.input(f"x{i}", type_of(array)) for i, array in enumerate(case.arrays)]
        ys = case.op.decompose(b, xs)
        if ys is None:
            return
        found = evaluate(b.build(ys), inputs_of(case))
        expected = evaluate(graph_of(case), inputs_of(case))
        for name, array in expected.items():
            assert_close(found[name], array, KERNEL["float64"], terms=64)

    if cls.decompose is not Op.decompose:
        check()


@each_op
def test_inference_of_a_symbolic_batch_agrees_with_inference_of_its_value(cls: type[Op]) -> None:
    @few
    @given(op_cases(cls))
    def check(case: OpCase) -> None:
        value = next((array.shape[0] for array in case.arrays if array.ndim), 0)

        def symbolic(array: np.ndarray) -> TensorType:
            shape = array.shape
            return TensorType(dtype_of(array), ("N", *shape[1:]) if shape[:1] == (value,) else shape)

        try:
            inferred = case.op.result_types(tuple(symbolic(array) for array in case.arrays))
        except GraphError:
            return  # weights must have known extents, and attributes that name the value do not fit a symbol
        exact = case.op.result_types(tuple(type_of(array) for array in case.arrays))
        assert tuple(each.bind({"N": value}) for each in inferred) == exact

    check()


@each_op
def test_too_many_operands_are_refused(cls: type[Op]) -> None:
    if any(name.startswith("*") for name in cls.operands):
        return

    @few
    @given(op_cases(cls))
    def check(case: OpCase) -> None:
        types = tuple(type_of(array) for array in case.arrays)
        extra = (TensorType("float64", ()),) * (len(cls.operands) - len(types) + 1)
        with pytest.raises(TypeRuleError):
            case.op.result_types(types + extra)

    check()


@each_op
def test_work_of_an_op_is_a_number_from_zero_on(cls: type[Op]) -> None:
    @few
    @given(op_cases(cls))
    def check(case: OpCase) -> None:
        types = tuple(type_of(array) for array in case.arrays)
        macs = case.op.macs(types, case.op.result_types(types))
        assert isinstance(macs, int)
        assert macs >= 0

    check()


def test_work_of_a_convolution_is_its_results_times_its_window() -> None:
    from kcompile.ir.ops import Conv

    x, kernel = TensorType("float32", ("N", 8, 8, 3)), TensorType("float32", (3, 3, 3, 16))
    op = Conv((2, 2), "same")
    assert op.macs((x, kernel), op.result_types((x, kernel))) == dims.mul("N", 4 * 4 * 16 * 3 * 3 * 3)
