"""Which settings name code, and who chose it. Files never do: only command lines may."""

from collections.abc import Collection, Mapping
from typing import Any

from mpiadv.command_lines.described import TRUST_OPTION
from mpiadv.process.errors import UserError
from mpiadv.settings.config import Config
from mpiadv.settings.dotted_keys import flatten
from mpiadv.settings.registry import is_dotted


def code_words(config: Config) -> list[str]:
    """The user's functions that a configuration names, each as `section.name=module:function`."""
    named = {
        "model.name": config.model.name,
        "data.name": config.data.name,
        "attack.name": config.attack.name,
    }
    return [f"{key}={name}" for key, name in named.items() if is_dotted(name)]


def require_chosen(
    config: Config, said: Mapping[str, Any], trusted: Collection[str] | None
) -> None:
    """Refuse code that a file has chosen.

    Args:
        config: what came of file and command line.
        said: the settings of the command line alone, nested.
        trusted: what the command line has said besides, as `code_words`; None: everything.

    Raises:
        UserError: naming the settings that only a file says.
    """
    if trusted is None:
        return
    of_command_line = {f"{key}={value}" for key, value in flatten(said).items()}
    of_files = [
        word for word in code_words(config) if word not in of_command_line and word not in trusted
    ]
    if of_files:
        verb, it = ("come", "them") if len(of_files) > 1 else ("comes", "it")
        raise UserError(
            f"{' and '.join(of_files)} {verb} from a file, and no file may choose code that is "
            f"run: if you trust {it}, add {' '.join(of_files)} or {TRUST_OPTION} to the command "
            "line; in Python, to the overrides, or trust_code=True"
        )
