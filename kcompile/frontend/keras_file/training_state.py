"""How a model was compiled, and the state of its optimizer, in files.

Keras 3 numbers the optimizer's variables: under ``optimizer/vars`` in ``.keras`` and ``.weights.h5`` files, in ``.h5``
files by the order of ``weight_names``.
"""

import json
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from kcompile.errors import ModelError
from kcompile.frontend.keras_file import hdf5
from kcompile.frontend.keras_file.version import KerasVersion
from kcompile.frontend.model import Model
from kcompile.frontend.training.optimizers import Optimizer
from kcompile.frontend.training.saving import NotSaved, compile_config, compile_from, training_config
from kcompile.ir.types import Array

STORE = "optimizer"
_H5 = "optimizer_weights"


# -- writing ----------------------------------------------------------------------------------------------------------


def stated(model: Model, old: bool = False) -> dict[str, Any] | None:
    """The arguments of `compile` for a config, in the form of ``.h5`` files where `old`; warns where they hold code."""
    try:
        return training_config(model) if old else compile_config(model)
    except NotSaved as problem:
        law = f"model `{model.name}` is saved without the arguments of `compile`"
        warnings.warn(f"{law}, which hold code of your own: {problem}.", stacklevel=2)
        return None


def write_store(root: hdf5.Group, model: Model) -> None:
    """Write the optimizer's state to a store of Keras 3."""
    if not model.compiled:
        return
    group = root.create_group(f"{STORE}/vars")
    group.attrs["name"] = model.optimizer.name
    for number, variable in enumerate(model.optimizer.variables):
        group.create_dataset(str(number), data=variable.value)


def named_state(model: Model) -> Iterator[tuple[str, Array]]:
    """The optimizer's variables under names of their own, as ``.h5`` files list them."""
    optimizer, counts = model.optimizer, Counter[str]()
    for variable in optimizer.variables:
        number = counts[variable.name]
        counts[variable.name] += 1
        yield f"{optimizer.name}/{variable.name}" + (f"_{number}" if number else ""), variable.array


# -- reading ----------------------------------------------------------------------------------------------------------


def compile_from_config(model: Model, config: Any) -> bool:
    """Compile a model as its file says; whether that could be done."""
    if not isinstance(config, Mapping) or not config:
        return False
    try:
        compile_from(model, config)  # pyright: ignore[reportUnknownArgumentType]
    except ModelError as problem:
        model.not_compiled = f"It could not be compiled as its file says: {problem}"
        return False
    return True


def assign_store(model: Model, root: hdf5.Group, where: str) -> None:
    """Give the optimizer of a compiled model, if it is built, the state in a store of Keras 3."""
    group = hdf5.child(root, f"{STORE}/vars", where)
    if group is not None and hdf5.is_group(group) and model.compiled and model.optimizer.weights:
        found = [hdf5.child(group, str(number), where) for number in range(len(group))]
        _assign(model.optimizer, found, where)


def compile_from_h5(model: Model, root: hdf5.Group, version: KerasVersion, where: str) -> None:
    """Compile a model as its ``.h5`` file says, and give the optimizer its state where Keras 3 wrote it."""
    text = hdf5.attribute(root, "training_config")
    try:
        config = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        config = None
    group = hdf5.child(root, _H5, where)
    if compile_from_config(model, config) and version.is_3 and hdf5.is_group(group):
        names = hdf5.names(group, "weight_names") or []
        _assign(model.optimizer, [hdf5.child(group, name, where) for name in names], where)


def _assign(optimizer: Optimizer, found: list[Any], where: str) -> None:
    """Give an optimizer the arrays of a file; those of an optimizer that was not built are fewer, and left alone."""
    variables = optimizer.variables
    if len(found) != len(variables):
        return
    name = f"the state of optimizer `{optimizer.name}` in {where}"
    arrays = [hdf5.array(data, variable.shape, name) for data, variable in zip(found, variables, strict=True)]
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)
