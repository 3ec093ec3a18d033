"""Callbacks by Keras's names."""

from kcompile.frontend.training.callbacks.averages import SwapEMAWeights
from kcompile.frontend.training.callbacks.backup import BackupAndRestore
from kcompile.frontend.training.callbacks.base import Callback, CallbackList
from kcompile.frontend.training.callbacks.monitoring import EarlyStopping, ModelCheckpoint, ReduceLROnPlateau
from kcompile.frontend.training.callbacks.progress import ProgbarLogger
from kcompile.frontend.training.callbacks.simple import (
    CSVLogger,
    History,
    LambdaCallback,
    LearningRateScheduler,
    TerminateOnNaN,
)
from kcompile.frontend.training.callbacks.tensorboard import TensorBoard

__all__ = [
    "BackupAndRestore",
    "CSVLogger",
    "Callback",
    "CallbackList",
    "EarlyStopping",
    "History",
    "LambdaCallback",
    "LearningRateScheduler",
    "ModelCheckpoint",
    "ProgbarLogger",
    "ReduceLROnPlateau",
    "SwapEMAWeights",
    "TensorBoard",
    "TerminateOnNaN",
]
