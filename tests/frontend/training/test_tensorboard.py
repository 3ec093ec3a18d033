"""Event files, read by TensorBoard's own reader, which needs no TensorFlow."""

import io
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.compat.proto.event_pb2 import Event  # pyright: ignore[reportAttributeAccessIssue]
from tensorboard.util.tensor_util import make_ndarray

import kcompile
from kcompile import Input, Sequential, layers
from kcompile.errors import ModelError
from kcompile.frontend.training.callbacks import TensorBoard
from kcompile.frontend.training.callbacks.tensorboard import as_images
from kcompile.frontend.training.event_files import EventFile, crc32c, histogram, png
from tests.frontend.errors import error_of

X, Y = np.random.default_rng(1).standard_normal((20, 3)), np.random.default_rng(2).standard_normal((20, 1))


def compiled() -> Sequential:
    inner = Sequential([Input((4,)), layers.Dense(4, name="hidden")], name="inner")
    model = Sequential([Input((3,), name="x"), layers.Dense(4, name="first"), inner, layers.Dense(1, name="head")])
    model.compile(kcompile.optimizers.SGD(0.05), "mse", metrics=["mae"])
    return model


def read(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder), size_guidance={"histograms": 0, "scalars": 0, "images": 0}).Reload()


def values(reader: EventAccumulator, tag: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in reader.Scalars(tag)]


def test_scalars_by_epoch_lie_where_keras_puts_them(tmp_path: Path) -> None:
    history = compiled().fit(
        X, Y, epochs=3, batch_size=5, verbose=0, validation_data=(X, Y), callbacks=[TensorBoard(tmp_path)]
    )
    train, validation = read(tmp_path / "train"), read(tmp_path / "validation")
    assert sorted(train.Tags()["scalars"]) == ["epoch_learning_rate", "epoch_loss", "epoch_mae"]
    names = ["epoch_loss", "epoch_mae", "evaluation_loss_vs_iterations", "evaluation_mae_vs_iterations"]
    assert sorted(validation.Tags()["scalars"]) == names
    for reader, tag, name in ((train, "epoch_loss", "loss"), (validation, "epoch_mae", "val_mae")):
        assert values(reader, tag) == [(i, np.float32(v)) for i, v in enumerate(history.history[name])]
    steps = [step for step, _ in values(validation, "evaluation_loss_vs_iterations")]
    assert steps == [4, 8, 12]
    assert values(train, "epoch_learning_rate")[0] == (0, np.float32(0.05))


@pytest.mark.parametrize(("update_freq", "steps"), [("batch", range(1, 9)), (3, [3, 6])])
def test_scalars_by_batch_are_written_as_often_as_asked(update_freq: Any, steps: Any, tmp_path: Path) -> None:
    board = TensorBoard(tmp_path, update_freq=update_freq, write_steps_per_second=True)
    compiled().fit(X, Y, epochs=2, batch_size=5, verbose=0, callbacks=[board])
    reader = read(tmp_path / "train")
    assert [step for step, _ in values(reader, "batch_loss")] == list(steps)
    assert all(speed > 0 for _, speed in values(reader, "batch_steps_per_second"))
    assert [step for step, _ in values(reader, "epoch_steps_per_second")] == [0, 1]


def test_the_graph_shows_layers_and_models_inside(tmp_path: Path) -> None:
    model = compiled()
    model.fit(X, Y, verbose=0, callbacks=[TensorBoard(tmp_path)])
    reader = read(tmp_path / "train")
    nodes = {node.name: (node.op, list(node.input)) for node in reader.Graph().node}
    assert nodes == {
        "x": ("InputLayer", []),
        "first": ("Dense", ["x"]),
        "inner/hidden": ("Dense", ["first"]),
        "head": ("Dense", ["inner/hidden"]),
    }
    assert reader.Graph().node[1].attr["output_shape"].s == b"(None, 4)"
    event = reader.Tensors("keras")[0]
    assert reader.SummaryMetadata("keras").plugin_data.plugin_name == "graph_keras_model"
    config: Any = make_ndarray(event.tensor_proto).item()
    assert json.loads(config)["config"]["name"] == model.name


def test_histograms_hold_the_weights_of_the_epochs_asked_for(tmp_path: Path) -> None:
    model = compiled()
    model.fit(X, Y, epochs=3, verbose=0, callbacks=[TensorBoard(tmp_path, histogram_freq=2, write_images=True)])
    reader = read(tmp_path / "train")
    assert "inner/hidden/kernel/histogram" in reader.Tags()["histograms"]
    events = reader.Histograms("first/kernel/histogram")
    assert [event.step for event in events] == [0, 2]
    found, kernel = events[-1].histogram_value, model.get_layer("first").weights[0].value.astype(np.float64)
    assert (found.num, found.min, found.max) == (12, kernel.min(), kernel.max())
    assert found.sum == pytest.approx(kernel.sum())
    assert found.sum_squares == pytest.approx((kernel**2).sum())
    lower = [found.min, *found.bucket_limit[:-1]]
    for low, high, count in list(zip(lower, found.bucket_limit, found.bucket, strict=True))[:-1]:
        assert count == ((kernel >= low) & (kernel < high)).sum()
    image = reader.Images("first/kernel/image/0")[-1]
    assert (image.width, image.height) == (4, 3)
    pixels = np.asarray(Image.open(io.BytesIO(image.encoded_image_string)))
    np.testing.assert_array_equal(pixels, (np.clip(kernel.astype(np.float32), 0, 1) * 255).astype(np.uint8))


def test_what_cannot_be_counted_is_left_out_of_histograms() -> None:
    for array, count in (
        ([np.nan, np.inf, 2.0], 1),
        ([], 0),
        ([3.0, 3.0], 2),
        (np.arange(5, dtype=np.int32), 5),
    ):
        event = Event.FromString(b"\x2a" + _sized(histogram("w", np.asarray(array))))
        assert event.summary.value[0].histo.num == count
        assert sum(event.summary.value[0].histo.bucket) == count


def _sized(message: bytes) -> bytes:
    assert len(message) < 2**14
    return bytes([len(message) & 127 | 128, len(message) >> 7]) + message


def test_checksums_are_those_of_the_standard() -> None:
    """RFC 3720, appendix B.4."""
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(bytes(range(32))) == 0x46DD794E


def test_every_record_is_framed_with_its_length_and_checksums(tmp_path: Path) -> None:
    file = EventFile(tmp_path)
    file.write(b"", step=-1)
    file.close()
    (path,) = tmp_path.iterdir()
    raw, steps = path.read_bytes(), []
    while raw:
        (length,) = struct.unpack("<Q", raw[:8])
        body = raw[12 : 12 + length]
        for part, crc in ((raw[:8], raw[8:12]), (body, raw[12 + length : 16 + length])):
            rotated = struct.unpack("<I", crc)[0] - 0xA282EAD8 & 0xFFFFFFFF
            assert (rotated << 15 | rotated >> 17) & 0xFFFFFFFF == crc32c(part)
        steps.append(Event.FromString(body).step)
        raw = raw[16 + length :]
    assert steps == [0, -1]
    assert next(event.file_version for event in EventFileLoader(str(path)).Load()) == "brain.Event:2"


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_images_are_read_as_they_were_drawn(channels: int) -> None:
    pixels = np.random.default_rng(channels).integers(0, 256, (5, 7, channels), np.uint8)
    read = np.asarray(Image.open(io.BytesIO(png(pixels)))).reshape(5, 7, channels)
    np.testing.assert_array_equal(read, pixels)


def test_weights_of_every_rank_become_images() -> None:
    shapes = {(): [(1, 1, 1)], (5,): [(1, 5, 1)], (5, 2): [(2, 5, 1)], (3, 4, 1, 8): [(3, 4, 1)] * 3, (2, 2, 2, 2): []}
    for shape, expected in shapes.items():
        assert [image.shape for image in as_images(np.ones(shape))] == expected


def test_embeddings_are_written_for_the_projector(tmp_path: Path) -> None:
    model = Sequential([Input((2,), dtype="int32"), layers.Embedding(5, 3, name="words"), layers.Flatten()])
    model.compile("sgd", "mse")
    board = TensorBoard(tmp_path, embeddings_freq=1, embeddings_metadata={"words": "labels.tsv"})
    model.fit(np.ones((4, 2), np.int32), np.ones((4, 6)), verbose=0, callbacks=[board])
    text = (tmp_path / "projector_config.pbtxt").read_text()
    assert 'tensor_path: "words.tsv"' in text
    assert 'metadata_path: "labels.tsv"' in text
    np.testing.assert_allclose(np.loadtxt(tmp_path / "words.tsv"), model.get_weights()[0], rtol=1e-5)


def test_wrong_arguments_of_tensorboard_are_refused(tmp_path: Path) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"update_freq": 0}, 'must be "epoch", "batch" or a number of batches. Received: 0.'),
        ({"update_freq": "step"}, "Received: 'step'."),
        ({"histogram_freq": -1}, "`histogram_freq` of TensorBoard must be a number of epochs, or 0. Received: -1."),
        ({"profile_batch": 2}, "`profile_batch` of TensorBoard must be 0: kcompile writes no profiles. Received: 2."),
    ]
    for options, text in cases:
        assert error_of(ModelError, lambda options=options: TensorBoard(tmp_path, **options)).endswith(text)
    (tmp_path / "file").write_text("")
    board = TensorBoard(tmp_path / "file")
    assert error_of(ModelError, lambda: compiled().fit(X, Y, verbose=0, callbacks=[board])).startswith(
        "`log_dir` of TensorBoard must be a folder that can be written to: "
    )
