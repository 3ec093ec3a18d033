"""The arguments of `compile` as Keras's files hold them, and a model compiled again from there."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from kcompile.errors import ModelError
from kcompile.frontend import registry
from kcompile.frontend.objects import serialize_keras_object
from kcompile.frontend.training import losses, metrics, optimizers
from kcompile.frontend.training.losses import Loss
from kcompile.frontend.training.metrics import Metric
from kcompile.frontend.training.optimizers import MultiOptimizer, Optimizer, OptimizerMap
from kcompile.frontend.training.optimizers.schedules import SCHEDULES
from kcompile.frontend.training.paths import weight_paths
from kcompile.frontend.training.trainer import Trainer

if TYPE_CHECKING:
    from kcompile.frontend.model import Model

_ARGUMENTS = ("loss", "loss_weights", "metrics", "weighted_metrics")

# Arguments in the configs of Keras 1 and 2 that say nothing about the numbers.
_WITHOUT_MEANING = {"jit_compile", "is_legacy_optimizer"}


class NotSaved(Exception):
    """An argument of `compile` is of the user's own making, which a config cannot hold."""


def compile_config(model: "Model") -> dict[str, Any] | None:
    """What the model was compiled with, as Keras 3 writes it; None for a model that was not compiled.

    Raises:
        NotSaved: an argument is a function or class of the user's own.
    """
    if type(model).get_compile_config is not Trainer.get_compile_config:
        return serialize_keras_object(model.get_compile_config())
    return stated_arguments(model)


def stated_arguments(model: "Model") -> dict[str, Any] | None:
    """The arguments of `compile` as configs; None for a model that was not compiled.

    Raises:
        NotSaved: an argument is a function or class of the user's own.
    """
    if not model.compiled:
        return None
    given = model.compile_arguments
    config = {"optimizer": _serialized(model.optimizer)}
    config.update({name: _serialized(given.get(name)) for name in _ARGUMENTS})
    return {**config, "run_eagerly": False, "steps_per_execution": 1, "jit_compile": False}


def training_config(model: "Model") -> dict[str, Any] | None:
    """The same as ``.h5`` files hold it."""
    config = compile_config(model)
    if config is None:
        return None
    optimizer = config.pop("optimizer")
    return {**config, "optimizer_config": {key: optimizer[key] for key in ("class_name", "config")}}


def _serialized(value: Any) -> Any:
    known = {id(function): name for name, function in losses.FUNCTIONS.items()}
    match value:
        case None | str() | int() | float():
            return value
        case Mapping():
            return {str(key): _serialized(item) for key, item in value.items()}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        case list() | tuple():
            return [_serialized(item) for item in value]  # pyright: ignore[reportUnknownVariableType]
        case MultiOptimizer() if not isinstance(value.optimizer_map, OptimizerMap):
            raise NotSaved("the function that chooses the optimizers of a MultiOptimizer")
        case Optimizer() if type(value) in optimizers.OPTIMIZERS.values() and all(map(_is_known, _schedules(value))):
            return optimizers.serialize(value)
        case Loss() if type(value) in losses.CLASSES:
            return losses.serialize(value)
        case Metric() if type(value) in metrics.CLASSES:
            return metrics.serialize(value)
        case _ if id(value) in known:
            return known[id(value)]
        case _ if registry.registered_name(value) or registry.registered_name(type(value)):
            return serialize_keras_object(value)
        case _:
            raise NotSaved(getattr(value, "__name__", type(value).__name__))


def _schedules(optimizer: Optimizer) -> list[Any]:
    inner = optimizer.optimizers if isinstance(optimizer, MultiOptimizer) else []
    return [optimizer.schedule, *(each.schedule for each in inner)]


def _is_known(schedule: Any) -> bool:
    return schedule is None or type(schedule) in SCHEDULES.values() or bool(registry.registered_name(type(schedule)))


def compile_from(model: "Model", config: Mapping[str, Any]) -> None:
    """Compile the model as a config of any generation of Keras says.

    Raises:
        ModelError: it names what is not known here, or is damaged.
    """
    if type(model).compile_from_config is not Trainer.compile_from_config:
        _compile_by_own_code(model, config)
        return
    if type(model).compile is not Trainer.compile:
        raise ModelError(f"{type(model).__name__} defines `compile`, which files know nothing of. Call it yourself.")
    try:
        optimizer = optimizers.get(_optimizer(config.get("optimizer", config.get("optimizer_config"))))
        arguments = {name: config.get(name) for name in _ARGUMENTS}
        arguments["loss"] = _mapped(arguments["loss"], _loss)
        for name in ("metrics", "weighted_metrics"):
            arguments[name] = _flat(_mapped(arguments[name], _metric), len(model.outputs) if model.is_traced else 1)
    except (TypeError, ValueError, LookupError, AttributeError, RecursionError) as error:
        raise ModelError(f"the arguments of `compile` are damaged ({error}).") from None
    loss, loss_weights, listed, weighted = (arguments[name] for name in _ARGUMENTS)
    model.compile(optimizer, loss, loss_weights, listed, weighted)
    optimizer.build(model.trainable_weights, weight_paths(model))


def _compile_by_own_code(model: "Model", config: Mapping[str, Any]) -> None:
    try:
        model.compile_from_config(config)
    except (TypeError, ValueError, LookupError, AttributeError) as error:
        law = f"`compile_from_config` of {type(model).__name__} must take what the file holds: {', '.join(config)}"
        raise ModelError(f"{law}. {type(error).__name__}: {error}.") from error


def _mapped(value: Any, leaf: Callable[[Any], Any]) -> Any:
    """A structure of names and configs with `leaf` of each."""
    if isinstance(value, list | tuple):
        return [_mapped(item, leaf) for item in value]  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, Mapping) and "class_name" not in value:
        return {str(key): _mapped(item, leaf) for key, item in value.items()}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    return None if value is None else leaf(value)


def _flat(listed: Any, outputs: int) -> Any:
    """The metrics of a single output, which Keras 2 wrote as a list in a list."""
    alone = outputs == 1 and isinstance(listed, list) and len(listed) == 1  # pyright: ignore[reportUnknownArgumentType]
    return listed[0] if alone and isinstance(listed[0], list) else listed  # pyright: ignore[reportUnknownVariableType]


def _loss(spec: Any) -> Any:
    return losses.get(_without_generation(spec)) if isinstance(spec, Mapping) else _known(losses.get, spec)  # pyright: ignore[reportUnknownArgumentType]


def _metric(spec: Any) -> Any:
    """A metric's name or config; it is made where it is first needed, since it may hold much."""
    if not isinstance(spec, Mapping):
        return _known(metrics.get, spec)
    found: dict[str, Any] = _without_generation(spec)  # pyright: ignore[reportUnknownArgumentType]
    config = found["config"]
    if found["class_name"] == "function":
        return _known(metrics.get, config)
    if found["class_name"] != "MeanMetricWrapper":
        return found
    metric = metrics.get(config["fn"])
    metric.name = str(config.get("name", metric.name))
    return metric


def _known(get: Callable[[str], Any], name: str) -> str:
    """The name, which must be known; some stand for what fits the shapes."""
    if name not in ("accuracy", "acc", "crossentropy", "ce"):
        get(name)
    return name


def _without_generation(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The config of a loss or metric without what Keras 2 said besides."""
    if not isinstance(spec["config"], Mapping):
        return dict(spec)
    config: dict[str, Any] = dict(spec["config"])  # pyright: ignore[reportUnknownArgumentType]
    if config.get("reduction") == "auto":
        config["reduction"] = "sum_over_batch_size"
    if spec["class_name"] != "MeanMetricWrapper":
        config.pop("fn", None)
    return {**spec, "config": config}


def _optimizer(spec: Any) -> dict[str, Any]:
    """The config of an optimizer in Keras 3's words."""
    config: dict[str, Any] = {key: value for key, value in spec["config"].items() if key not in _WITHOUT_MEANING}
    if "lr" in config:
        config["learning_rate"] = config.pop("lr")
    if decay := config.pop("decay", None):
        steps = {"initial_learning_rate": config["learning_rate"], "decay_steps": 1, "decay_rate": decay}
        config["learning_rate"] = {"class_name": "InverseTimeDecay", "config": steps}
    return {"class_name": str(spec["class_name"]).split(">")[-1], "config": config}
