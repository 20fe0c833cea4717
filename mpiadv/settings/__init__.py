"""The configuration of a run: `sections` has every setting, `reading` makes them of words.

`code` sees to it that no file chooses code.
"""

from mpiadv.settings.code import code_words
from mpiadv.settings.reading import dump_config, load_config, override_config, parse_config
from mpiadv.settings.sections import (
    AttackConfig,
    Config,
    DataConfig,
    ModelConfig,
    ObjectiveConfig,
    OptimizerConfig,
    ScheduleConfig,
)

__all__ = [
    "AttackConfig",
    "Config",
    "DataConfig",
    "ModelConfig",
    "ObjectiveConfig",
    "OptimizerConfig",
    "ScheduleConfig",
    "code_words",
    "dump_config",
    "load_config",
    "override_config",
    "parse_config",
]
