"""A model that breaks ONNX's rules, or whose types are not the IR's, is an error of ours and never written."""

import numpy as np
import onnx
import pytest

from kcompile.codegen.onnx.check import check
from kcompile.errors import GraphError
from kcompile.ir.types import TensorType


def _model(op_type: str) -> onnx.ModelProto:
    info = onnx.helper.make_tensor_value_info
    nodes = [onnx.helper.make_node(op_type, ["x", "w"], ["y"]), onnx.helper.make_node("Relu", ["y"], ["z"])]
    inputs, outputs = [info("x", 1, ["N", 3])], [info("z", 1, ["N", 4])]
    graph = onnx.helper.make_graph(nodes, "g", inputs, outputs)
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=9)


WEIGHTS = {"w": np.ones((3, 4), np.float32)}


def test_the_irs_types_are_declared() -> None:
    model = _model("MatMul")
    check(model, WEIGHTS, {"y": TensorType("float32", ("N", 4))})
    assert [value.name for value in model.graph.value_info] == ["y"]
    assert not model.graph.initializer


@pytest.mark.parametrize(
    "wrong", [TensorType("float32", ("N", 5)), TensorType("float64", ("N", 4)), TensorType("float32", ("N", 4, 1))]
)
def test_types_that_are_not_the_irs_are_refused(wrong: TensorType) -> None:
    with pytest.raises(GraphError, match=r"types that ONNX infers must be the IR's. Received:\n  y: "):
        check(_model("MatMul"), WEIGHTS, {"y": wrong})


def test_what_the_checker_refuses_is_refused() -> None:
    for op_type in ("NoSuchOperator", "Concat"):
        with pytest.raises(GraphError, match="must pass ONNX's checker"):
            check(_model(op_type), WEIGHTS, {})
