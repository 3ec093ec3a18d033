"""What programs take from ``keras.backend``: settings, and small questions."""

from kcompile.config import backend, epsilon, floatx, image_data_format, set_floatx, set_image_data_format
from kcompile.utils import clear_session, is_keras_tensor

__all__ = [
    "backend",
    "clear_session",
    "epsilon",
    "floatx",
    "image_data_format",
    "is_keras_tensor",
    "set_floatx",
    "set_image_data_format",
]
