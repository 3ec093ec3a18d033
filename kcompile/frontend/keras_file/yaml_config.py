"""Architectures as YAML, which Keras wrote until 2.6."""

from collections.abc import Mapping
from typing import Any

from kcompile.errors import MissingExtra, ModelError

# Aliases let a short text stand for a tree of any size; the largest configs known to us have a hundredth of it.
_MOST_PARTS = 2_000_000


def yaml_text(config: Any, **options: Any) -> str:
    """A config as YAML, its parts in the order in which they stand.

    Raises:
        MissingExtra: PyYAML is not installed.
    """
    try:
        import yaml
    except ImportError:
        law = "YAML is written by an optional dependency"
        raise MissingExtra(f'{law}. Install it with: pip install "kcompile[yaml]"') from None
    chosen: Any = {"sort_keys": False, **options}
    return str(yaml.safe_dump(config, **chosen))


def parsed_yaml(text: str, where: str) -> Any:
    """The config that a YAML text holds: data alone, with Python's tuples as lists.

    Raises:
        ModelError: it is no YAML, holds objects other than data, or stands for an absurd number of parts.
        MissingExtra: PyYAML is not installed.
    """
    try:
        import yaml
    except ImportError:
        law = f"{where} is YAML, which is read by an optional dependency"
        raise MissingExtra(f'{law}. Install it with: pip install "kcompile[yaml]"') from None

    class Loader(yaml.SafeLoader):
        """Safe data and tuples."""

    def sequence(loader: Loader, node: Any) -> list[Any]:
        return loader.construct_sequence(node, deep=True)  # pyright: ignore[reportUnknownMemberType]

    Loader.add_constructor("tag:yaml.org,2002:python/tuple", sequence)  # pyright: ignore[reportUnknownMemberType]
    try:
        config: Any = yaml.load(text, Loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"the config in {where} must be YAML without code ({reason}).") from None
    _check_size(config, where)
    return config


def _check_size(config: Any, where: str) -> None:
    stack, count = [config], 0
    while stack:
        count += 1
        if count > _MOST_PARTS:
            raise ModelError(f"the config in {where} must have fewer than {_MOST_PARTS:,} parts, aliases written out.")
        part = stack.pop()
        if isinstance(part, Mapping):
            stack.extend(part.values())  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
        elif isinstance(part, list):
            stack.extend(part)  # pyright: ignore[reportUnknownArgumentType]
