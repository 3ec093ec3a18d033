"""Objects that users give as a name, a config, a function or an object."""

from collections.abc import Mapping, Sequence
from typing import Any

from kcompile.errors import ModelError
from kcompile.frontend import registry
from kcompile.frontend.training.naming import snake_case


def lookup(what: str, classes: Sequence[type[Any]], identifier: Any) -> Any:
    """The object that `identifier` stands for; None for None.

    Args:
        what: the kind of object, for the error (``"a regularizer"``).

    Raises:
        ModelError: there is none of that name, or it does not take these arguments.
    """
    by_name = {cls.__name__: cls for cls in classes} | {snake_case(cls.__name__): cls for cls in classes}
    if isinstance(identifier, type):
        return identifier()
    if identifier is None or callable(identifier):
        return identifier
    parts: Any = {"class_name": identifier, "config": {}} if isinstance(identifier, str) else identifier
    name = parts.get("class_name") if isinstance(parts, Mapping) else None
    found = registry.find(parts.get("registered_name"), name) if isinstance(parts, Mapping) else None
    if found is not None:
        return found if not isinstance(found, type) else _made(found, parts.get("config") or {})
    if name not in by_name:
        known = ", ".join(cls.__name__ for cls in classes)
        raise ModelError(f"{what} must be a function or one of {known}. Received: {identifier!r}.")
    arguments = dict(parts.get("config") or {})
    try:
        return by_name[name](**arguments)
    except TypeError:
        raise ModelError(f"{what} {name} does not take these arguments: {arguments}.") from None


def _made(cls: type[Any], config: Mapping[str, Any]) -> Any:
    """An object of a user's class."""
    return cls.from_config(config) if hasattr(cls, "from_config") else cls(**config)
