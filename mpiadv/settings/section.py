"""What every section of the configuration is made of. Knows no particular one."""

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

from mpiadv.settings.numbers import MOST_STEPS, AtLeastOne, Count

Steps = Annotated[AtLeastOne, Field(le=MOST_STEPS)]
StepsOrNever = Annotated[Count, Field(le=MOST_STEPS)]
AttackSteps = Annotated[Count, Field(le=10**5)]


def _plain(text: str) -> str:
    if found := re.search(r"[\x00-\x1f\x7f-\x9f]", text):
        raise PydanticCustomError("text", f"has a control character, {found[0]!r}".replace("{", ""))
    return text


Text = Annotated[str, Field(max_length=4096), AfterValidator(_plain)]


class Section(BaseModel):
    """A section of the configuration: frozen, and closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
