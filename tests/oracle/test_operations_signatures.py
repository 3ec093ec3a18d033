"""The functions of ``kcompile.ops`` take the arguments that Keras's take, and divide them as Keras's classes do."""

import inspect
from typing import Any

import keras
import pytest
from keras.src.ops import core, image, linalg, math, nn, numpy

from kcompile.frontend.operations import OPERATIONS

pytestmark = pytest.mark.oracle

MODULES = (core, image, linalg, math, nn, numpy)
CLASSES: dict[str, Any] = {
    name: cls for module in MODULES for name, cls in vars(module).items() if inspect.isclass(cls) and name in OPERATIONS
}
# Arguments that one rule has for several of Keras's classes, and one that Keras's constructor takes as an array.
MORE = {"Amax": {"initial"}, "Amin": {"initial"}, "Argsort": {"kth"}, "Argpartition": set[str]()}
ELSEWHERE = {"Trapezoid"}


def names(function: Any) -> list[str]:
    skipped = {"self", "name", "args", "kwargs"}
    return [name for name in inspect.signature(function).parameters if name not in skipped]


@pytest.mark.parametrize("name", sorted(CLASSES.keys() - ELSEWHERE))
def test_tensors_go_to_the_call_and_options_to_the_constructor(name: str) -> None:
    definition = OPERATIONS[name]
    options = {each for each in definition.parameters if definition.is_option(each)}
    assert options - MORE.get(name, set()) == set(names(CLASSES[name].__init__))
    assert [each for each in definition.parameters if each not in options] == names(CLASSES[name].call)


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_a_function_takes_its_first_arguments_in_the_order_of_keras(name: str) -> None:
    definition = OPERATIONS[name]
    function = getattr(keras.ops, definition.function, None) or getattr(keras.ops.image, definition.function)
    theirs, ours = names(function), list(definition.signature.parameters)
    count = min(len(theirs), len(ours), 4)
    assert ours[:count] == theirs[:count] or name in MORE
