"""Weights that have optimizers of their own each; the rules of ``keras/src/optimizers/multi_optimizer.py``."""

import re
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from kcompile.errors import ModelError
from kcompile.frontend.training.optimizers.base import Moment, Optimizer, Slots
from kcompile.frontend.training.optimizers.loss_scale import LossScaleOptimizer
from kcompile.frontend.training.state import Pack, State
from kcompile.frontend.weight import Weight
from kcompile.ir.expression import Expression

Constraints = Mapping[Weight, Callable[[Expression], Expression]]


@dataclass(frozen=True)
class Variable:
    """A weight as functions see it that choose its optimizer: ``"encoder/dense/kernel"``."""

    path: str
    name: str
    shape: tuple[int, ...]
    dtype: str


class OptimizerMap(MutableMapping[str, Optimizer]):
    """Optimizers by the paths of weights.

    Args:
        default_optimizer: for all weights that the map does not name.
        optimizer_map: by paths, or by regular expressions that match whole paths (``"encoder/.*"``).

    Raises:
        ModelError: an entry is no optimizer.
    """

    def __init__(self, default_optimizer: Any, optimizer_map: Mapping[str, Any] | None = None) -> None:
        self.default_optimizer = _checked("default_optimizer", default_optimizer)
        self._by_path: dict[str, Optimizer] = {}
        for key, optimizer in (optimizer_map or {}).items():
            self[key] = optimizer

    def __getitem__(self, key: str) -> Optimizer:
        if key in self._by_path:
            return self._by_path[key]
        found = [pattern for pattern in self._by_path if re.fullmatch(pattern, key)]
        if len(found) > 1:
            law = f"one pattern at most of an OptimizerMap may match the weight {key!r}"
            raise ModelError(f"{law}. Received: {', '.join(map(repr, found))}.")
        return self._by_path[found[0]] if found else self.default_optimizer

    def __setitem__(self, key: str, optimizer: Any) -> None:
        if key in self._by_path:
            raise ModelError(f"{key!r} stands in the OptimizerMap already. Take it out first.")
        self._by_path[key] = _checked(f"optimizer_map[{key!r}]", optimizer)

    def __delitem__(self, key: str) -> None:
        del self._by_path[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_path)

    def __len__(self) -> int:
        return len(self._by_path)

    def __call__(self, variable: Variable) -> Optimizer:
        """The optimizer of a weight."""
        return self[variable.path]

    def get_config(self) -> dict[str, Any]:
        """The optimizers, as Keras writes them."""
        from kcompile.frontend.training.optimizers import serialize

        by_path = {key: serialize(optimizer) for key, optimizer in self._by_path.items()}
        return {"default_optimizer": serialize(self.default_optimizer), "optimizer_map": by_path}

    def serialized(self) -> dict[str, Any]:
        """The map as Keras 3 writes it, with its class."""
        named = {"module": "keras.optimizers", "class_name": "OptimizerMap"}
        return {**named, "config": self.get_config(), "registered_name": None}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """The map that `config` describes."""
        from kcompile.frontend.training.optimizers import get

        by_path = {key: get(each) for key, each in (config.get("optimizer_map") or {}).items()}
        return cls(get(config["default_optimizer"]), by_path)


def _checked(argument: str, optimizer: Any) -> Optimizer:
    if not isinstance(optimizer, Optimizer) or isinstance(optimizer, LossScaleOptimizer | MultiOptimizer):
        law = f"`{argument}` must be an optimizer, and none that wraps others"
        raise ModelError(f"{law}. Received: {type(optimizer).__name__}.")
    return optimizer


class MultiOptimizer(Optimizer):
    """An optimizer for each weight, as a map or a function says.

    Args:
        optimizer_map: an `OptimizerMap`, or a function from a weight, with its `path`, to its optimizer.
        loss_scale_factor: in the place of those of the optimizers.

    Raises:
        ModelError: the map is neither.
    """

    elementwise = False

    def __init__(self, optimizer_map: Any, loss_scale_factor: float | None = None, name: str | None = None) -> None:
        super().__init__(0.0, loss_scale_factor=loss_scale_factor, name=name)
        self.require(callable(optimizer_map), "optimizer_map", optimizer_map, "an OptimizerMap or a function")
        self.optimizer_map = optimizer_map
        self.optimizers: list[Optimizer] = []
        self._of: dict[Weight, Optimizer] = {}
        if isinstance(optimizer_map, OptimizerMap):
            self._add(*optimizer_map.values(), optimizer_map.default_optimizer)

    def _add(self, *optimizers: Optimizer) -> None:
        for optimizer in optimizers:
            optimizer.loss_scale_factor = self.loss_scale_factor
            if not any(optimizer is each for each in self.optimizers):
                self.optimizers.append(optimizer)

    def update(self, w: Expression, g: Expression, slots: Slots, moment: Moment) -> tuple[Expression, Slots]:
        law = "the optimizers of a MultiOptimizer update weights, each its own"
        raise ModelError(f"{law}. Received: an update by the MultiOptimizer itself.")

    def build(self, weights: Sequence[Weight], paths: Mapping[Weight, str] | None = None) -> None:
        if self.weights == list(weights):
            return
        self.weights, self.paths = list(weights), paths or {}
        self._of = {weight: self._chosen(weight) for weight in self.weights}
        self._add(*self._of.values())
        for optimizer in self.optimizers:
            optimizer.build([weight for weight in self.weights if self._of[weight] is optimizer], paths)
        names = {name for optimizer in self.optimizers for name in optimizer.slots}
        self.slots = {
            name: {w: slot for each in self.optimizers for w, slot in each.slots.get(name, {}).items()}
            for name in names
        }

    def _chosen(self, weight: Weight) -> Optimizer:
        path = self.paths.get(weight, weight.name)
        found = self.optimizer_map(Variable(path, weight.name, weight.shape, weight.dtype))
        return _checked(f"optimizer_map({path!r})", found)

    def write(
        self,
        state: State,
        gradients: Sequence[Expression],
        weights: Sequence[Weight],
        pack: Pack | None = None,
        constraints: Constraints | None = None,
    ) -> None:
        pairs = list(zip(weights, gradients, strict=True))
        for optimizer in self.optimizers:
            own = [(weight, gradient) for weight, gradient in pairs if self._of[weight] is optimizer]
            if own:
                # A LossScaleOptimizer around this one takes the factor off.
                optimizer.loss_scale_factor = self.loss_scale_factor
                optimizer.write(state, [gradient for _, gradient in own], [w for w, _ in own], None, constraints)
        state.write(self.iteration, (state.expression(self.iteration) + 1).value)

    @property
    def learning_rate(self) -> Any:
        law = "a MultiOptimizer has no learning rate of its own"
        raise ModelError(f"{law}. Each of `optimizers` has one.")

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        law = "a MultiOptimizer has no learning rate of its own"
        raise ModelError(f"{law}. Received: {value}. Set that of each of `optimizers`.")

    @property
    def rates(self) -> dict[str, float]:
        return {f"learning_rate_{i}_{each.name}": each.learning_rate for i, each in enumerate(self.optimizers)}

    @property
    def variables(self) -> list[Weight]:
        return [self.iteration, self.rate, *(v for optimizer in self.optimizers for v in optimizer.variables)]

    def finalize(self) -> None:
        for optimizer in self.optimizers:
            optimizer.finalize()

    def get_config(self) -> dict[str, Any]:
        from kcompile.frontend.objects import serialize_keras_object

        given = self.optimizer_map
        found = given.serialized() if isinstance(given, OptimizerMap) else serialize_keras_object(given)
        return {"optimizer_map": found, "loss_scale_factor": self.loss_scale_factor, "name": self.name}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        from kcompile.frontend.objects import deserialize_keras_object

        arguments = dict(config)
        found = arguments.pop("optimizer_map", None)
        is_map = isinstance(found, Mapping) and found.get("class_name") == "OptimizerMap"  # pyright: ignore[reportUnknownMemberType]
        made = OptimizerMap.from_config(found["config"]) if is_map else deserialize_keras_object(found)  # pyright: ignore
        return cls(made, **arguments)
