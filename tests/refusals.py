"""Bad input, and the one line that it is told in."""

from collections.abc import Callable

import pytest

from mpiadv.process.errors import UserError


def refusal(action: Callable[[], object]) -> str:
    """What is said of it."""
    with pytest.raises(UserError) as caught:
        action()
    message = str(caught.value)
    assert "\n" not in message
    return message
