"""kcompile: an ahead-of-time compiler and inference runtime for Keras models.

    kcompile.compile("model.h5", target="onnx", output="model.onnx")
    kcompile.load("model.onnx").predict(x)

The names here are the public ones, loaded when they are first used: importing kcompile costs numpy and no more.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kcompile import (
        activations,
        backend,
        callbacks,
        config,
        constraints,
        errors,
        initializers,
        layers,
        losses,
        metrics,
        mixed_precision,
        models,
        ops,
        optimizers,
        random,
        regularizers,
        saving,
        tune,
        utils,
    )
    from kcompile.api import Artifact, compile, load, load_model, verify
    from kcompile.errors import KCompileError
    from kcompile.frontend import Input, Layer, Model, Sequential, model_from_json, model_from_yaml, register_layer
    from kcompile.frontend.drawing import plot_history, plot_model
    from kcompile.frontend.initializers import Initializer
    from kcompile.frontend.tracing import KerasTensor
    from kcompile.frontend.training.function import function
    from kcompile.frontend.training.losses.base import Loss
    from kcompile.frontend.training.metrics.base import Metric
    from kcompile.frontend.training.optimizers.base import Optimizer
    from kcompile.frontend.training.regularizers import Regularizer
    from kcompile.frontend.training.tape import GradientTape
    from kcompile.frontend.variables import Variable
    from kcompile.runtime import Session

    __version__: str

__all__ = [
    "Artifact",
    "GradientTape",
    "Initializer",
    "Input",
    "KCompileError",
    "KerasTensor",
    "Layer",
    "Loss",
    "Metric",
    "Model",
    "Optimizer",
    "Regularizer",
    "Sequential",
    "Session",
    "Variable",
    "__version__",
    "activations",
    "backend",
    "callbacks",
    "compile",
    "config",
    "constraints",
    "errors",
    "function",
    "initializers",
    "layers",
    "load",
    "load_model",
    "losses",
    "metrics",
    "mixed_precision",
    "model_from_json",
    "model_from_yaml",
    "models",
    "ops",
    "optimizers",
    "plot_history",
    "plot_model",
    "random",
    "register_layer",
    "regularizers",
    "saving",
    "tune",
    "utils",
    "verify",
]

_MODULES = {
    "activations",
    "backend",
    "callbacks",
    "config",
    "constraints",
    "errors",
    "initializers",
    "layers",
    "losses",
    "metrics",
    "mixed_precision",
    "models",
    "ops",
    "optimizers",
    "random",
    "regularizers",
    "saving",
    "tune",
    "utils",
}

_HOMES = {
    "Artifact": "kcompile.api",
    "GradientTape": "kcompile.frontend.training.tape",
    "Initializer": "kcompile.frontend.initializers",
    "Input": "kcompile.frontend",
    "KCompileError": "kcompile.errors",
    "KerasTensor": "kcompile.frontend.tracing",
    "Layer": "kcompile.frontend",
    "Loss": "kcompile.frontend.training.losses.base",
    "Metric": "kcompile.frontend.training.metrics.base",
    "Model": "kcompile.frontend",
    "Optimizer": "kcompile.frontend.training.optimizers.base",
    "Regularizer": "kcompile.frontend.training.regularizers",
    "Sequential": "kcompile.frontend",
    "Session": "kcompile.runtime",
    "Variable": "kcompile.frontend.variables",
    "compile": "kcompile.api",
    "function": "kcompile.frontend.training.function",
    "load": "kcompile.api",
    "load_model": "kcompile.api",
    "model_from_json": "kcompile.frontend",
    "model_from_yaml": "kcompile.frontend",
    "plot_history": "kcompile.frontend.drawing",
    "plot_model": "kcompile.frontend.drawing",
    "register_layer": "kcompile.frontend",
    "verify": "kcompile.api",
}

# What Keras has and kcompile has not, with what to do.
_ABSENT = {
    "applications": "Load a file that Keras saved: kcompile.load_model.",
    "datasets": "kcompile fetches nothing. Load arrays with what the data comes with, such as sklearn.datasets.",
    "distribution": "kcompile trains on one machine.",
    "export": "Use kcompile.compile.",
    "preprocessing": "pad_sequences and timeseries_dataset_from_array are in kcompile.utils.",
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
        raise AttributeError(f"module 'kcompile' has no attribute {name!r}. {_ABSENT.get(name, '')}".rstrip())
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
