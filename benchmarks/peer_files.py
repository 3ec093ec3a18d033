"""Other engines' files of Keras files: ``python benchmarks/peer_files.py FOLDER``, in the peers' environment.

Beside each ``NAME.keras``, writes tf2onnx's ``NAME.tf2onnx.onnx`` for any batch, and LiteRT's ``NAME.b1.tflite`` and
``NAME.b32.tflite``, since a file for one row can't always be resized. Why one could not be written goes to
``peer_failures.json``.
"""

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["KERAS_BACKEND"] = "tensorflow"

import keras
import tensorflow as tf

# A script's own folder is on its path.
from peer_models import export
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

BATCHES = (1, 32)


def tflite(model: keras.Model, path: Path, batch: int) -> None:
    """Write LiteRT's file of a model for a batch."""
    signature = [tf.TensorSpec((batch, *x.shape[1:]), x.dtype, name=f"x{i}") for i, x in enumerate(model.inputs)]
    function = tf.function(lambda x: model(x, training=False), input_signature=signature)
    # Weights that stay variables would keep XNNPACK from taking the convolutions.
    frozen = convert_variables_to_constants_v2(function.get_concrete_function())
    path.write_bytes(tf.lite.TFLiteConverter.from_concrete_functions([frozen]).convert())


def files(path: Path) -> Iterator[tuple[Path, Callable[[keras.Model, Path], None]]]:
    """The files of a Keras file, and how to write each."""
    yield path.with_suffix(".tf2onnx.onnx"), export
    for batch in BATCHES:
        yield path.with_suffix(f".b{batch}.tflite"), lambda model, target, batch=batch: tflite(model, target, batch)


def main(folder: Path) -> None:
    """Write what is not there yet."""
    note = folder / "peer_failures.json"
    failures: dict[str, str] = json.loads(note.read_text()) if note.exists() else {}
    for path in sorted(folder.glob("*.keras")):
        stale = [
            (target, write)
            for target, write in files(path)
            if not target.exists() or target.stat().st_mtime < path.stat().st_mtime
        ]
        model = keras.models.load_model(path, compile=False) if stale else None
        for target, write in stale:
            failures.pop(target.name, None)
            try:
                write(model, target)
            except Exception as error:  # noqa: BLE001 -- whatever the peer raises is its result
                failures[target.name] = f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"
            print(f"{target.name}: {failures.get(target.name, 'written')}", flush=True)
            note.write_text(json.dumps(failures, indent=2) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
