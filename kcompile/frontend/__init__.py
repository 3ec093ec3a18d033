"""Keras in, graphs out: models, layers and the files that Keras writes."""

from kcompile.frontend.functional import Functional
from kcompile.frontend.inputs import Input, InputLayer
from kcompile.frontend.layer import Layer, register_layer
from kcompile.frontend.model import Model
from kcompile.frontend.sequential import Sequential
from kcompile.frontend.serialization import model_from_json

__all__ = ["Functional", "Input", "InputLayer", "Layer", "Model", "Sequential", "model_from_json", "register_layer"]
