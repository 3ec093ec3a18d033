"""`TensorBoard`: event files that TensorBoard opens, written without TensorFlow."""

import json
import time
import warnings
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np

from kcompile.errors import KCompileError, ModelError
from kcompile.frontend.layer import Layer
from kcompile.frontend.training import event_files
from kcompile.frontend.training.callbacks.base import Callback, Logs
from kcompile.frontend.training.event_files import EventFile
from kcompile.ir.types import Array

# Of a weight that is several images, so many are written, as TensorFlow does.
_MAX_IMAGES = 3


class TensorBoard(Callback):
    """Writes losses, metrics, the graph and the weights to event files, in Keras's places and under its names.

    Scalars of training go to ``train/``, those of validation to ``validation/``: ``epoch_loss`` by epoch,
    ``batch_loss`` by step, and ``evaluation_loss_vs_iterations`` after each evaluation.

    Args:
        log_dir: a folder for this alone.
        histogram_freq: weights are written as histograms every so many epochs; 0 for never.
        write_graph: whether the model is drawn.
        write_images: whether weights are written as images too, with the histograms.
        write_steps_per_second: whether the speed of training is written.
        update_freq: "epoch", or every how many batches scalars are written besides; "batch" is 1.
        profile_batch: must be 0; there is no profiler.
        embeddings_freq: the tables of Embedding layers are written for the projector every so many epochs; 0 for never.
        embeddings_metadata: a file with labels for the rows of the tables, or such files by the layers' names.

    Raises:
        ModelError: an argument is something else, or the folder cannot be written to.
    """

    def __init__(
        self,
        log_dir: str | Path = "logs",
        histogram_freq: int = 0,
        write_graph: bool = True,
        write_images: bool = False,
        write_steps_per_second: bool = False,
        update_freq: Literal["epoch", "batch"] | int = "epoch",
        profile_batch: int = 0,
        embeddings_freq: int = 0,
        embeddings_metadata: str | Mapping[str, str] | None = None,
    ) -> None:
        super().__init__()
        self.move(Path(log_dir))
        self.histogram_freq, self.write_graph = histogram_freq, write_graph
        self.write_images, self.write_steps_per_second = write_images, write_steps_per_second
        self.update_freq = 1 if update_freq == "batch" else update_freq
        self.embeddings_freq, self.embeddings_metadata = embeddings_freq, embeddings_metadata
        for name in ("histogram_freq", "embeddings_freq"):
            self._require(_is_count(getattr(self, name), 0), name, "a number of epochs, or 0", getattr(self, name))
        every = self.update_freq == "epoch" or _is_count(self.update_freq, 1)
        self._require(every, "update_freq", '"epoch", "batch" or a number of batches', update_freq)
        self._require(not profile_batch, "profile_batch", "0: kcompile writes no profiles", profile_batch)
        self._train_batch = self._test_batch = self._first_step = 0
        self._batch_start = self._epoch_start = 0.0

    def move(self, log_dir: Path) -> None:
        """Write to another folder from now on."""
        self.log_dir = log_dir
        self._train, self._validation = EventFile(log_dir / "train"), EventFile(log_dir / "validation")

    @staticmethod
    def _require(law: bool, argument: str, expected: str, received: object) -> None:
        if not law:
            raise ModelError(f"`{argument}` of TensorBoard must be {expected}. Received: {received!r}.")

    def get_state(self) -> dict[str, Any]:
        return {"train_batch": self._train_batch, "test_batch": self._test_batch}

    def set_state(self, state: dict[str, Any]) -> None:
        self._train_batch, self._test_batch = state["train_batch"], state["test_batch"]

    # -- when to write ------------------------------------------------------------------------------------------------

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self._train_batch = self._test_batch = 0
        with self._writing():
            if self.write_graph and self.model.is_traced:
                self._log_graph()
            if self.embeddings_freq:
                self._configure_projector()

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self._epoch_start, self._first_step = time.perf_counter(), self._steps

    def on_train_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        self._train_batch += 1
        self._batch_start = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        if not isinstance(self.update_freq, int) or self._train_batch % self.update_freq:
            return
        scalars = {f"batch_{name}": value for name, value in (logs or {}).items()}
        if self.write_steps_per_second:
            scalars["batch_steps_per_second"] = 1 / (time.perf_counter() - self._batch_start)
        self._log(self._train, scalars, self._train_batch)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        given = {**(logs or {}), **self.model.optimizer.rates}
        if self.write_steps_per_second:
            spent = time.perf_counter() - self._epoch_start
            given["steps_per_second"] = (self._steps - self._first_step) / spent
        validation = {name.removeprefix("val_"): value for name, value in given.items() if name.startswith("val_")}
        training = {name: value for name, value in given.items() if not name.startswith("val_")}
        for file, found in ((self._train, training), (self._validation, validation)):
            self._log(file, {f"epoch_{name}": value for name, value in found.items()}, epoch)
        with self._writing():
            if self.histogram_freq and epoch % self.histogram_freq == 0:
                self._log_weights(epoch)
            if self.embeddings_freq and epoch % self.embeddings_freq == 0:
                self._log_embeddings()

    def on_test_end(self, logs: Logs | None = None) -> None:
        if self.model.compiled:
            found = {f"evaluation_{name}_vs_iterations": value for name, value in (logs or {}).items()}
            self._log(self._validation, found, self._steps)

    def on_train_end(self, logs: Logs | None = None) -> None:
        self._train.close()
        self._validation.close()

    def on_train_abort(self, logs: Logs | None = None) -> None:
        self.on_train_end(logs)

    # -- what to write ------------------------------------------------------------------------------------------------

    @property
    def _steps(self) -> int:
        return self.model.optimizer.iterations

    @contextmanager
    def _writing(self) -> Generator[None]:
        try:
            yield
        except OSError as error:
            law = f"`log_dir` of TensorBoard must be a folder that can be written to: {error.strerror or error}"
            raise ModelError(f"{law}. Received: {str(self.log_dir)!r}.") from error

    def _log(self, file: EventFile, scalars: Mapping[str, Any], step: int) -> None:
        summaries = [event_files.scalar(tag, float(np.mean(value))) for tag, value in scalars.items()]
        if summaries:
            with self._writing():
                file.write(*summaries, step=step)

    def _log_graph(self) -> None:
        from kcompile.frontend.layer_graph import layer_nodes, shape_text

        nodes = [
            (node.name, node.kind, node.inputs, {"output_shape": ", ".join(map(shape_text, node.gives))})
            for node in layer_nodes(self.model, nested=True)
        ]
        self._train.write_graph(event_files.graph(nodes))
        try:
            self._train.write(event_files.keras_model("keras", self.model.to_json()), step=0)
        except (KCompileError, TypeError) as problem:
            warnings.warn(
                f"TensorBoard shows no conceptual graph, since the model has no config: {problem}", stacklevel=2
            )

    def _log_weights(self, epoch: int) -> None:
        for layer in self.model.layers:
            for path, value in _weights(layer):
                self._train.write(event_files.histogram(f"{path}/histogram", value), step=epoch)
                if self.write_images:
                    images = [event_files.image(f"{path}/image/{i}", one) for i, one in enumerate(as_images(value))]
                    self._train.write(*images, step=epoch)

    def _embeddings(self) -> list[Layer]:
        from kcompile.frontend.layers import Embedding

        return [layer for layer in self.model.layers if isinstance(layer, Embedding)]

    def _configure_projector(self) -> None:
        """Tell TensorBoard's projector where the tables are (its ``projector_config.pbtxt``)."""
        given, layers = self.embeddings_metadata, self._embeddings()
        files = {layer.name: given for layer in layers} if isinstance(given, str) else dict(given or {})
        unknown = sorted(files.keys() - {layer.name for layer in layers})
        names = ", ".join(layer.name for layer in layers) or "none"
        expected = f"a file, or files by the names of Embedding layers: {names}"
        self._require(not unknown, "embeddings_metadata", expected, unknown)
        text = ""
        for layer in layers:
            entries = {"tensor_name": layer.name, "tensor_path": f"{layer.name}.tsv"}
            if layer.name in files:
                entries["metadata_path"] = str(files[layer.name])
            lines = "".join(f"  {key}: {json.dumps(value)}\n" for key, value in entries.items())
            text += f"embeddings {{\n{lines}}}\n"
        self.log_dir.mkdir(parents=True, exist_ok=True)
        (self.log_dir / "projector_config.pbtxt").write_text(text)

    def _log_embeddings(self) -> None:
        for layer in self._embeddings():
            table = next(value for _, value in _weights(layer))
            np.savetxt(self.log_dir / f"{layer.name}.tsv", table, "%.6g", delimiter="\t")


def _is_count(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _weights(layer: Layer) -> Iterator[tuple[str, Array]]:
    from kcompile.frontend.keras_file.layout import owned_weights

    for owned in owned_weights(layer):
        yield owned.path.replace(":", "_"), owned.weight.array


def as_images(weight: Array) -> list[Array]:
    """A weight as grey images, at most three: ``u8[H, W, 1]`` each; none where it has more axes than an image.

    A vector is one row, the shorter axis of a matrix stands upright, and of three axes the last one counts images.
    """
    x = np.squeeze(np.asarray(weight, np.float32))
    if x.ndim > 3 or not x.size:
        return []
    x = x.reshape(1, -1) if x.ndim < 2 else x
    if x.ndim == 2:
        planes = [x.T if x.shape[0] > x.shape[1] else x]
    else:
        planes = [x[..., i] for i in range(min(x.shape[-1], _MAX_IMAGES))]
    return [(np.clip(np.nan_to_num(plane), 0, 1) * 255).astype(np.uint8)[..., None] for plane in planes]
