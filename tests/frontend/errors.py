"""Error texts, to be pinned whole."""

from collections.abc import Callable

import pytest


def error_of(kind: type[Exception], action: Callable[[], object]) -> str:
    """The text of the error that `action` raises, which must be of exactly that kind."""
    with pytest.raises(kind) as raised:
        action()
    assert type(raised.value) is kind
    return str(raised.value)
