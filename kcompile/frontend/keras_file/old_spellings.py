"""Arguments of single layers as Keras 2 wrote them, in the words and with the meanings of Keras 3."""

from collections.abc import Callable
from typing import Any, TypeAlias

from kcompile.errors import ModelError
from kcompile.frontend.keras_file.theano_padding import THEANO_NAMES
from kcompile.frontend.keras_file.version import KerasVersion

Config: TypeAlias = dict[str, Any]

# Arguments without a meaning at inference, or that repeat what the graph says.
MEANINGLESS = frozenset(
    {
        "autocast",
        "batch_input_shape",
        "build_config",
        "fused",
        "implementation",
        "input_dim",
        "input_length",
        "input_shape",
        "input_spec",
        "key_shape",
        "noise_shape",
        "query_shape",
        "rank",
        "renorm_clipping",
        "renorm_momentum",
        "seed",
        "shared_object_id",
        "synchronized",
        "unroll",
        "use_cudnn_on_gpu",
        "value_shape",
        "virtual_batch_size",
    }
)
MEANINGLESS_SUFFIXES = ("_initializer", "_regularizer", "_constraint")

# Values that say the same as the absence of the argument.
NEUTRAL: dict[tuple[str, str], Any] = {("DepthwiseConv2D", "groups"): 1, ("DepthwiseConv1D", "groups"): 1}


# What classes that others replaced had in place of arguments: cuDNN computes GRUs in one way.
_ALWAYS: dict[str, Config] = {"CuDNNGRU": {"reset_after": True}}

# Layers that did something else before Keras 3: its RandomCrop leaves images whole at inference, which were resized.
_BEFORE_3 = {"RandomCrop": "Resizing"}


def modern_class(name: str, version: KerasVersion) -> str:
    """The layer of Keras 3 that does at inference what the class `name` of `version` did."""
    return name if version.is_3 else _BEFORE_3.get(name, name)


def modern(old_name: str, class_name: str, config: Config, version: KerasVersion) -> Config:
    """`config` of a layer in Keras 3's words; `old_name` is its class in the file, `class_name` the present one.

    Raises:
        ModelError: it computes something that kcompile's layer does not.
    """
    made = {key: _activation(key, value, version) for key, value in {**_ALWAYS.get(old_name, {}), **config}.items()}
    if version.is_theano and made.get("padding") == "same":
        _check_theano_padding(class_name, made)
    if "dtype" in made:
        made = _dtype(made, keep=class_name == "InputLayer" or not version.dtype_is_the_inputs)
    change = _CHANGES.get(class_name)
    return change(made, version) if change else made


def _check_theano_padding(class_name: str, config: Config) -> None:
    """Refuse padding "same" where Theano put the zeros elsewhere or, of transposed convolutions, refused it itself."""
    if class_name in THEANO_NAMES and class_name != "Conv2DTranspose":
        return
    window = config.get("kernel_size", config.get("pool_size", 1))
    strides = config.get("strides", config.get("pool_size", 1))
    windows, steps = ([each] if isinstance(each, int) else list(each or window) for each in (window, strides))
    # Pooling in Theano takes the border from its own rule, which agrees for windows of 1 and 3 alone.
    odd = all(w in (1, 3) if "pool_size" in config else w % 2 for w in windows)
    alike = odd and (class_name == "Conv2DTranspose" or set(steps) <= {1})
    if not alike:
        law = f'layer `{config.get("name")}` ({class_name}) must not pad "same" with even or strided windows on Theano'
        hint = "Theano pads them at other places than every other backend"
        raise ModelError(f"{law}. Received: a window of {windows} with strides {steps}. {hint}.")


def _activation(key: str, value: Any, version: KerasVersion) -> Any:
    # Keras 3 gave the name to another function: relu6(x + 3) / 6 in place of clip(0.2 x + 0.5, 0, 1).
    if key.endswith("activation") and value == "hard_sigmoid" and not version.is_3:
        return "hard_sigmoid_v2"
    return value


def _dtype(config: Config, keep: bool) -> Config:
    name = policy_name(config["dtype"])
    # What Keras rounds to 8 bits of precision is computed with 24.
    name = "float32" if name in ("bfloat16", "mixed_bfloat16") else name
    made = {key: value for key, value in config.items() if key != "dtype"}
    return {**made, "dtype": name} if keep and name is not None else made


def policy_name(dtype: Any) -> Any:
    """The name of a dtype or of a dtype policy, which files hold as a text or as a config."""
    match dtype:
        case {"class_name": "DTypePolicy" | "Policy" | "PolicyV1" | "FloatDTypePolicy", "config": {"name": name}}:
            return name
        case _:
            return quantization(dtype)[1] or dtype


def quantization(dtype: Any) -> tuple[str | None, str | None]:
    """How a dtype policy says that weights are quantised (``"int8"``), and the policy of the rest; None where not."""
    match dtype:
        case {
            "class_name": "QuantizedDTypePolicy"
            | "QuantizedFloat8DTypePolicy"
            | "Int4DTypePolicy"
            | "GPTQDTypePolicy"
            | "AWQDTypePolicy",
            "config": {"mode": str() as mode, **rest},
        }:
            return mode, str(rest.get("source_name") or "float32")
        case str() if "_from_" in dtype:
            mode, _, source = dtype.partition("_from_")
            return mode, source
        case _:
            return None, None


def float8_history(dtype: Any) -> Config:
    """How many largest magnitudes a layer of float8 keeps, as an argument."""
    config: Any = dtype.get("config") if isinstance(dtype, dict) else None  # pyright: ignore[reportUnknownMemberType]
    length = config.get("amax_history_length") if isinstance(config, dict) else None  # pyright: ignore
    return {"amax_history_length": length} if isinstance(length, int) else {}


def _batch_normalization(config: Config, version: KerasVersion) -> Config:
    axis = config.get("axis")
    return {**config, "axis": axis[0]} if isinstance(axis, list) and len(axis) == 1 else config  # pyright: ignore


def _embedding(config: Config, version: KerasVersion) -> Config:
    # Some versions of Keras 2 wrote the dtype of the indices, others the dtype of the table.
    if version.is_3 or not str(config.get("dtype", "")).startswith(("int", "uint")):
        return config
    return {**config, "dtype": "float32"}


def _gru_cell(config: Config, version: KerasVersion) -> Config:
    return config if version.is_3 else {"reset_after": False, **config}


def _recurrent(config: Config, version: KerasVersion) -> Config:
    # Keras 3 lets a mask that a tensor carries go where the call has an initial state too.
    return config if version.is_3 else {**config, "masks_with_initial_state": True}


def _gru(config: Config, version: KerasVersion) -> Config:
    return _recurrent(_gru_cell(config, version), version)


def _merge(config: Config, version: KerasVersion) -> Config:
    return config if version.is_3 else {**config, "keras_2_masks": True}


def _leaky_relu(config: Config, version: KerasVersion) -> Config:
    return _renamed(config, alpha="negative_slope")


def _lambda(config: Config, version: KerasVersion) -> Config:
    # The code is what a converter stands in for; the arguments that the code was given are the converter's.
    made = {key: value for key, value in config.items() if key in ("name", "trainable", "dtype")}
    arguments = config.get("arguments")
    return {**made, **arguments} if isinstance(arguments, dict) else made


def _resizing(config: Config, version: KerasVersion) -> Config:
    # What only RandomCrop had, which cut images to the proportions of the result.
    return config if version.is_3 or "interpolation" in config else {**config, "crop_to_aspect_ratio": True}


def _input(config: Config, version: KerasVersion) -> Config:
    return _renamed(config, batch_input_shape="batch_shape")


def _renamed(config: Config, **names: str) -> Config:
    return {names.get(key, key): value for key, value in config.items()}


_MERGES = ("Add", "Average", "Concatenate", "Maximum", "Minimum", "Multiply", "Subtract")
_CHANGES: dict[str, Callable[[Config, KerasVersion], Config]] = {
    **dict.fromkeys(_MERGES, _merge),
    "BatchNormalization": _batch_normalization,
    "Embedding": _embedding,
    "GRU": _gru,
    "GRUCell": _gru_cell,
    "InputLayer": _input,
    "Lambda": _lambda,
    "LSTM": _recurrent,
    "LeakyReLU": _leaky_relu,
    "RNN": _recurrent,
    "Resizing": _resizing,
    "SimpleRNN": _recurrent,
}
