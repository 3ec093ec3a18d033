"""Arguments of layers brought into one form, or refused with the law that they break."""

from collections.abc import Sequence
from typing import Any

from kcompile.errors import ModelError
from kcompile.frontend.layer import Layer
from kcompile.ir.dims import Shape

DATA_FORMATS = ("channels_last", "channels_first")


def is_int(value: object, least: int) -> bool:
    """Whether `value` is an integer from `least` on."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def integers(layer: Layer, argument: str, count: int, least: int = 1) -> tuple[int, ...]:
    """An argument as `count` integers; one integer stands for all of them.

    Raises:
        ModelError: it is something else, or an integer is below `least`.
    """
    value: Any = getattr(layer, argument)
    given: Any = [value] * count if isinstance(value, int) else value
    fits = isinstance(given, list | tuple) and len(given) == count  # pyright: ignore[reportUnknownArgumentType]
    fits = fits and all(is_int(v, least) for v in given)
    plural = f"an integer from {least} on" + (f" or {count} of them" if count > 1 else "")
    layer.require(fits, argument, plural)
    return tuple(given)


def positive(layer: Layer, *arguments: str) -> None:
    """Require integers from 1 on."""
    for argument in arguments:
        layer.require(is_int(getattr(layer, argument), 1), argument, "a positive integer")


def choice(layer: Layer, argument: str, options: Sequence[Any]) -> None:
    """Require one of `options`."""
    shown = [f'"{o}"' if isinstance(o, str) else str(o) for o in options]
    layer.require(getattr(layer, argument) in options, argument, f"{', '.join(shown[:-1])} or {shown[-1]}")


def data_format(layer: Layer) -> str:
    """The argument `data_format`; None is "channels_last"."""
    value = getattr(layer, "data_format") or "channels_last"  # noqa: B009 - the base has no such field
    layer.require(value in DATA_FORMATS, "data_format", '"channels_last" or "channels_first"')
    return str(value)


def pairs(layer: Layer, argument: str, count: int) -> tuple[tuple[int, int], ...]:
    """An argument as `count` pairs (before, after): from one integer, `count` integers, or `count` pairs.

    Raises:
        ModelError: it is none of these.
    """
    value: Any = getattr(layer, argument)
    given: list[Any] = list(value) if isinstance(value, list | tuple) else [value] * count
    if count == 1 and len(given) == 2:
        given = [given]  # (before, after) of the only axis
    made: list[tuple[Any, ...]] = [
        (v, v) if isinstance(v, int) else tuple(v) if isinstance(v, list | tuple) else () for v in given
    ]
    fits = len(made) == count and all(len(p) == 2 and all(is_int(n, 0) for n in p) for p in made)
    axis = "a pair of them" if count == 1 else f"{count} of them, or {count} pairs"
    layer.require(fits, argument, f"an integer from 0 on, {axis}")
    return tuple((int(p[0]), int(p[1])) for p in made)


def rank_of(layer: Layer, shape: Shape, *ranks: int) -> None:
    """Require that an input has one of the given numbers of axes.

    Raises:
        ModelError: it has another.
    """
    if len(shape) not in ranks:
        law = f"layer `{layer.name}` ({type(layer).__name__}) takes inputs with {' or '.join(map(str, ranks))} axes"
        raise ModelError(f"{law}. Received: shape ({', '.join(map(str, shape))}).")
