"""Random numbers, by the names that Keras gives what draws them (``keras.random``)."""

from kcompile.frontend.randomness import SeedGenerator, categorical, dropout, normal, randint, truncated_normal, uniform

__all__ = ["SeedGenerator", "categorical", "dropout", "normal", "randint", "truncated_normal", "uniform"]
