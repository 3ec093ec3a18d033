"""Functions of keras.ops in graphs, as Keras 3 writes them, against NumPy."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from kcompile.errors import ModelError, UnsupportedLayer
from kcompile.frontend import model_from_json
from kcompile.frontend.operations import OPERATIONS
from tests.frontend.errors import error_of

X = {"class_name": "__keras_tensor__", "config": {"keras_history": ["x", 0, 0]}}
WHOLE = {"class_name": "__slice__", "config": {"start": None, "stop": None, "step": None}}


def sliced(start: int | None = None, stop: int | None = None, step: int | None = None) -> dict[str, Any]:
    return {"class_name": "__slice__", "config": {"start": start, "stop": stop, "step": step}}


def text_of(name: str, args: Sequence[Any], config: dict[str, Any], module: str = "numpy", outputs: int = 1) -> str:
    """The config of a model of one operation on an input f32[N, 4, 6]."""
    entry = {"class_name": "InputLayer", "module": "keras.layers", "name": "x", "inbound_nodes": []}
    entry["config"] = {"name": "x", "batch_shape": [None, 4, 6], "dtype": "float32"}
    node = {"args": list(args), "kwargs": {}}
    operation = {"class_name": name, "module": f"keras.src.ops.{module}", "registered_name": name, "name": "f"}
    layers = [entry, {**operation, "config": {"name": "f", **config}, "inbound_nodes": [node]}]
    ends = {"input_layers": ["x", 0, 0], "output_layers": [["f", 0, i] for i in range(outputs)]}
    functional = {"class_name": "Functional", "module": "keras.src.models.functional"}
    return json.dumps({**functional, "config": {"name": "m", "layers": layers, **ends}})


CASES: list[tuple[str, list[Any], dict[str, Any], Callable[[np.ndarray], np.ndarray]]] = [
    ("Add", [X, 2], {}, lambda x: x + 2),
    ("Subtract", [1, X], {}, lambda x: 1 - x),
    ("Divide", [X, X], {}, lambda x: np.ones_like(x)),
    ("Power", [X, 2.0], {}, lambda x: x**2),
    ("NotEqual", [X, 0], {}, lambda x: x != 0),
    ("Any", [X], {"axis": -1, "keepdims": False}, lambda x: np.any(x, -1)),
    ("Sum", [X], {"axis": [1, 2], "keepdims": True}, lambda x: x.sum((1, 2), keepdims=True)),
    ("Max", [X], {"axis": 1, "keepdims": False, "initial": None}, lambda x: x.max(1)),
    ("Var", [X], {"axis": 2}, lambda x: x.var(2)),
    ("Argmax", [X], {"axis": 2, "keepdims": True}, lambda x: x.argmax(2, keepdims=True)),
    ("Clip", [X], {"x_min": -0.5, "x_max": 0.25}, lambda x: x.clip(-0.5, 0.25)),
    ("Reshape", [X], {"newshape": [-1, 3, 8]}, lambda x: x.reshape(-1, 3, 8)),
    ("Transpose", [X], {"axes": [0, 2, 1]}, lambda x: x.transpose(0, 2, 1)),
    ("ExpandDims", [X], {"axis": [1, -1]}, lambda x: x[:, None, ..., None]),
    ("Concatenate", [[X, X]], {"axis": -1}, lambda x: np.concatenate([x, x], -1)),
    ("Stack", [[X, X]], {"axis": 1}, lambda x: np.stack([x, x], 1)),
    ("Pad", [X], {"pad_width": [[0, 0], [1, 2], [0, 1]]}, lambda x: np.pad(x, ((0, 0), (1, 2), (0, 1)))),
    ("Flip", [X], {"axis": 1}, lambda x: x[:, ::-1]),
    ("GetItem", [X, [WHOLE, -1]], {}, lambda x: x[:, -1]),
    ("GetItem", [X, [WHOLE, sliced(1, -1), sliced(None, None, -2)]], {}, lambda x: x[:, 1:-1, ::-2]),
    ("GetItem", [X, [WHOLE, sliced(3, 0, -2)]], {}, lambda x: x[:, 3:0:-2]),
    ("GetItem", [X, [sliced(1, None)]], {}, lambda x: x[1:]),
    ("GetItem", [X, [{"class_name": "__ellipsis__", "config": {}}, None, 2]], {}, lambda x: x[..., None, 2]),
    ("Where", [True, X, 0.0], {}, lambda x: x),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]} {json.dumps(case[2])}")
def test_operation_does_as_numpy(case: Any, rng: np.random.Generator) -> None:
    name, args, config, meaning = case
    x = rng.normal(size=(3, 4, 6)).astype(np.float32)
    got = model_from_json(text_of(name, args, config)).predict(x)
    expected = meaning(x)
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_parts_of_a_split_are_outputs_of_their_own(rng: np.random.Generator) -> None:
    x = rng.normal(size=(3, 4, 6)).astype(np.float32)
    model = model_from_json(text_of("Split", [X], {"indices_or_sections": 3, "axis": 2}, outputs=3))
    for got, expected in zip(model.predict(x), np.split(x, 3, 2), strict=True):
        np.testing.assert_array_equal(got, expected)


def test_a_number_takes_the_kind_of_the_tensor() -> None:
    halved = {"class_name": "__keras_tensor__", "config": {"keras_history": ["x", 0, 0]}}
    config = json.loads(text_of("Divide", [halved, 2], {}))
    config["config"]["layers"][0]["config"]["dtype"] = "int32"
    y = model_from_json(json.dumps(config)).predict(np.full((1, 4, 6), 3))
    assert y.dtype == np.float32
    assert y.max() == 1.5
    config["config"]["layers"][1]["class_name"] = "Multiply"
    y = model_from_json(json.dumps(config)).predict(np.full((1, 4, 6), 3))
    assert y.dtype == np.int32
    assert y.max() == 6


@pytest.mark.parametrize(
    ("name", "args", "config", "text"),
    [
        (
            "Reshape",
            [X],
            {"newshape": [7, 3]},
            "a tensor f32[N, 4, 6] cannot be given the shape (7, 3).",
        ),
        (
            "Sum",
            [X],
            {"axis": 5},
            "`axis` must name axes of a tensor with 3 of them. Received: axis=5.",
        ),
        (
            "GetItem",
            [X, "text"],
            {},
            "a tensor is indexed by numbers, slices, None and `...`. Received: 'text'.",
        ),
    ],
)
def test_arguments_that_do_not_fit_are_refused(name: str, args: list[Any], config: dict[str, Any], text: str) -> None:
    assert error_of(ModelError, lambda: model_from_json(text_of(name, args, config))) == text


def test_arguments_of_other_names_are_refused() -> None:
    text = error_of(ModelError, lambda: model_from_json(text_of("Sum", [X], {"sideways": 1})))
    assert text.startswith("operation `f` does not take these arguments: Value, sideways=1 (")


def test_operations_that_are_missing_are_named() -> None:
    assert "Qr" not in OPERATIONS
    assert error_of(UnsupportedLayer, lambda: model_from_json(text_of("Qr", [X], {}, "linalg"))) == (
        "the config uses a layer kcompile cannot compile:\n"
        "  `f`  (keras.ops: Qr)  at m/f\n"
        '  Register a converter with @kcompile.register_layer("keras.ops>Qr"), or see `kcompile layers`.'
    )
