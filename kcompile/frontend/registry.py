"""Classes and functions of users, by the names under which files name them.

    @register_keras_serializable(package="mypackage")
    class Scale(Layer): ...

As in Keras the name is ``"mypackage>Scale"``. Nothing in a file is imported or run: what is not registered, nor given
as ``custom_objects``, is unknown.
"""

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from kcompile.frontend.layer import LAYERS, Layer

T = TypeVar("T")

_objects: dict[str, Any] = {}


def register_keras_serializable(package: str = "Custom", name: str | None = None) -> Callable[[T], T]:
    """Enter a class or function under ``"package>name"``; `name` is its own by default."""

    def enter(value: T) -> T:
        made: Any = value
        full = f"{package}>{name or made.__name__}"
        _objects[full] = made
        if isinstance(made, type) and issubclass(made, Layer):
            LAYERS[full] = made
        return value

    return enter


def find(*names: Any) -> Any:
    """What is registered under the first of the names that is; None where none is."""
    return next((_objects[name] for name in names if isinstance(name, str) and name in _objects), None)


def registered_name(value: Any) -> str | None:
    """The name under which a class or function is registered, None where it is not."""
    return next((name for name, entry in _objects.items() if entry is value), None)


def get_registered_name(value: Any) -> str:
    """The name under which a class or function is registered, else its own."""
    return registered_name(value) or str(value.__name__)


def get_registered_object(name: str, custom_objects: Mapping[str, Any] | None = None) -> Any:
    """What is registered under a name, None where nothing is."""
    return (custom_objects or {}).get(name) or find(name)


def get_custom_objects() -> dict[str, Any]:
    """All that is registered, by name; what is entered here is registered."""
    return _objects


def layers() -> dict[str, type[Layer]]:
    """The layers among what is registered."""
    return {name: value for name, value in _objects.items() if isinstance(value, type) and issubclass(value, Layer)}


@contextmanager
def custom_object_scope(objects: Mapping[str, Any] | None) -> Generator[None]:
    """What `objects` name is registered inside."""
    before = dict(_objects)
    _objects.update(objects or {})
    try:
        yield
    finally:
        _objects.clear()
        _objects.update(before)


CustomObjectScope = custom_object_scope
