"""The process of `keras_peer`: ``python benchmarks/keras_worker.py THREADS``, in the peers' environment.

Answers one request, a line of JSON, after the other.
"""

import json
import os
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["KERAS_BACKEND"] = "tensorflow"

import keras
import numpy as np
import tensorflow as tf

# The peers' environment has no kcompile, and a script's own folder is on its path.
from turns import per_call


class Peer:
    """A model, its input, and the two ways to run it."""

    def __init__(self, threads: int) -> None:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
        self._threads = threads
        self._runs: dict[str, Callable[[], np.ndarray]] = {}

    def versions(self) -> dict[str, str]:
        return {name: version(name) for name in ("keras", "tensorflow-cpu", "tf2onnx")}

    def load(self, path: str, input: str) -> None:
        keras.backend.clear_session()
        model, x = keras.models.load_model(path, compile=False), np.load(input)
        signature = [tf.TensorSpec(x.shape, x.dtype)]
        function = tf.function(lambda x: model(x, training=False), input_signature=signature)
        self._runs = {
            "predict": lambda: model.predict(x, batch_size=len(x), verbose=0),
            "function": lambda: function(x).numpy(),
        }

    def results(self, how: str, output: str) -> None:
        np.save(Path(output), self._runs[how]())

    def turn(self, how: str, warm_up: int, calls: int) -> float:
        return per_call(self._runs[how], self._threads, warm_up, calls)


def main() -> None:
    """Answer until the input ends."""
    peer = Peer(int(sys.argv[1]))
    for line in sys.stdin:
        request: dict[str, Any] = json.loads(line)
        try:
            answer = {"answer": getattr(peer, request.pop("what"))(**request)}
        except Exception as error:  # noqa: BLE001 -- whatever the peer raises is its result
            answer = {"error": f"{type(error).__name__}: {str(error).splitlines()[0][:160]}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
