"""Optimizers by Keras's names, and `get`."""

from collections.abc import Mapping
from typing import Any

from kcompile.errors import ModelError
from kcompile.frontend import registry
from kcompile.frontend.training.optimizers import schedules
from kcompile.frontend.training.optimizers.adafactor import Adafactor
from kcompile.frontend.training.optimizers.adam import Adam, Adamax, AdamW, Lamb, Nadam
from kcompile.frontend.training.optimizers.base import Optimizer
from kcompile.frontend.training.optimizers.gradient import SGD, Adadelta, Adagrad, Ftrl, Lion, RMSprop
from kcompile.frontend.training.optimizers.loss_scale import LossScaleOptimizer
from kcompile.frontend.training.optimizers.multi import MultiOptimizer, OptimizerMap
from kcompile.frontend.training.optimizers.muon import Muon
from kcompile.frontend.training.optimizers.schedule_free import ScheduleFreeAdamW

OPTIMIZERS: dict[str, type[Optimizer]] = {
    cls.__name__: cls
    for cls in (
        SGD,
        Adadelta,
        Adafactor,
        Adagrad,
        Adam,
        AdamW,
        Adamax,
        Ftrl,
        Lamb,
        Lion,
        LossScaleOptimizer,
        MultiOptimizer,
        Muon,
        Nadam,
        RMSprop,
        ScheduleFreeAdamW,
    )
}


def get(identifier: Any) -> Optimizer:
    """The optimizer that a name, a config or an optimizer stands for.

    Raises:
        ModelError: there is none of that name, or it does not take these arguments.
    """
    if isinstance(identifier, Optimizer):
        return identifier
    parts: Any = {"class_name": identifier, "config": {}} if isinstance(identifier, str) else identifier
    found = registry.find(parts.get("registered_name"), parts.get("class_name")) if isinstance(parts, Mapping) else None
    by_name = {name.lower(): cls for name, cls in OPTIMIZERS.items()}
    cls = found or (by_name.get(str(parts.get("class_name")).lower()) if isinstance(parts, Mapping) else None)
    if cls is None:
        law = f"an optimizer must be an optimizer object or one of {', '.join(OPTIMIZERS)}"
        raise ModelError(f"{law}. Received: {identifier!r}.")
    try:
        return cls.from_config(parts.get("config") or {})
    except TypeError:
        raise ModelError(f"optimizer {cls.__name__} does not take these arguments: {parts['config']}.") from None


def serialize(optimizer: Optimizer) -> dict[str, Any]:
    """`optimizer` as Keras 3 writes it."""
    return {
        "module": "keras.optimizers",
        "class_name": type(optimizer).__name__,
        "config": optimizer.get_config(),
        "registered_name": None,
    }


__all__ = [
    "OPTIMIZERS",
    "SGD",
    "Adadelta",
    "Adafactor",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Ftrl",
    "Lamb",
    "Lion",
    "LossScaleOptimizer",
    "MultiOptimizer",
    "Muon",
    "Nadam",
    "Optimizer",
    "OptimizerMap",
    "RMSprop",
    "ScheduleFreeAdamW",
    "get",
    "schedules",
    "serialize",
]
