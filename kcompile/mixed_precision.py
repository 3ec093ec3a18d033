"""Dtype policies, by the names that Keras gives them (``keras.mixed_precision``)."""

from kcompile.frontend.policies import dtype_policy, set_dtype_policy
from kcompile.frontend.training.optimizers import LossScaleOptimizer

global_policy, set_global_policy = dtype_policy, set_dtype_policy

__all__ = ["LossScaleOptimizer", "dtype_policy", "global_policy", "set_dtype_policy", "set_global_policy"]
