"""Settings, by the names that Keras gives them (``keras.config``); those that kcompile fixes can be asked for alone."""

from kcompile.errors import ModelError
from kcompile.frontend.policies import dtype_policy, set_dtype_policy

__all__ = [
    "backend",
    "dtype_policy",
    "epsilon",
    "floatx",
    "image_data_format",
    "set_dtype_policy",
    "set_floatx",
    "set_image_data_format",
]


def backend() -> str:
    """What computes: NumPy."""
    return "numpy"


def epsilon() -> float:
    """What keeps divisions and logarithms from 0."""
    from kcompile.frontend.training.losses.functions import EPSILON

    return EPSILON


def floatx() -> str:
    """The dtype of numbers that state none."""
    return "float32"


def image_data_format() -> str:
    """Where images have their channels, for layers that do not say."""
    return "channels_last"


def set_floatx(value: str) -> None:
    """Accept "float32".

    Raises:
        ModelError: it is another.
    """
    if value != "float32":
        raise ModelError(f'`floatx` is "float32". Received: {value!r}. Give layers a `dtype`, or set a dtype policy.')


def set_image_data_format(data_format: str) -> None:
    """Accept "channels_last".

    Raises:
        ModelError: it is another.
    """
    if data_format != "channels_last":
        law = 'the image data format is "channels_last"'
        raise ModelError(f"{law}. Received: {data_format!r}. Give layers a `data_format`.")
