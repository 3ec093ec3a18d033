"""Keras's models, by the names that Keras gives them."""

from typing import Any

from kcompile.api import load_model
from kcompile.frontend import Functional, Model, Sequential, model_from_json, model_from_yaml
from kcompile.frontend.cloning import clone_model
from kcompile.saving import save_model

__all__ = [
    "Functional",
    "Model",
    "Sequential",
    "clone_model",
    "load_model",
    "model_from_config",
    "model_from_json",
    "model_from_yaml",
    "save_model",
]


def model_from_config(config: dict[str, Any]) -> Model:
    """The model that a config describes, as `model.get_config()` in ``{"class_name": ..., "config": ...}``."""
    import json

    return model_from_json(json.dumps(config))
