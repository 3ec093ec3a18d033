"""Weights for models that nobody trained."""

import numpy as np

import kcompile


def spread(model: kcompile.Model, seed: int = 0) -> kcompile.Model:
    """`model` with numbers for the weights that start as 0 or 1, biases and statistics; a compiler drops such ones."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        array = np.asarray(weight.value)
        if not array.any():
            weight.assign(rng.uniform(-0.1, 0.1, array.shape).astype(array.dtype))
        elif (array == 1).all():
            weight.assign(rng.uniform(0.5, 1.0, array.shape).astype(array.dtype))
    return model
