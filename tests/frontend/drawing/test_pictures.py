"""Pictures of models and histories: what they hold, and in which files."""

import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from kcompile import Input, Model, Sequential, layers
from kcompile.cli.main import cli
from kcompile.errors import ModelError
from kcompile.frontend.drawing import model as drawing
from kcompile.frontend.drawing import plot_history, plot_model
from kcompile.frontend.drawing.history import _of
from kcompile.frontend.layer_graph import layer_nodes
from tests.frontend.errors import error_of

SHOWN = {"show_shapes": True, "show_dtype": True, "show_layer_names": True, "show_layer_activations": True}


def branching() -> Model:
    x = Input((8, 8, 3), name="image")
    y = layers.Conv2D(4, 3, padding="same", activation="relu", name="left")(x)
    z = layers.Conv2D(4, 3, padding="same", name="right", trainable=False)(x)
    joined = layers.Concatenate(name="joined")([y, z])
    return Model(x, [layers.Flatten(name="flat")(joined), layers.Add(name="sum")([y, z])])


def nested() -> Sequential:
    inner = Sequential([Input((4,)), layers.Dense(3, name="hidden"), layers.ReLU(name="relu")], name="inner")
    return Sequential([Input((4,), name="x"), inner, layers.Dense(2, name="head")])


def blocks(model: Model, **options: bool) -> dict[str, list[str]]:
    """The lines of all boxes by their titles, and those in frames."""
    given = {"shapes": False, "dtype": False, "names": True, "activations": False, "trainable": False, "nested": False}
    scene = drawing._scene(model, drawing._Shown(**{**given, "sideways": False, **options}))
    found = {}
    for block in scene.blocks:
        found[block.title] = block.lines
        if block.inner is not None:
            found.update({f"{block.title}/{b.title}": b.lines for b in block.inner.blocks})
    return found


def test_boxes_say_what_is_asked_for() -> None:
    found = blocks(branching(), shapes=True, dtype=True, activations=True, trainable=True)
    assert list(found) == [
        "image (InputLayer)",
        "left (Conv2D)",
        "right (Conv2D)",
        "joined (Concatenate)",
        "flat (Flatten)",
        "sum (Add)",
    ]
    assert found["image (InputLayer)"] == ["out: (None, 8, 8, 3)", "dtype: float32"]
    shapes = ["in: (None, 8, 8, 3)", "out: (None, 8, 8, 4)", "dtype: float32"]
    assert found["left (Conv2D)"] == ["activation: relu", *shapes, "trainable"]
    assert found["right (Conv2D)"] == ["activation: linear", *shapes, "frozen"]
    assert found["sum (Add)"][0] == "in: 2 × (None, 8, 8, 4)"
    assert all(lines == [] for lines in blocks(branching()).values())


def test_models_inside_are_boxes_or_frames() -> None:
    assert list(blocks(nested())) == ["x (InputLayer)", "inner (Sequential)", "head (Dense)"]
    framed = blocks(nested(), nested=True)
    assert "inner (Sequential)/hidden (Dense)" in framed


class Coded(Model):
    """A layer that is called twice, ops of its own, and a model inside."""

    def __init__(self) -> None:
        super().__init__(name="coded")
        self.first, self.drop = layers.Dense(4, name="first"), layers.Dropout(0.5, name="drop")
        self.inner = Sequential([layers.Dense(4, name="hidden")], name="inner")
        self.attention = layers.MultiHeadAttention(1, 2, name="attention")

    def call(self, x: Any, training: bool = False) -> Any:
        y = self.first(self.drop(self.first(x), training=training) * 2.0)
        return self.attention(self.inner(y) + y, x)


def test_a_model_that_is_code_is_shown_by_its_layers() -> None:
    model = Coded()
    model.build((None, 3, 4))
    nodes = [(node.name, node.kind, node.inputs) for node in layer_nodes(model)]
    assert nodes == [
        ("x", "InputLayer", ()),
        ("first", "Dense", ("x",)),
        ("mul", "mul", ("first",)),
        ("first_1", "Dense", ("mul",)),
        ("inner", "Sequential", ("first_1",)),
        ("add", "add", ("inner", "first_1")),
        ("attention", "MultiHeadAttention", nodes[-1][2]),
    ]
    assert sorted(nodes[-1][2]) == ["add", "x"]
    assert "inner (Sequential)/hidden (Dense)" in blocks(model, nested=True, shapes=True)


@pytest.mark.parametrize("make", [branching, nested])
@pytest.mark.parametrize("rankdir", ["TB", "LR"])
def test_texts_fit_into_their_boxes_and_frames_hold_what_is_in_them(make: Any, rankdir: str) -> None:
    shown = drawing._Shown(True, True, True, True, True, nested=True, sideways=rankdir == "LR")
    for block in drawing._scene(make(), shown).blocks:
        width, height = block.size
        inside = block.inner.layout.size if block.inner else (0.0, 0.0)
        assert all(drawing._width(line, drawing._TEXT) < width for line in block.lines)
        assert drawing._width(block.title, drawing._TITLE, bold=True) < width
        assert (inside[1] if rankdir == "LR" else inside[0]) < width
        assert (inside[0] if rankdir == "LR" else inside[1]) < height


@pytest.mark.parametrize("rankdir", ["TB", "LR"])
def test_a_model_becomes_a_png_and_an_svg(rankdir: str, tmp_path: Path) -> None:
    plot_model(branching(), tmp_path / "m.png", rankdir=rankdir, dpi=60, **SHOWN)
    plot_model(nested(), tmp_path / "m.svg", rankdir=rankdir, expand_nested=True, **SHOWN)
    width, height = Image.open(tmp_path / "m.png").size
    assert (height > width) == (rankdir == "TB")
    pixels = np.asarray(Image.open(tmp_path / "m.png").convert("RGB"))
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 20
    assert ElementTree.parse(tmp_path / "m.svg").getroot().tag.endswith("svg")


def test_the_same_picture_is_the_same_file(tmp_path: Path) -> None:
    for name in ("a.svg", "b.svg"):
        plot_model(branching(), tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_a_long_model_still_fits_into_a_png(tmp_path: Path) -> None:
    model = Sequential([Input((2,)), *(layers.ReLU() for _ in range(300))])
    plot_model(model, tmp_path / "long.png", dpi=200)
    assert 25_000 < Image.open(tmp_path / "long.png").size[1] <= 30_000


def test_curves_of_a_history(tmp_path: Path) -> None:
    model = Sequential([Input((3,)), layers.Dense(1)])
    model.compile("sgd", "mse", metrics=["mae"])
    x, y = np.ones((8, 3)), np.ones((8, 1))
    history = model.fit(x, y, epochs=3, verbose=0, validation_data=(x, y))
    assert plot_history(history, tmp_path / "h.png") == tmp_path / "h.png"
    width, height = Image.open(tmp_path / "h.png").size
    assert width > 2 * height
    plot_history({"loss": [1.0], "val_auc": [0.5], "learning_rate": [0.1]}, tmp_path / "h.svg")
    text = (tmp_path / "h.svg").read_text()
    assert [title in text for title in ("<!-- loss -->", "<!-- auc -->", "<!-- learning rate -->")] == [True] * 3
    assert "<!-- training -->" not in text
    plot_history(history.history, tmp_path / "h.svg")
    assert "<!-- validation -->" in (tmp_path / "h.svg").read_text()


def test_a_curve_with_fewer_values_has_one_every_so_many_epochs() -> None:
    assert _of([1, 2, 3, 4, 5], [0.1, 0.2, 0.3, 0.4, 0.5]) == [1, 2, 3, 4, 5]
    assert _of([1, 2, 3, 4, 5], [0.1, 0.2]) == [2, 4]
    assert _of([4, 5, 6], [0.1]) == [6]


def test_wrong_arguments_of_pictures_are_refused(tmp_path: Path) -> None:
    for make, text in (
        (lambda: plot_model(branching(), "m.bmp"), "is written to a .png, .svg, .pdf file. Received: 'm.bmp'."),
        (lambda: plot_model(branching(), "m.png", rankdir="UP"), '`rankdir` must be "TB" or "LR". Received: \'UP\'.'),
        (lambda: plot_model([1], "m.png"), "`plot_model` takes a model. Received: list."),  # type: ignore[arg-type]
        (lambda: plot_model(Sequential([layers.Dense(1)]), "m.png"), "call model.build((None, ...))."),
        (lambda: plot_history({}, "h.png"), "`history` must have at least one epoch. Received: none."),
        (lambda: plot_history([1], "h.png"), "or its `history`. Received: list."),  # type: ignore[arg-type]
        (lambda: plot_history({"loss": [1]}, tmp_path / "none" / "h.png"), "No such file or directory."),
    ):
        assert error_of(ModelError, make).endswith(text)


def test_a_picture_from_the_command_line(tmp_path: Path) -> None:
    nested().save(tmp_path / "m.keras")
    result = CliRunner().invoke(cli, ["plot", str(tmp_path / "m.keras"), "-o", str(tmp_path / "m.svg"), "--nested"])
    assert result.exit_code == 0, result.output
    assert "hidden (Dense)" in (tmp_path / "m.svg").read_text()


def test_pictures_say_what_to_install_where_matplotlib_is_missing() -> None:
    code = """
import sys
sys.modules["matplotlib"] = sys.modules["matplotlib.figure"] = None
import kcompile
kcompile.plot_history({"loss": [1.0]}, "h.png")
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert 'MissingExtra: pictures need Matplotlib. Install it with: pip install "kcompile[plot]"' in result.stderr
