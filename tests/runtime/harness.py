"""Small graphs, and bundles of them made without a Keras model."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from kcompile.codegen.backends import backend
from kcompile.codegen.bundle import Contents, replacing, write_bundle
from kcompile.codegen.parity import check_graph
from kcompile.ir import ops
from kcompile.ir.graph import Builder, Graph
from kcompile.ir.types import TensorType
from kcompile.runtime.bundle import MANIFEST, manifest_digest
from kcompile.runtime.reference import graph_signature

KERNEL = np.linspace(-1, 1, 20, dtype=np.float32).reshape(5, 4)


def small_graph(kernel: np.ndarray = KERNEL) -> Graph:
    """``probabilities: f32[N, 4] = softmax(pool(x) @ kernel)``, ``x: f32[N, 10, 1]``."""
    b = Builder("small")
    x = b.input("x", TensorType("float32", ("N", 10, 1)))
    with b.source("pool"):
        pooled = b(ops.MaxPool((2,), (2,)), x)
    with b.source("flatten"):
        flat = b(ops.Reshape(("N", 5)), pooled)
    with b.source("dense"):
        y = b(ops.Dense(), flat, b.constant(kernel, "dense/kernel"))
    with b.source("softmax"):
        return b.build({"probabilities": b(ops.Softmax(-1), y)})


def long_graph() -> Graph:
    """Six layers of ``tanh(x @ kernel)``, f32[N, 128]: calls that take long enough to overlap, and use the arena."""
    rng = np.random.default_rng(0)
    b = Builder("long")
    x = b.input("x", TensorType("float32", ("N", 128)))
    for i in range(6):
        with b.source(f"layer_{i}"):
            x = b(ops.Tanh(), b(ops.Dense(), x, b.constant(rng.standard_normal((128, 128), np.float32) / 8)))
    return b.build({"y": x})


def make_bundle(path: Path, graph: Graph, target: str, notes: dict[str, str] | None = None) -> Path:
    """`graph` compiled, verified and written to `path`."""
    program = backend(target).compile(graph, graph_signature(graph), notes or {})
    report = check_graph(graph, program.open(1))
    assert report.agrees
    with replacing(path) as file:
        write_bundle(file, Contents(program, notes or {}, report))
    return path


def unpacked(bundle: Path, folder: Path) -> Path:
    """The folder that unpacking `bundle` gives."""
    with zipfile.ZipFile(bundle) as archive:
        archive.extractall(folder)
    return folder


def members(bundle: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(bundle) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(path: Path, contents: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return path


def with_manifest(bundle: Path, path: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    """A bundle whose manifest says something else, with a digest that fits."""
    contents = members(bundle)
    manifest = json.loads(contents[MANIFEST])
    change(manifest)
    manifest["digest"] = manifest_digest(manifest)
    return packed(path, {**contents, MANIFEST: json.dumps(manifest).encode()})
