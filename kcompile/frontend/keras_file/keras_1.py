"""Models as Keras 0.3 and 1 wrote them, in the form and the words of Keras 2.

The names are those of Keras 1.2.2 and 0.3.3 and of the table by which Keras 2 read them (``keras/legacy`` in 2.2.4). A
Sequential model that begins with a `Merge` of several branches becomes a functional one, with the layers of all
branches beside each other, as Keras 1 stored their weights.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from kcompile.errors import ModelError
from kcompile.frontend.keras_file.cosine_merge import CosineMerge
from kcompile.frontend.keras_file.names import MODEL_CLASSES
from kcompile.frontend.keras_file.old_layers import UnaveragedNormalization

Spec: TypeAlias = dict[str, Any]

_CLASSES = {
    "AtrousConvolution1D": "Conv1D",
    "AtrousConvolution2D": "Conv2D",
    "Convolution1D": "Conv1D",
    "Convolution2D": "Conv2D",
    "Convolution3D": "Conv3D",
    "Deconvolution2D": "Conv2DTranspose",
    "SeparableConvolution2D": "SeparableConv2D",
    "TimeDistributedDense": "Dense",
}
_ARGUMENTS = {
    "atrous_rate": "dilation_rate",
    "bias": "use_bias",
    "border_mode": "padding",
    "dropout_U": "recurrent_dropout",
    "dropout_W": "dropout",
    "filter_length": "kernel_size",
    "inner_activation": "recurrent_activation",
    "input_dtype": "dtype",
    "length": "size",
    "nb_filter": "filters",
    "output_dim": "units",
    "p": "rate",
    "pool_length": "pool_size",
    "sigma": "stddev",
    "stride": "strides",
    "subsample": "strides",
    "subsample_length": "strides",
}
_DATA_FORMATS = {"th": "channels_first", "tf": "channels_last"}
# How weights start, how training treats them, and how a result is computed.
_MEANINGLESS = (
    "a_left_init",
    "a_right_init",
    "alpha_init",
    "beta_init",
    "cache_enabled",
    "consume_less",
    "custom_name",
    "forget_bias_init",
    "gamma_init",
    "init",
    "inner_init",
    "mode_type",
    "t_left_init",
    "t_right_init",
    "transform_bias",
)
_MERGES = {
    "ave": "Average",
    "concat": "Concatenate",
    "cos": f"kcompile>{CosineMerge.__name__}",
    "dot": "Dot",
    "max": "Maximum",
    "mul": "Multiply",
    "sum": "Add",
}


def keras_2_spec(spec: Any) -> Any:
    """The spec of a model as Keras 2 would have written it; what is no spec stays as it is.

    Raises:
        ModelError: a layer has no meaning that Keras 2 could express.
    """
    if not isinstance(spec, Mapping):
        return spec
    return _Rewriter().spec(_with_class(dict(spec)))  # pyright: ignore[reportUnknownArgumentType]


def is_keras_0(spec: Any) -> bool:
    """Whether a model's spec is of Keras 0.3, which gave the class as `name` beside the arguments."""
    return isinstance(spec, Mapping) and "class_name" not in spec and {"name", "layers"} <= set(spec)  # pyright: ignore


def _with_class(spec: Spec) -> Spec:
    """A spec of Keras 0.3 with its arguments in a config of their own."""
    if "class_name" in spec or not isinstance(spec.get("name"), str):
        return spec
    config = {key: value for key, value in spec.items() if key != "name"}
    if spec["name"] in MODEL_CLASSES:
        return {"class_name": spec["name"], "config": config.get("layers")}
    config["name"] = spec.get("custom_name") or str(spec["name"]).lower()
    return {"class_name": spec["name"], "config": config, "keras_0": True}


@dataclass
class _Rewriter:
    # How often a name stands among the layers that Keras 0.3 did not name apart.
    names: Counter[str] = field(default_factory=Counter[str])

    def spec(self, spec: Any) -> Any:
        """A layer or model."""
        if not isinstance(spec, Mapping) or "class_name" not in spec:
            return spec  # pyright: ignore[reportUnknownVariableType]
        class_name, config = spec["class_name"], spec.get("config")  # pyright: ignore
        if class_name in MODEL_CLASSES:
            return self._model({**spec, "config": config})
        if not isinstance(config, Mapping):
            return dict(spec)  # pyright: ignore[reportUnknownArgumentType]
        made: Spec = dict(spec)  # pyright: ignore[reportUnknownArgumentType]
        if made.pop("keras_0", False):
            config = self._of_keras_0(str(class_name), dict(config))  # pyright: ignore[reportUnknownArgumentType]
        return {**made, **_layer(str(class_name), {k: self._argument(v) for k, v in config.items()})}  # pyright: ignore

    def _argument(self, value: Any) -> Any:
        return self.spec(value) if isinstance(value, Mapping) and "class_name" in value else value

    def _of_keras_0(self, class_name: str, config: Spec) -> Spec:
        self.names[config["name"]] += 1
        count = self.names[config["name"]]
        config["name"] = f"{config['name']}_{count}" if count > 1 else config["name"]
        shape = config.pop("input_shape", None)
        config["batch_input_shape"] = [None, *shape] if shape else None
        if class_name == "Merge" and isinstance(config.get("layers"), list):
            config["layers"] = [_with_class(dict(layer)) for layer in config["layers"]]
        return config

    def _model(self, spec: Spec) -> Spec:
        config = spec["config"]
        if isinstance(config, Mapping):
            layers: Any = [self.spec(layer) for layer in config.get("layers") or ()]  # pyright: ignore
            return {**spec, "config": {**config, "layers": layers}}
        if not isinstance(config, list):
            return spec
        entries = [_with_class(dict(entry)) for entry in config]  # pyright: ignore[reportUnknownArgumentType]
        if not entries or entries[0].get("class_name") != "Merge":
            return {**spec, "config": [self.spec(entry) for entry in entries]}
        graph = _Graph(self)
        output = graph.stack(entries)
        return {**spec, "class_name": "Model", "config": graph.config(output)}


def _layer(class_name: str, config: Spec) -> Spec:
    """The class and config of a layer in the words of Keras 2."""
    if class_name == "Merge":
        return _merge(config)
    if class_name == "BatchNormalization" and config.get("mode", 0) != 0:
        class_name = f"kcompile>{UnaveragedNormalization.__name__}"
    change = _CHANGES.get(class_name)
    config = change(config) if change else config
    names = {**_ARGUMENTS, "output_dim": "output_dim"} if class_name == "Embedding" else _ARGUMENTS
    made = {names.get(key, key): value for key, value in config.items() if key not in _MEANINGLESS}
    if "dim_ordering" in made:
        made["data_format"] = _DATA_FORMATS.get(made.pop("dim_ordering"))
    for parts in (("nb_row", "nb_col"), ("kernel_dim1", "kernel_dim2", "kernel_dim3")):
        if parts[0] in made:
            made["kernel_size"] = [made.pop(part, None) for part in parts]
    if made.get("activation") == "time_distributed_softmax":
        made["activation"] = "softmax"
    return {"class_name": _CLASSES.get(class_name, class_name), "config": made}


def _merge(config: Spec) -> Spec:
    name, mode = config.get("name"), config.get("mode")
    if not isinstance(mode, str) or mode not in _MERGES:
        # A mode may be a function of the user's: code, which is a Lambda by another name.
        return {"class_name": "Lambda", "config": {"name": name}}
    made: Spec = {"name": name}
    if mode == "concat":
        made["axis"] = config.get("concat_axis", -1)
    if mode in ("dot", "cos"):
        made["axes"] = config.get("dot_axes", -1)
    return {"class_name": _MERGES[mode], "config": made}


def _embedding(config: Spec) -> Spec:
    return {key: value for key, value in config.items() if key != "dropout"}


def _deconvolution(config: Spec) -> Spec:
    shape: Any = config.pop("output_shape", None)
    return {**config, "declared_shape": list(shape) if isinstance(shape, list | tuple) else None}  # pyright: ignore


def _zero_padding(config: Spec) -> Spec:
    match config.get("padding"):
        case {"left_pad": left, "right_pad": right, **rest} if not rest:
            return {**config, "padding": [left, right]}
        case {"top_pad": top, "bottom_pad": bottom, "left_pad": left, "right_pad": right}:
            return {**config, "padding": [[top, bottom], [left, right]]}
        case [top, bottom, left, right]:
            return {**config, "padding": [[top, bottom], [left, right]]}
        case _:
            return config


_CHANGES: dict[str, Callable[[Spec], Spec]] = {
    "Deconvolution2D": _deconvolution,
    "Embedding": _embedding,
    "ZeroPadding1D": _zero_padding,
    "ZeroPadding2D": _zero_padding,
}


class _Graph:
    """A functional graph grown out of stacks of layers."""

    def __init__(self, rewriter: _Rewriter) -> None:
        self._rewriter = rewriter
        self._layers: list[Spec] = []
        self._inputs: list[list[Any]] = []

    def config(self, output: str) -> Spec:
        """The config of the model that gives the result of the layer `output`."""
        return {"layers": self._layers, "input_layers": self._inputs, "output_layers": [[output, 0, 0]]}

    def stack(self, entries: list[Spec]) -> str:
        """Put a stack of layers into the graph; the name of its last layer is returned."""
        first, *rest = entries
        if first.get("class_name") == "Merge":
            last = self._merged(first)
        elif first.get("class_name") == "InputLayer":
            last = self._input(first["config"])
        else:
            last = self._add(first, [self._input_of(first)])
        for entry in rest:
            last = self._add(entry, [last])
        return last

    def _merged(self, entry: Spec) -> str:
        branches: Any = entry["config"].get("layers")
        if not isinstance(branches, list):
            raise ModelError(f"Merge `{entry['config'].get('name')}` must hold the layers that it merges.")
        return self._add(entry, [self._branch(branch) for branch in branches])  # pyright: ignore

    def _branch(self, branch: Spec) -> str:
        if MODEL_CLASSES.get(branch["class_name"]) != "Functional":
            stacked = branch["config"] if isinstance(branch["config"], list) else [branch]
            return self.stack([_with_class(dict(entry)) for entry in stacked])  # pyright: ignore
        config = branch["config"]
        self._layers += [self._rewriter.spec(layer) for layer in config["layers"]]
        self._inputs += config["input_layers"]
        ((output, *_),) = config["output_layers"]
        return str(output)

    def _add(self, entry: Spec, sources: list[str]) -> str:
        made: Spec = self._rewriter.spec(entry)
        config: Any = made["config"]
        name = config["name"] if isinstance(config, Mapping) else f"{made['class_name'].lower()}_{len(self._layers)}"  # pyright: ignore
        node = [[source, 0, 0] for source in sources]
        self._layers.append({**made, "name": name, "inbound_nodes": [node]})
        return str(name)  # pyright: ignore[reportUnknownArgumentType]

    def _input_of(self, first: Spec) -> str:
        """An InputLayer for a layer that states the shape of its input itself."""
        stated: Any = first
        while isinstance(stated, Mapping) and isinstance(stated.get("config"), list):  # pyright: ignore
            stated = stated["config"][0]  # pyright: ignore[reportUnknownVariableType]
        config: Spec = self._rewriter.spec(stated)["config"]
        return self._input({**config, "name": f"{config.get('name')}_input"})

    def _input(self, config: Spec) -> str:
        dtype = config.get("dtype") or config.get("input_dtype") or "float32"
        made = {"name": config["name"], "batch_input_shape": config.get("batch_input_shape"), "dtype": dtype}
        self._layers.append({"class_name": "InputLayer", "config": made, "name": config["name"], "inbound_nodes": []})
        self._inputs.append([config["name"], 0, 0])
        return str(config["name"])
