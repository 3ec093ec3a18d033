"""Files that Keras 3 writes as ``.h5``, made by hand."""

from pathlib import Path

import numpy as np
import pytest

from kcompile.frontend import load_model
from tests.frontend.old_files import dense_weights, layer, sequential, write_h5


def test_layers_that_are_named_as_parts_of_the_other_layout_are_read(tmp_path: Path, rng: np.random.Generator) -> None:
    names = ("vars", "layers", "_layer_checkpoint_dependencies", "kernel")
    groups = {name: dense_weights(rng, f"sequential/{name}", 3, 3) for name in names}
    dense = [layer("Dense", name=name, units=3) for name in names]
    dense[0]["config"]["batch_input_shape"] = [None, 3]
    model = load_model(write_h5(tmp_path / "m.h5", sequential(*dense), groups, "3.15.0"))
    x = rng.normal(size=(2, 3)).astype(np.float32)
    expected = x
    for arrays in groups.values():
        kernel, bias = arrays.values()
        expected = expected @ kernel + bias
    np.testing.assert_allclose(model.predict(x), expected, rtol=1e-4)


@pytest.mark.parametrize("alpha", [None, 3.0])
def test_low_rank_updates_beside_a_kernel_are_added_to_it(
    alpha: float | None, tmp_path: Path, rng: np.random.Generator
) -> None:
    shapes = {"bias": (3,), "lora_kernel_a": (4, 2), "lora_kernel_b": (2, 3), "kernel": (4, 3)}
    arrays = {f"sequential/d/{key}": rng.normal(size=shape).astype(np.float32) for key, shape in shapes.items()}
    config = {"units": 3, "lora_rank": 2, "lora_alpha": alpha, "batch_input_shape": [None, 4]}
    spec = sequential(layer("Dense", name="d", **config))
    model = load_model(write_h5(tmp_path / "m.h5", spec, {"d": arrays}, "3.15.0"))
    bias, a, b, kernel = arrays.values()
    x = rng.normal(size=(2, 4)).astype(np.float32)
    expected = x @ (kernel + (alpha or 2.0) / 2 * a @ b) + bias
    np.testing.assert_allclose(model.predict(x), expected, rtol=1e-4, atol=1e-5)
