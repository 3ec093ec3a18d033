"""Arrays in an archive as `numpy.savez` writes it, which take no more memory than the archive itself."""

import io
import math
import struct
import tokenize
import zipfile
from typing import Any

import numpy as np

from kcompile.ir.types import Array

_PICKLED = "O"


def read_arrays(content: bytes | memoryview) -> dict[str, Array]:
    """The arrays by name, where they lie in `content`.

    Raises:
        ValueError: the archive is damaged, or holds something else, or less than its arrays state.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return {info.filename.removesuffix(".npy"): _array(archive, info) for info in archive.infolist()}
    except (zipfile.BadZipFile, EOFError, OSError, NotImplementedError, RuntimeError, struct.error) as error:
        raise ValueError(str(error) or type(error).__name__) from None


def _array(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Array:
    if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
        raise ValueError(f"`{info.filename}` must be stored as it is")
    data = archive.read(info)
    file = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(file)
        read_header: Any = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, in_fortran_order, dtype = read_header(file)
    except (KeyError, TypeError, SyntaxError, tokenize.TokenError, RecursionError) as error:
        raise ValueError(f"`{info.filename}` has no header of an array ({type(error).__name__})") from None
    size = math.prod(shape) * dtype.itemsize
    if dtype.kind == _PICKLED or in_fortran_order or len(data) - file.tell() != size:
        raise ValueError(f"`{info.filename}` must hold numbers of shape {str(shape)[:80]} and nothing else")
    return np.frombuffer(data, dtype, offset=file.tell()).reshape(shape) if size else np.zeros(shape, dtype)
