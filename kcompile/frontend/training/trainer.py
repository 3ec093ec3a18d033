"""The methods that make a model trainable, in Keras's words: `compile`, `fit`, `evaluate`, `predict` and their kin."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, cast

from kcompile.errors import ModelError
from kcompile.frontend import initializers
from kcompile.frontend.training import optimizers
from kcompile.frontend.training.callbacks.base import Callback, CallbackList
from kcompile.frontend.training.callbacks.progress import ProgbarLogger
from kcompile.frontend.training.callbacks.simple import History
from kcompile.frontend.training.checks import check_arguments
from kcompile.frontend.training.compiled import Compiled
from kcompile.frontend.training.data import Reader, built_for, split
from kcompile.frontend.training.free_reader import FreeReader
from kcompile.frontend.training.loop import (
    Sources,
    Start,
    as_logs,
    make_source,
    predict,
    test,
    train,
)
from kcompile.frontend.training.objectives import Objectives
from kcompile.frontend.training.optimizers import LossScaleOptimizer, Optimizer
from kcompile.frontend.training.steps import Steps, defines, has_own_steps, own_metrics

if TYPE_CHECKING:
    from kcompile.frontend.model import Model

Verbose = Literal["auto"] | int


class Trainer(Steps):
    """What a model inherits; a model that never trains pays for nothing here.

    Attributes:
        stop_training: set it to end `fit` after the present batch.
        history: of the last `fit`.
        start: where `fit` begins, where a callback restored an interrupted one.
        sources: what the present `fit` reads.
        not_compiled: why a model that was loaded could not be compiled as its file says.
    """

    stop_training: bool = False
    history: History | None = None
    start: Start | None = None
    sources: Sources | None = None
    not_compiled: str = ""
    _compiled: Compiled | None = None

    @property
    def _self(self) -> "Model":
        return cast("Model", self)

    def compile(
        self,
        optimizer: Any = "rmsprop",
        loss: Any = None,
        loss_weights: Any = None,
        metrics: Any = None,
        weighted_metrics: Any = None,
        run_eagerly: bool = False,
        steps_per_execution: int = 1,
        jit_compile: Any = "auto",
        auto_scale_loss: bool = True,
    ) -> None:
        """Say how to train.

        Args:
            optimizer: a name or an optimizer.
            loss: a name, a loss or a function ``(y_true, y_pred) -> values``; of several outputs, a list or a dict.
            loss_weights: factors of the outputs' losses.
            metrics: names, metrics or functions; of several outputs, in a list or a dict.
            weighted_metrics: metrics that take sample weights.
            run_eagerly: of no effect, as are the two arguments after it: a step is always one graph.
            auto_scale_loss: whether a model of the policy "mixed_float16" gets its optimizer in a `LossScaleOptimizer`.

        Raises:
            ModelError: there is no optimizer of that name.
        """
        del run_eagerly, steps_per_execution, jit_compile
        made = optimizers.get(optimizer)
        if auto_scale_loss and self._self.dtype == "mixed_float16" and not isinstance(made, LossScaleOptimizer):
            made = LossScaleOptimizer(made, name="loss_scale_optimizer")
        objectives = Objectives(loss, loss_weights, metrics, weighted_metrics)
        arguments = {
            "optimizer": optimizer,
            "loss": loss,
            "loss_weights": loss_weights,
            "metrics": metrics,
            "weighted_metrics": weighted_metrics,
        }
        self._compiled = Compiled(made, objectives, initializers.drawn_seed(), arguments)

    def get_compile_config(self) -> dict[str, Any]:
        """What files keep for `compile_from_config`: the arguments of `compile`, unless a subclass says otherwise."""
        from kcompile.frontend.training.saving import stated_arguments

        return stated_arguments(self._self) or {}

    def compile_from_config(self, config: Mapping[str, Any]) -> None:
        """Compile as `get_compile_config` of a model says.

        Raises:
            ModelError: it names what is not known here, or is damaged.
        """
        from kcompile.frontend.training.saving import compile_from

        compile_from(self._self, config)

    @property
    def compiled(self) -> bool:
        """Whether `compile` was called."""
        return self._compiled is not None and self._compiled.objectives is not None

    @property
    def compile_arguments(self) -> Mapping[str, Any]:
        """The arguments of `compile` as they were given; empty where it was not called."""
        return self._compiled.arguments if self._compiled else {}

    @property
    def loss(self) -> Any:
        """The argument `loss` of `compile`; None where it was not called."""
        return self.compile_arguments.get("loss")

    @property
    def optimizer(self) -> Optimizer:
        """The optimizer.

        Raises:
            ModelError: the model is not compiled.
        """
        found = self.require_compiled("optimizer").optimizer
        assert found is not None
        return found

    @property
    def metrics_names(self) -> list[str]:
        """The names of `metrics`."""
        return [metric.name for metric in self.metrics]

    def reset_metrics(self) -> None:
        """Make all metrics forget what they have seen."""
        for metric in self.metrics:
            metric.reset_state()

    def forget_batches(self) -> None:
        """Let a new epoch, or an evaluation, begin: all metrics forget what they have seen."""
        self._ready("an epoch").objectives_made.reset()
        if defines(self._self, "metrics"):
            self.reset_metrics()

    def require_compiled(self, method: str) -> Compiled:
        """What `compile` left.

        Raises:
            ModelError: it was not called; the text names the method that needs it.
        """
        if self._compiled is None or self._compiled.objectives is None:
            law = f"`{method}` needs a compiled model. Call model.compile(optimizer, loss) first."
            raise ModelError(f"{law} {self.not_compiled}".rstrip())
        return self._compiled

    def _ready(self, method: str) -> Compiled:
        """What `compile` left, told of the metrics that the model has now."""
        compiled = self.require_compiled(method)
        compiled.objectives_made.own = own_metrics(self._self)
        return compiled

    def _reader(self, compiled: Compiled) -> Reader:
        model = self._self
        objectives = compiled.objectives_made
        if has_own_steps(model, objectives):
            return FreeReader(model, ["data"])
        return Reader(model, objectives.needed(model.output_names))

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: Verbose = "auto",
        callbacks: Sequence[Callback] | Callback | None = None,
        validation_split: float = 0.0,
        validation_data: Any = None,
        shuffle: bool = True,
        class_weight: Mapping[int, float] | None = None,
        sample_weight: Any = None,
        initial_epoch: int = 0,
        steps_per_epoch: int | None = None,
        validation_steps: int | None = None,
        validation_batch_size: int | None = None,
        validation_freq: int | Sequence[int] = 1,
    ) -> History:
        """Train for a number of epochs.

        Args:
            x: arrays, alone or in a list or a dict by the inputs' names; or what gives batches ``(x, y)`` or
                ``(x, y, sample_weight)``: a generator, or a dataset with `__len__` and `__getitem__`.
            validation_split: the share of the samples, from the end, that are kept for validation.
            validation_data: ``(x, y)`` or ``(x, y, sample_weight)``, or what gives batches.
            class_weight: weights of the samples by their class.
            steps_per_epoch: batches that make an epoch, where the data does not say.

        Returns:
            The logs of all epochs.

        Raises:
            ModelError: the model is not compiled, or labels do not fit a loss or metric.
            InputError: the data does not fit the model.
        """
        compiled = self._ready("fit")
        check_arguments(
            batch_size=batch_size,
            epochs=epochs,
            callbacks=callbacks,
            validation_split=validation_split,
            class_weight=class_weight,
            initial_epoch=initial_epoch,
            steps_per_epoch=steps_per_epoch,
            validation_steps=validation_steps,
            validation_batch_size=validation_batch_size,
        )
        x = built_for(self._self, x)
        reader, data = self._reader(compiled), (x, y, sample_weight)
        if validation_split and validation_data is None:
            data, validation_data = split(data, validation_split)
        source = make_source(reader, data, batch_size, steps_per_epoch, shuffle, class_weight)
        validation = None
        if validation_data is not None:
            parts = _parts(validation_data)
            validation = make_source(reader, parts, validation_batch_size or batch_size, validation_steps)
        found, history = _with_history(callbacks)
        listed = self._listed(found, verbose, epochs, source.count)
        self.history = history
        train(self._self, compiled, source, validation, listed, range(initial_epoch, epochs), validation_freq)
        return history

    def _listed(self, callbacks: list[Callback], verbose: Verbose, epochs: int, steps: int | None) -> CallbackList:
        if verbose != 0 and not any(isinstance(callback, ProgbarLogger) for callback in callbacks):
            callbacks = [*callbacks, ProgbarLogger()]
        return CallbackList(callbacks, self._self, {"verbose": verbose, "epochs": epochs, "steps": steps})

    def evaluate(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        verbose: Verbose = "auto",
        sample_weight: Any = None,
        steps: int | None = None,
        callbacks: Sequence[Callback] | Callback | None = None,
        return_dict: bool = False,
    ) -> Any:
        """The loss and the metrics over data, without training.

        Returns:
            The loss, or a list of it and the metrics; with `return_dict` all of them by name.

        Raises:
            ModelError: the model is not compiled, or labels do not fit a loss or metric.
            InputError: the data does not fit the model.
        """
        compiled = self._ready("evaluate")
        check_arguments(batch_size=batch_size, steps=steps, callbacks=callbacks)
        x = built_for(self._self, x)
        source = make_source(self._reader(compiled), (x, y, sample_weight), batch_size, steps)
        logs = test(self._self, compiled, source, self._listed(_listed(callbacks), verbose, 1, source.count))
        return logs if return_dict else self._in_order(logs)

    def predict(
        self,
        x: Any,
        batch_size: int | None = None,
        verbose: Verbose = 0,
        steps: int | None = None,
        callbacks: Sequence[Callback] | Callback | None = None,
    ) -> Any:
        """The outputs for arrays or batches, computed with NumPy.

        Raises:
            InputError: the data does not fit the model.
        """
        check_arguments(batch_size=batch_size, steps=steps, callbacks=callbacks)
        compiled, x = self._ensured(), built_for(self._self, x)
        reader = FreeReader(self._self, []) if defines(self._self, "predict_step") else Reader(self._self, [])
        source = make_source(reader, (x, None, None), batch_size, steps)
        return predict(self._self, compiled, source, self._listed(_listed(callbacks), verbose, 1, source.count))

    def _ensured(self) -> Compiled:
        if self._compiled is None:
            self._compiled = Compiled()
        return self._compiled

    def train_on_batch(
        self,
        x: Any,
        y: Any = None,
        sample_weight: Any = None,
        class_weight: Mapping[int, float] | None = None,
        return_dict: bool = False,
    ) -> Any:
        """One step of training on one batch; the loss, or a list of it and the metrics, of that batch.

        Raises:
            ModelError: the model is not compiled, or labels do not fit a loss or metric.
            InputError: the data does not fit the model.
        """
        return self._on_batch("train", (x, y, sample_weight), class_weight, return_dict)

    def test_on_batch(self, x: Any, y: Any = None, sample_weight: Any = None, return_dict: bool = False) -> Any:
        """The loss, or a list of it and the metrics, of one batch.

        Raises:
            ModelError: the model is not compiled, or labels do not fit a loss or metric.
            InputError: the data does not fit the model.
        """
        return self._on_batch("test", (x, y, sample_weight), None, return_dict)

    def _on_batch(
        self,
        mode: Literal["train", "test"],
        data: tuple[Any, Any, Any],
        class_weight: Mapping[int, float] | None,
        return_dict: bool,
    ) -> Any:
        compiled = self._ready(f"{mode}_on_batch")
        built_for(self._self, data[0])
        reader = self._reader(compiled)
        count = reader.named(data[0]).size
        (batch,) = make_source(reader, data, max(count, 1), None, False, class_weight).batches
        self.reset_metrics()
        logs = as_logs(compiled.runner(self._self, mode).run(batch))
        return logs if return_dict else self._in_order(logs)

    def predict_on_batch(self, x: Any) -> Any:
        """The outputs for one batch.

        Raises:
            InputError: the arrays do not fit the model.
        """
        built_for(self._self, x)
        reader = FreeReader(self._self, []) if defines(self._self, "predict_step") else Reader(self._self, [])
        runner = self._ensured().runner(self._self, "predict")
        return runner.structured(runner.run(reader.cast(reader.named(x))))

    def _in_order(self, logs: dict[str, Any]) -> Any:
        """The logs as a list, in the order of the metrics; alone, the number."""
        names = [name for name in self.metrics_names if name in logs]
        if isinstance(self.loss, Mapping) and self._self.has_call and isinstance(self._self.output, Mapping):
            # Outputs in a dict are in the order of its keys, their losses in that of `loss`.
            order = {f"{name}_loss": number for number, name in enumerate(cast(Mapping[str, Any], self.loss))}
            names.sort(key=lambda name: order.get(name, -1))
        found = [logs[name] for name in (*names, *sorted(logs.keys() - set(names)))]
        return found[0] if len(found) == 1 else found


def _listed(callbacks: Sequence[Callback] | Callback | None) -> list[Callback]:
    return [callbacks] if isinstance(callbacks, Callback) else list(callbacks or ())


def _with_history(callbacks: Sequence[Callback] | Callback | None) -> tuple[list[Callback], History]:
    """Callbacks with a `History`, which is last so that it sees what the others add to the logs."""
    listed = _listed(callbacks)
    history = next((callback for callback in listed if isinstance(callback, History)), None)
    if history is None:
        history = History()
        listed.append(history)
    return listed, history


def _parts(data: Any) -> tuple[Any, Any, Any]:
    x, y, weights = ((*data, None, None) if isinstance(data, tuple) else (data, None, None))[:3]
    return x, y, weights
