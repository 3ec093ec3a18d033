"""Keras in, graphs out: models, layers and the files that Keras writes."""

from kcompile.frontend import layers
from kcompile.frontend.functional import Functional
from kcompile.frontend.inputs import Input, InputLayer
from kcompile.frontend.keras_file import load_model, model_from_json, model_from_yaml
from kcompile.frontend.layer import Layer, register_layer
from kcompile.frontend.model import Model
from kcompile.frontend.sequential import Sequential

__all__ = [
    "Functional",
    "Input",
    "InputLayer",
    "Layer",
    "Model",
    "Sequential",
    "layers",
    "load_model",
    "model_from_json",
    "model_from_yaml",
    "register_layer",
]
