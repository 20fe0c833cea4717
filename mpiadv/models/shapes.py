"""How image shapes are told to the user, and refused. Knows no model."""

from collections.abc import Sequence

from mpiadv.process.errors import UserError


def shape_text(shape: Sequence[int]) -> str:
    """`(1, 28, 28)` as `1x28x28`."""
    return "x".join(str(size) for size in shape)


def require_image_shape(model: str, given: Sequence[int], taken: Sequence[int]) -> None:
    """Refuse, with a UserError, images of another shape than the model takes."""
    if tuple(given) != tuple(taken):
        raise UserError(
            f"model {model!r} takes images of {shape_text(taken)}, but the data set has images of "
            f"{shape_text(given)}: set model.name or data.name so that they match"
        )
