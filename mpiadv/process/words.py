"""Numbers and tables as people read them."""

from collections.abc import Sequence


def counted(number: int, what: str) -> str:
    """`1 rank`, `1,024 ranks`, `2 classes`."""
    return f"{number:,} {what}{'' if number == 1 else 'es' if what.endswith('s') else 's'}"


def aligned(rows: Sequence[Sequence[str]], *, num_names: int = 0) -> list[str]:
    """A table line by line: names, which come first, to the left, figures to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if number < num_names else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
