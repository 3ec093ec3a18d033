"""C libraries: what is in a bundle, that it is exact about memory, and what is refused."""

import ctypes
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kcompile
from kcompile.codegen.backends import backend, describe
from kcompile.codegen.library.objects import contents
from kcompile.codegen.tvm.targets import MACHINES
from kcompile.errors import ArtifactError, TargetError
from kcompile.ir import ops
from kcompile.ir.graph import Builder
from kcompile.ir.types import TensorType
from kcompile.runtime.bundle import machine_misfit
from tests.codegen.tvm.harness import guarded
from tests.edge.devices import unpacked
from tests.edge.models import MODELS, build

HERE = next((n for n in ("x86-64-v2-linux", "aarch64-linux") if not machine_misfit(describe(MACHINES[n]))), "")
runs_here = pytest.mark.skipif(not HERE, reason="no library of the table runs on this machine")


def manifest(path: Path) -> dict[str, Any]:
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read("manifest.json"))


@runs_here
@pytest.mark.parametrize("at_end", [True, False])
@pytest.mark.parametrize("model", MODELS)
def test_a_run_touches_nothing_outside_its_arrays_and_workspace(model: str, at_end: bool, tmp_path: Path):
    path = kcompile.compile(build(model), f"tvm:{HERE}", tmp_path / "m.kcb").path
    folder, stated = unpacked(path, tmp_path), manifest(path)["memory"]
    samples = np.load(folder / "samples.npz")
    arrays = [guarded(samples["in0"], at_end), guarded(np.zeros_like(samples["out0"]), at_end)]
    # The page behind the workspace is reached by the first byte too many, the page before it by one too few.
    workspace = guarded(np.full(stated["workspace_bytes"], 0xFF, np.uint8), at_end)
    assert workspace.ctypes.data % stated["workspace_alignment"] == 0
    run = getattr(ctypes.CDLL(str(folder / f"lib{model}.so")), f"{model}_run")
    pointers = [ctypes.pointer(ctypes.c_void_p(array.ctypes.data)) for array in arrays]
    assert run(*pointers, ctypes.c_void_p(workspace.ctypes.data)) == 0
    np.testing.assert_allclose(arrays[1], samples["out0"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("target", ["cortex-m4f", "riscv64-linux", "wasm32", "armv7-linux"])
def test_a_library_has_no_variables_and_needs_only_memory_functions(target: str, tmp_path: Path):
    stated = manifest(kcompile.compile(build("transformer"), f"tvm:{target}", tmp_path / "m.kcb").path)["memory"]
    assert stated["variable_bytes"] == 0
    assert set(stated["needs"]) <= {"memcpy", "memset"}


def test_an_mlp_fits_a_cortex_m7(tmp_path: Path):
    stated = manifest(kcompile.compile(build("mlp"), "tvm:cortex-m7", tmp_path / "m.kcb").path)["memory"]
    assert stated["code_bytes"] < 8192
    assert stated["workspace_bytes"] < 1024


def test_equal_models_give_equal_bundles_in_two_processes_and_folders(tmp_path: Path):
    code = (
        "import kcompile; from tests.edge.models import build;"
        "[kcompile.compile(build('cnn'), f'tvm:{t}', f'{t}.kcb') for t in ('cortex-m4f', 'aarch64-linux')]"
    )
    root = Path(__file__).parents[3]
    for name in ("one", "another"):
        (tmp_path / name).mkdir()
        environment = os.environ | {"PYTHONPATH": str(root), "PYTHONHASHSEED": str(len(name))}
        subprocess.run([sys.executable, "-c", code], cwd=tmp_path / name, env=environment, check=True)
    for target in ("cortex-m4f", "aarch64-linux"):
        first, second = ((tmp_path / name / f"{target}.kcb").read_bytes() for name in ("one", "another"))
        assert first == second


@runs_here
@pytest.mark.parametrize("weights", ["embedded", "external"])
def test_a_library_of_this_machine_is_loaded_and_verified_like_any_bundle(weights: str, tmp_path: Path):
    path = kcompile.compile(build("gru"), f"tvm:{HERE}", tmp_path / "gru.kcb", weights=weights, name="other").path
    x = np.arange(12, dtype=np.int32)[None]
    expected = build("gru").predict(x)
    np.testing.assert_allclose(kcompile.load(path).predict(x), expected, rtol=1e-4, atol=1e-5)
    assert kcompile.verify(path).agrees
    assert kcompile.verify(path, against=build("gru")).agrees


@runs_here
@pytest.mark.parametrize("weights", ["embedded", "external"])
def test_the_python_loader_needs_numpy_alone(weights: str, tmp_path: Path):
    path = kcompile.compile(build("cnn"), f"tvm:{HERE}", tmp_path / "cnn.kcb", weights=weights).path
    unpacked(path, tmp_path)
    code = (
        "import sys, numpy as np, cnn; s = np.load('samples.npz');"
        "y = cnn.Model().run({'image': s['in0']})['scores'];"
        "assert np.allclose(y, s['out0'], 1e-4, 1e-5); assert not any(n.startswith('kcompile') for n in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)


def test_the_loader_is_only_where_a_shared_library_is(tmp_path: Path):
    members = manifest(kcompile.compile(build("mlp"), "tvm:cortex-m33", tmp_path / "m.kcb").path)["members"]
    names = [
        "libmlp.a",
        "mlp.h",
        "Makefile",
        "CMakeLists.txt",
        "README.md",
        "mlp.hpp",
        "mlp.rs",
        "main.c",
        "samples.npz",
        "sbom.cdx.json",
    ]
    assert list(members) == names


def test_the_archives_object_is_of_the_stated_size(tmp_path: Path):
    path = kcompile.compile(build("cnn"), "tvm:cortex-m4f", tmp_path / "m.kcb").path
    archive = zipfile.ZipFile(path).read("libcnn.a")
    found, stated = contents(archive[archive.index(b"\x7fELF") :]), manifest(path)["memory"]
    assert found.code + found.constants == stated["code_bytes"] + stated["weight_bytes"]


def test_an_open_extent_is_refused_with_the_way_to_fix_it(tmp_path: Path):
    model = kcompile.Sequential([kcompile.Input((None, 4), name="x"), kcompile.layers.GRU(3)], name="m")
    with pytest.raises(TargetError) as error:
        kcompile.compile(model, "tvm:cortex-m7", tmp_path / "m.kcb")
    assert str(error.value) == (
        "target 'tvm:cortex-m7' makes a C library, whose arrays must have known extents. "
        "Received: input `x`: f32[1, T, 4]. Fix them, for example with --shape x=1,16,4"
    )
    kcompile.compile(model, "tvm:cortex-m7", tmp_path / "m.kcb", shapes={"x": (None, 6, 4)})


def test_too_little_ram_is_refused_with_the_layer_that_sets_the_peak(tmp_path: Path):
    with pytest.raises(TargetError) as error:
        kcompile.compile(build("mlp"), "tvm:cortex-m7", tmp_path / "m.kcb", max_ram=511)
    assert str(error.value) == (
        "`max_ram` allows the workspace 511 bytes. Received: a model that needs 512, most of them (512) for layer "
        "`second`."
    )
    kcompile.compile(build("mlp"), "tvm:cortex-m7", tmp_path / "m.kcb", max_ram=512)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"max_ram": "1K"}, "`max_ram` must be a number of bytes. Received: '1K'."),
        ({"name": "a-b"}, "`name` must be a name of C without underscores at its ends. Received: 'a-b'. 'a_b' is one."),
        (
            {"opset": 18},
            "target 'tvm:cortex-m7' takes `name`, `weights`, `weights_dtype`, `max_ram`, `optimize`. "
            "Received: `opset`.",
        ),
        (
            {"cpu": "cortex-m77"},
            "`cpu` must be one that LLVM knows for thumbv7em-none-eabihf. Received: 'cortex-m77'. "
            "Did you mean cortex-m7 or cortex-a77 or cortex-r7?",
        ),
    ],
)
def test_a_wrong_option_is_refused(options: dict[str, Any], text: str, tmp_path: Path):
    with pytest.raises(TargetError) as error:
        kcompile.compile(build("mlp"), "tvm:cortex-m7", tmp_path / "m.kcb", **options)
    assert str(error.value) == text


@pytest.mark.parametrize("model", MODELS)
def test_plain_c_computes_what_the_reference_computes(model: str, tmp_path: Path):
    written = kcompile.compile(build(model), "c", tmp_path / "m.kcb")
    assert written.report.agrees
    assert list(manifest(written.path)["members"])[:2] == [f"{model}.c", f"{model}.h"]


@pytest.mark.parametrize(
    ("x", "y", "quotient", "rest"), [(7, 2, 3, 1), (-7, 2, -4, 1), (7, -2, -4, -1), (-7, -2, 3, -1), (-8, 2, -4, 0)]
)
def test_integers_are_divided_downwards_in_plain_c(x: int, y: int, quotient: int, rest: int, tmp_path: Path):
    b = Builder("halves")
    a, c = (b.input(name, TensorType("int32", (1,))) for name in "ac")
    graph = b.build([b(ops.FloorDiv(), a, c), b(ops.Mod(), a, c)])
    session = backend("c").session(graph)
    results = session.run({"a": np.array([x], np.int32), "c": np.array([y], np.int32)})
    assert [int(result[0]) for result in results.values()] == [quotient, rest]


def test_plain_c_has_no_half_precision(tmp_path: Path):
    b = Builder("half")
    graph = b.build([b(ops.Relu(), b.input("x", TensorType("float16", (1, 3))))])
    with pytest.raises(TargetError, match=r'^target "c" cannot write float16\.$'):
        backend("c").session(graph)


def test_plain_c_holds_its_weights(tmp_path: Path):
    with pytest.raises(TargetError, match=r'^`weights` must be "embedded" for target "c"'):
        kcompile.compile(build("mlp"), "c", tmp_path / "m.kcb", weights="external")


def test_a_library_of_another_machine_is_not_loaded(tmp_path: Path):
    path = kcompile.compile(build("mlp"), "tvm:cortex-m7", tmp_path / "m.kcb").path
    with pytest.raises(ArtifactError, match=r"^m\.kcb is for cortex-m7\. Received: this \w+ machine\."):
        kcompile.load(path)
