"""What an emitted file says of itself: names, versions, types, notes; and that it is the same every time."""

import subprocess
import sys

import numpy as np
import onnx
import pytest

from kcompile.codegen.onnx import emit, engine, lower_to_onnx
from kcompile.errors import TargetError
from kcompile.ir import ops
from kcompile.ir.graph import Builder, Graph
from kcompile.ir.types import TensorType
from tests.codegen.onnx.harness import check, draw, run, session


def small(rng: np.random.Generator) -> Graph:
    """A convolution and a recurrent layer over an open length, with two outputs."""
    b = Builder("small")
    x = b.input("input_layer", TensorType("float32", ("N", "T", 4)))
    with b.source("encoder/conv1"):
        kernel = b.constant(draw(TensorType("float32", (3, 4, 6)), rng), "encoder/conv1/kernel")
        x = b(ops.Relu(), b(ops.Conv((2,), "same"), x, kernel))
    with b.source("lstm"):
        weights = [draw(TensorType("float32", s), rng) for s in ((6, 20), (5, 20), (20,))]
        names = ("lstm/kernel", "lstm/recurrent_kernel", "lstm/bias")
        constants = [b.constant(w, name) for w, name in zip(weights, names, strict=True)]
        sequence, last, _ = b.multi(ops.Lstm(), x, *constants)
    return b.build({"steps": sequence, "lstm": last})


def test_inputs_and_outputs_have_the_graphs_names_and_open_extents(rng: np.random.Generator) -> None:
    model = emit(small(rng), metadata={}).message()

    def described(values: object) -> list[tuple[str, list[object]]]:
        return [(v.name, [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim]) for v in values]  # type: ignore[attr-defined]

    assert described(model.graph.input) == [("input_layer", ["N", "T", 4])]
    assert described(model.graph.output) == [("steps", ["N", "(T+1)//2", 5]), ("lstm", ["N", 5])]
    assert {"encoder/conv1/Relu": ["N", "(T+1)//2", 6]}.items() <= dict(described(model.graph.value_info)).items()


def test_nodes_and_weights_are_named_after_their_keras_layers(rng: np.random.Generator) -> None:
    model = emit(small(rng), metadata={}).message()
    layers = {node.name.rpartition("/")[0] for node in model.graph.node}
    assert layers == {"encoder/conv1", "lstm"}
    weights = {tensor.name for tensor in model.graph.initializer}
    assert {"encoder/conv1/kernel", "lstm/kernel", "lstm/recurrent_kernel", "lstm/bias"} <= weights


def test_names_are_unique_whatever_layers_are_called(rng: np.random.Generator) -> None:
    b = Builder("names")
    x = b.input("a/Relu", TensorType("float32", ("N", 2)))
    for _ in range(2):
        with b.source("a"):
            x = b(ops.Dense(), b(ops.Relu(), x), b.constant(draw(TensorType("float32", (2, 2)), rng), "a/Relu_1"))
    with b.source("b"):
        y = b(ops.Tanh(), x)
    model = check(b.build({"a/Relu_2": x, "b": y, "a/MatMul": b(ops.Sigmoid(), y)}), {"a/Relu": np.ones((1, 2), "f4")})
    names = [name for node in model.graph.node for name in node.output]
    assert len(set(names)) == len(names)
    assert len({node.name for node in model.graph.node}) == len(model.graph.node)


def test_outputs_may_be_inputs_constants_or_each_other(rng: np.random.Generator) -> None:
    b = Builder("plain")
    x = b.input("x", TensorType("float32", ("N", 2)))
    y = b(ops.Relu(), x)
    constant = b.constant(np.array([1, 2], np.float32))
    model = check(
        b.build({"x": x, "copy": x, "first": y, "second": y, "third": constant}), {"x": np.ones((3, 2), "f4")}
    )
    assert [value.name for value in model.graph.output] == ["x", "copy", "first", "second", "third"]


def test_an_output_with_the_name_of_another_input_is_refused() -> None:
    b = Builder("clash")
    x = b.input("x", TensorType("float32", ("N", 2)))
    with pytest.raises(TargetError) as caught:
        emit(b.build({"x": b(ops.Relu(), x)}), metadata={})
    law = "an ONNX output must not have the name of another input."
    assert str(caught.value) == f"{law} Received: `x` for both."


def test_metadata_and_producer_are_written_in_order(rng: np.random.Generator) -> None:
    model = emit(
        small(rng), metadata={"keras_version": "3.1", "kcompile_version": "1", "source_sha256": "ab"}
    ).message()
    assert [(p.key, p.value) for p in model.metadata_props] == [
        ("kcompile_version", "1"),
        ("keras_version", "3.1"),
        ("source_sha256", "ab"),
    ]
    assert model.producer_name == "kcompile"


def test_the_newest_opset_that_the_engine_opens_is_used(rng: np.random.Generator) -> None:
    opset, ir_version = engine.versions()
    model = emit(small(rng), metadata={}).message()
    assert (model.opset_import[0].version, model.ir_version, len(model.opset_import)) == (opset, ir_version, 1)
    model.opset_import[0].version = opset + 1
    with pytest.raises(engine.REFUSALS):
        session(model)


@pytest.mark.parametrize("opset", [20, 21, 22, 23])
def test_older_opsets_can_be_asked_for(opset: int, rng: np.random.Generator) -> None:
    graph = small(rng)
    model = emit(graph, metadata={}, opset=opset).message()
    assert model.opset_import[0].version == opset
    inputs = {"input_layer": draw(graph.inputs[0].type, rng, N=2, T=7)}
    for name, array in run(emit(graph, metadata={}).message(), inputs).items():
        np.testing.assert_allclose(run(model, inputs)[name], array, 1e-5, 1e-6)


@pytest.mark.parametrize("opset", [1, 19, 1000])
def test_other_opsets_are_refused(opset: int, rng: np.random.Generator) -> None:
    newest, _ = engine.versions()
    with pytest.raises(TargetError) as caught:
        emit(small(rng), metadata={}, opset=opset)
    law = f"`opset` must be from 20 to {newest}, the newest that the installed ONNX Runtime opens."
    assert str(caught.value) == f"{law} Received: {opset}."


def test_a_file_passes_the_full_check_as_it_is_written(rng: np.random.Generator) -> None:
    content = lower_to_onnx(small(rng), metadata={})
    onnx.checker.check_model(content, full_check=True)


def test_weights_used_twice_are_stored_once(rng: np.random.Generator) -> None:
    b = Builder("shared")
    x, z = (b.input(name, TensorType("float32", ("N", 64))) for name in ("x", "z"))
    kernel = draw(TensorType("float32", (64, 64)), rng)
    model = emit(b.build([b(ops.Dense(), v, b.constant(kernel.copy())) for v in (x, z)]), metadata={}).message()
    assert len(model.graph.initializer) == 1


_SCRIPT = """
import hashlib
import numpy as np
from kcompile.codegen.onnx import lower_to_onnx
from tests.codegen.onnx.test_emit import small
content = lower_to_onnx(small(np.random.default_rng(3)), metadata={"b": "1", "a": "2"})
print(hashlib.sha256(content).hexdigest())
"""


def test_the_same_graph_gives_the_same_bytes_in_every_process() -> None:
    digests = {
        subprocess.run(
            [sys.executable, "-c", _SCRIPT], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": seed}
        ).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1


def test_content_is_what_protobuf_would_write(rng: np.random.Generator) -> None:
    b = Builder("dtypes")
    x = b.input("x", TensorType("float32", ("N", 3)))
    kernel = b.constant(draw(TensorType("float32", (40, 3)), rng).T, "dense/kernel")
    tables = [np.ones((3, 1), np.float16), np.array(True), np.zeros((0, 2), np.int8), np.arange(300)]
    emitted = emit(b.build([b(ops.Dense(), x, kernel), *map(b.constant, tables)]), metadata={"a": "1"})
    message = onnx.ModelProto.FromString(emitted.content())
    assert message.SerializeToString(deterministic=True) == emitted.content()
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in message.graph.initializer}
    assert stored.keys() == emitted.initializers.keys()
    assert all(np.array_equal(stored[name], array) for name, array in emitted.initializers.items())
