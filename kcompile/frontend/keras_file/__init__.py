"""The files that Keras writes: models read from them, and written for Keras to read."""

from kcompile.frontend.keras_file import locally_connected, old_layers, quantized_reversible
from kcompile.frontend.keras_file.architecture import model_from_json, model_from_yaml
from kcompile.frontend.keras_file.reader import load_model, load_weights

__all__ = [
    "load_model",
    "load_weights",
    "locally_connected",
    "model_from_json",
    "model_from_yaml",
    "old_layers",
    "quantized_reversible",
]
