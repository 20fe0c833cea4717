"""The M+ rule in a few lines of its own."""

from collections.abc import Callable, Sequence


def plain_m_plus(
    magnitudes: Sequence[float],
    *,
    first: int,
    most: int,
    gamma: float,
    falls_short: Callable[[int], bool] = lambda n: False,
) -> list[int]:
    """Attack steps of each epoch and of the next one, by the epochs' summed magnitudes."""
    n, limit, told = first, 0.0, [first]
    for epoch, magnitude in enumerate(magnitudes):
        before = n
        if epoch == 0 or falls_short(n) or (epoch > 1 and magnitude > limit):
            n = min(most, n + 1)
        if epoch == 1 or (epoch > 1 and n > before):
            limit = gamma * magnitude
        told.append(n)
    return told
