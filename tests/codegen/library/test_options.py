"""Options of C libraries: small code, weights in half the bytes; and what a machine cannot hold."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kcompile
from kcompile import layers
from kcompile.codegen.library.backend import fixed
from kcompile.codegen.library.rounding import rounded
from kcompile.errors import KCompileError, TargetError
from kcompile.ir.evaluate import evaluate
from kcompile.ir.passes.pipeline import inference
from tests.codegen.library.test_backend import HERE, manifest, runs_here
from tests.edge.models import build


def memory(model: str, target: str, path: Path, **options: Any) -> dict[str, Any]:
    return manifest(kcompile.compile(build(model), target, path / "m.kcb", **options).path)["memory"]


@pytest.mark.parametrize(("model", "share"), [("cnn", 0.4), ("mlp", 0.35), ("transformer", 0.6)])
def test_small_code_is_much_smaller(model: str, share: float, tmp_path: Path):
    fast, small = (memory(model, "tvm:cortex-m7", tmp_path, optimize=o)["code_bytes"] for o in ("speed", "size"))
    assert small < share * fast


def test_layers_of_one_shape_share_their_code(tmp_path: Path):
    def code(count: int) -> int:
        stack = [layers.Dense(16, activation="relu") for _ in range(count)]
        model = kcompile.Sequential([kcompile.Input((16,), name="x"), *stack], name="m")
        path = kcompile.compile(model, "tvm:cortex-m7", tmp_path / "m.kcb", optimize="size").path
        return manifest(path)["memory"]["code_bytes"]

    assert code(6) - code(2) < 4 * 40  # a call and its arguments for each layer


def test_plain_c_holds_half_weights_as_integers(tmp_path: Path):
    whole, half = (memory("gru", "c", tmp_path, weights_dtype=dtype)["weight_bytes"] for dtype in ("f32", "f16"))
    assert half < 0.6 * whole


@runs_here
@pytest.mark.parametrize("model", ["gru", "cnn"])
def test_half_weights_take_half_the_bytes_and_give_what_rounded_weights_give(model: str, tmp_path: Path):
    whole = memory(model, f"tvm:{HERE}", tmp_path)["weight_bytes"]
    made = build(model)
    path = kcompile.compile(made, f"tvm:{HERE}", tmp_path / "m.kcb", weights_dtype="f16").path
    assert manifest(path)["memory"]["weight_bytes"] < 0.6 * whole
    graph = inference(fixed(made.trace(), "here"))
    (x,) = graph.inputs
    given = np.arange(x.type.size).reshape(x.type.static_shape()) % 7 / (1 if x.type.dtype == "int32" else 7)
    expected = next(iter(evaluate(rounded(graph), {x.name: given.astype(x.type.dtype)}).values()))
    np.testing.assert_allclose(kcompile.load(path).predict(given.astype(x.type.dtype)), expected, 1e-4, 1e-5)


def test_a_weight_that_float16_cannot_hold_is_named():
    model = kcompile.Sequential([kcompile.Input((2,), name="x"), layers.Dense(2, name="huge")], name="m")
    model.set_weights([np.full((2, 2), 1e5, np.float32), np.zeros(2, np.float32)])
    with pytest.raises(
        TargetError, match=r'"f16" holds weights up to 65504\. Received: larger ones in `huge/kernel`\.$'
    ):
        rounded(model.trace())


def wide() -> kcompile.Model:
    return kcompile.Sequential([kcompile.Input((4,), dtype="float64"), layers.Dense(2, dtype="float64", name="wide")])


def spoken() -> kcompile.Model:
    return kcompile.Sequential(
        [kcompile.Input((1,), dtype="string"), layers.StringLookup(vocabulary=["a"], name="look")]
    )


@pytest.mark.parametrize(
    ("make", "target", "options", "text"),
    [
        (wide, "tvm:cortex-m4f", {}, "cortex-m4f computes in float32 at most. Received: float64 in `wide`."),
        (spoken, "tvm:cortex-m7", {}, "at look: compiled code has no texts"),
        (wide, "tvm:cortex-m7", {"weights_dtype": "f8"}, '`weights_dtype` must be "f32" or "f16". Received: \'f8\'.'),
        (wide, "tvm:cortex-m7", {"optimize": "fast"}, '`optimize` must be "speed" or "size". Received: \'fast\'.'),
        (wide, "tvm:cortx-m7", {}, "Received: 'cortx-m7'. Did you mean cortex-m7"),
    ],
)
def test_what_cannot_be_is_refused(make: Any, target: str, options: dict[str, Any], text: str, tmp_path: Path):
    with pytest.raises(KCompileError) as error:
        kcompile.compile(make(), target, tmp_path / "m.kcb", **options)
    assert text in str(error.value)
    assert not (tmp_path / "m.kcb").exists()


def test_a_machine_with_a_float64_unit_takes_float64(tmp_path: Path):
    kcompile.compile(wide(), "tvm:cortex-m7", tmp_path / "m.kcb")
