"""Copies of models."""

import json
from collections.abc import Callable
from typing import Any

from kcompile.frontend.keras_file.normalize import normalize
from kcompile.frontend.keras_file.version import WRITTEN, KerasVersion
from kcompile.frontend.layer import Layer
from kcompile.frontend.layer_configs import deserialize_layer
from kcompile.frontend.model import Model


def clone_model(
    model: Model, input_tensors: Any = None, clone_function: Callable[[Layer], Layer] | None = None
) -> Model:
    """A model of the same layers with new weights.

    Args:
        input_tensors: inputs of the copy in place of new ones.
        clone_function: makes the copy of each layer; by default from its config.
    """
    spec = normalize(json.loads(model.to_json()), KerasVersion.parse(WRITTEN), f"model `{model.name}`")
    if clone_function is not None:
        copies = {layer.name: clone_function(layer) for layer in model.layers}
        for entry in spec["config"].get("layers", []):
            entry["made"] = [copies[entry["name"]]] if entry["name"] in copies else []
    made: Any = deserialize_layer(spec)
    return made if input_tensors is None else Model(input_tensors, made(input_tensors), name=model.name)
