"""kcompile: an ahead-of-time compiler and inference runtime for Keras models.

    kcompile.compile("model.h5", target="onnx", output="model.onnx")
    kcompile.load("model.onnx").predict(x)

The names here are the public ones, loaded when they are first used: importing kcompile costs numpy and no more.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kcompile import callbacks, constraints, errors, layers, losses, metrics, optimizers, regularizers
    from kcompile.api import Artifact, compile, load, load_model, verify
    from kcompile.errors import KCompileError
    from kcompile.frontend import Input, Layer, Model, Sequential, model_from_json, register_layer
    from kcompile.frontend.drawing import plot_history, plot_model
    from kcompile.runtime import Session

    __version__: str

__all__ = [
    "Artifact",
    "Input",
    "KCompileError",
    "Layer",
    "Model",
    "Sequential",
    "Session",
    "__version__",
    "callbacks",
    "compile",
    "constraints",
    "errors",
    "layers",
    "load",
    "load_model",
    "losses",
    "metrics",
    "model_from_json",
    "optimizers",
    "plot_history",
    "plot_model",
    "register_layer",
    "regularizers",
    "verify",
]

_MODULES = {
    "callbacks",
    "constraints",
    "errors",
    "layers",
    "losses",
    "metrics",
    "optimizers",
    "regularizers",
}

_HOMES = {
    "Artifact": "kcompile.api",
    "Input": "kcompile.frontend",
    "KCompileError": "kcompile.errors",
    "Layer": "kcompile.frontend",
    "Model": "kcompile.frontend",
    "Sequential": "kcompile.frontend",
    "Session": "kcompile.runtime",
    "compile": "kcompile.api",
    "load": "kcompile.api",
    "load_model": "kcompile.api",
    "model_from_json": "kcompile.frontend",
    "plot_history": "kcompile.frontend.drawing",
    "plot_model": "kcompile.frontend.drawing",
    "register_layer": "kcompile.frontend",
    "verify": "kcompile.api",
}


def __getattr__(name: str) -> Any:
    """The public name, from the module that it lives in."""
    if name == "__version__":
        from importlib.metadata import version

        value: Any = version("kcompile")
    elif name in _MODULES:
        value = importlib.import_module(f"kcompile.{name}")
    elif name in _HOMES:
        value = getattr(importlib.import_module(_HOMES[name]), name)
    else:
        raise AttributeError(f"module 'kcompile' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
