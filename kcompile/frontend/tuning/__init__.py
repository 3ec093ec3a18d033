"""Searches for hyper-parameters, in Keras Tuner's words, by Optuna."""

from kcompile.frontend.tuning.hypermodel import HyperModel
from kcompile.frontend.tuning.hyperparameters import HyperParameters
from kcompile.frontend.tuning.objective import Objective
from kcompile.frontend.tuning.trial_callbacks import PruningCallback
from kcompile.frontend.tuning.tuner import Tuner
from kcompile.frontend.tuning.tuners import BayesianOptimization, GridSearch, Hyperband, RandomSearch

__all__ = [
    "BayesianOptimization",
    "GridSearch",
    "HyperModel",
    "HyperParameters",
    "Hyperband",
    "Objective",
    "PruningCallback",
    "RandomSearch",
    "Tuner",
]
