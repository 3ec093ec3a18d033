"""LiteRT's files of Keras files: ``python benchmarks/peer_tflite.py FOLDER``, in the peers' environment.

Writes ``NAME.tflite`` beside each ``NAME.keras``, for a batch of one, and why it could not to ``tflite_failures.json``.
"""

import json
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["KERAS_BACKEND"] = "tensorflow"

import keras
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2


def convert(path: Path) -> bytes:
    """The model in a Keras file as a LiteRT model."""
    model = keras.models.load_model(path)
    signature = [tf.TensorSpec((1, *x.shape[1:]), x.dtype, name=f"x{i}") for i, x in enumerate(model.inputs)]
    function = tf.function(lambda x: model(x, training=False), input_signature=signature)
    # Weights that stay variables would keep XNNPACK from taking the convolutions.
    frozen = convert_variables_to_constants_v2(function.get_concrete_function())
    return tf.lite.TFLiteConverter.from_concrete_functions([frozen]).convert()


def main(folder: Path) -> None:
    """Convert what is not yet converted."""
    note = folder / "tflite_failures.json"
    failures: dict[str, str] = json.loads(note.read_text()) if note.exists() else {}
    for path in sorted(folder.glob("*.keras")):
        target = path.with_suffix(".tflite")
        if target.exists() and target.stat().st_mtime > path.stat().st_mtime:
            continue
        failures.pop(path.stem, None)
        try:
            target.write_bytes(convert(path))
        except Exception as error:  # noqa: BLE001 -- whatever the peer raises is its result
            failures[path.stem] = f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"
        print(f"{path.stem}: {failures.get(path.stem, 'written')}", flush=True)
    note.write_text(json.dumps(failures, indent=2) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
