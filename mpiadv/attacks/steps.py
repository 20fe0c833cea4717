"""Whether the steps of an attack fit its ball. Knows no model.

A step size in pixels is made for one norm and one radius: 40 steps of 0.01 cross an L-inf ball of
0.3, and hardly move in an L2 ball of 1. So none is a default.
"""


def misfit(*, norm: str, epsilon: float, num_steps: int, step_size: float) -> str:
    """How the steps do not fit the ball, so that an attack finds too little; or empty."""
    if 0 < num_steps * step_size < epsilon * (1 - _ROUNDING):
        return (
            f"{num_steps} steps of {step_size:.4g} do not reach the border of the ball "
            f"({norm} {epsilon:.4g})"
        )
    if num_steps > 1 and step_size > 2 * epsilon * (1 + _ROUNDING) > 0:
        return f"steps of {step_size:.4g} leap over the whole ball ({norm} {epsilon:.4g})"
    return ""


_ROUNDING = 1e-6
