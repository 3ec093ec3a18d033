"""Files as Keras 2 wrote them, made by hand."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

# Arrays by their paths in the group of a layer, by the layer's name.
Groups = Mapping[str, Mapping[str, np.ndarray]]


def write_h5(path: Path, spec: Any, groups: Groups, version: str = "2.4.0", backend: str = "tensorflow") -> Path:
    """A whole model: its config and its weights."""
    with h5py.File(path, "w") as root:
        root.attrs["keras_version"] = version.encode()
        root.attrs["backend"] = backend.encode()
        root.attrs["model_config"] = json.dumps(spec).encode()
        write_groups(root.create_group("model_weights"), groups)
    return path


def write_groups(root: Any, groups: Groups) -> None:
    root.attrs["layer_names"] = np.array([name.encode() for name in groups])
    for name, arrays in groups.items():
        group = root.create_group(name)
        group.attrs["weight_names"] = np.array([key.encode() for key in arrays]) if arrays else np.zeros(0)
        for key, array in arrays.items():
            group.create_dataset(key, data=array)


def layer(class_name: str, *calls: Any, **config: Any) -> dict[str, Any]:
    """A layer of a functional graph; `calls` are lists of connections."""
    return {"class_name": class_name, "config": config, "name": config["name"], "inbound_nodes": list(calls)}


def functional(name: str, layers: Sequence[dict[str, Any]], inputs: list[Any], outputs: list[Any]) -> dict[str, Any]:
    config = {"name": name, "layers": list(layers), "input_layers": inputs, "output_layers": outputs}
    return {"class_name": "Model", "config": config}


def sequential(*layers: dict[str, Any], name: str = "sequential_1") -> dict[str, Any]:
    entries = [{key: entry[key] for key in ("class_name", "config")} for entry in layers]
    return {"class_name": "Sequential", "config": {"name": name, "layers": entries}}


def dense_weights(rng: np.random.Generator, name: str, inputs: int, units: int) -> dict[str, np.ndarray]:
    arrays = {"kernel": rng.normal(size=(inputs, units)), "bias": rng.normal(size=units)}
    return {f"{name}/{key}:0": array.astype(np.float32) for key, array in arrays.items()}
