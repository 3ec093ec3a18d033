"""Layers of texts and integers against what Keras made of the same inputs.

`keras_preprocessing.json` holds calls of Keras's layers on TensorFlow, which these layers need there, and the versions.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kcompile
from kcompile.errors import InputError, ModelError, UnsupportedOp
from kcompile.frontend import layers
from kcompile.ir.types import array_dtype, dtype_of
from tests.frontend.errors import error_of
from tests.frontend.layers.support import run

RECORDED: list[dict[str, Any]] = json.loads(Path(__file__).with_name("keras_preprocessing.json").read_text("utf-8"))[
    "cases"
]
NAMES = sorted({case["layer"] for case in RECORDED})


def array_of(record: dict[str, Any]) -> np.ndarray:
    return np.array(record["value"], array_dtype(record["dtype"]))


def layer_of(case: dict[str, Any]) -> Any:
    return getattr(layers, case["layer"])(**case["arguments"])


def agrees(found: np.ndarray, expected: np.ndarray) -> bool:
    same = found.shape == expected.shape and dtype_of(found) == dtype_of(expected)
    return same and bool((np.isclose(found, expected) if found.dtype.kind == "f" else found == expected).all())


@pytest.mark.parametrize("name", NAMES)
def test_layers_compute_what_keras_does(name: str) -> None:
    cases = [case for case in RECORDED if case["layer"] == name]
    wrong: list[str] = []
    for case in cases:
        expected = array_of(case["output"])
        found = run(layer_of(case), *map(array_of, case["inputs"]))
        if not agrees(found, expected):
            wrong.append(f"{case['arguments']}: {found.tolist()}, in Keras {expected.tolist()}")
    assert not wrong, f"{len(wrong)} of {len(cases)}:\n" + "\n".join(wrong[:10])


# Each kind of refusal, by target.
REASONS = {
    "onnx": ("ONNX has no hashes of texts", "ONNX cannot split texts into characters"),
    "tvm": ("compiled code has no texts",),
}


def model_of(case: dict[str, Any]) -> kcompile.Model:
    inputs = [kcompile.Input(x.shape[1:], dtype=dtype_of(x)) for x in map(array_of, case["inputs"])]
    return kcompile.Model(inputs, layer_of(case)(inputs if len(inputs) > 1 else inputs[0]))


@pytest.mark.parametrize(("target", "every"), [("onnx", 9), ("tvm", 41)])
def test_both_targets_agree_or_say_why_not(target: str, every: int, tmp_path: Path) -> None:
    refusals: list[str] = []
    for case in RECORDED[::every]:
        path = tmp_path / "model.kcb"
        try:
            kcompile.compile(model_of(case), target, path)
        except UnsupportedOp as error:
            refusals.append(str(error))
            continue
        expected = array_of(case["output"])
        feeds = [array_of(x) for x in case["inputs"]]
        assert agrees(kcompile.load(path).predict(feeds), expected), case
        assert kcompile.verify(path).agrees
    assert all(refusal.endswith(REASONS[target]) for refusal in refusals), refusals
    assert 0 < len(refusals) < len(RECORDED[::every])


def test_texts_come_as_objects_bytes_and_lists(tmp_path: Path) -> None:
    words = kcompile.Input((2,), dtype="string")
    model = kcompile.Model(words, layers.StringLookup(vocabulary=["é", "b"])(words))
    kcompile.compile(model, "onnx", tmp_path / "model.onnx")
    session = kcompile.load(tmp_path / "model.onnx")
    x = [["b", "é"], ["c", ""]]
    for given in (x, np.array(x), np.array(x, object), np.char.encode(np.array(x), "utf-8")):
        np.testing.assert_array_equal(session.predict(given), [[2, 1], [0, 0]])
    (name,) = session.inputs
    (y,) = session.run({name: np.array(x, object)}).values()
    np.testing.assert_array_equal(y, [[2, 1], [0, 0]])
    for wrong in (np.zeros((2, 2)), np.array([[1, "a"]], object)):
        assert error_of(InputError, lambda wrong=wrong: session.predict(wrong)).startswith(
            f"input `{name}` must hold texts (str, or bytes of UTF-8). Received: "
        )


REFUSED: list[tuple[Any, str]] = [
    (
        lambda: layers.StringLookup(vocabulary=["a", "a"], name="s"),
        "`vocabulary` of layer `s` must be without repetitions and without the mask token.",
    ),
    (
        lambda: layers.StringLookup(vocabulary="/etc/words.txt", name="s"),
        "`vocabulary` of layer `s` must be a list; a file outside of the model is not read.",
    ),
    (lambda: layers.StringLookup(name="s"), "`vocabulary` of layer `s` must be given: the layer was never adapted."),
    (
        lambda: layers.TextVectorization(vocabulary=["a"], name="t")(kcompile.Input((1,), dtype="string")),
        "`output_sequence_length` of layer `t` must be given, to know the shape of the result",
    ),
    (
        lambda: layers.StringLookup(vocabulary=["a"], name="s")(kcompile.Input((1,))),
        'layer `s` takes texts: Input(shape, dtype="string"). Received: f32[N, 1].',
    ),
    (lambda: layers.Hashing(3, salt="x", name="h"), "`salt` of layer `h` must be an integer or two."),
]


@pytest.mark.parametrize(("make", "text"), REFUSED)
def test_what_has_no_meaning_is_refused(make: Any, text: str) -> None:
    assert error_of(ModelError, make).startswith(text)
