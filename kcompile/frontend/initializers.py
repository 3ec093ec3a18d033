"""Initializers: how new weights are filled, with the formulas of https://keras.io/api/layers/initializers/."""
