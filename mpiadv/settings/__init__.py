"""The configuration of a run: `config` and its `sections` have every setting, `reading` makes them.

`code` sees to it that no file chooses code.
"""

from mpiadv.settings.code import code_words
from mpiadv.settings.config import Config
from mpiadv.settings.reading import (
    dump_config,
    load_config,
    override_config,
    parse_config,
    read_words,
    require_list,
)
from mpiadv.settings.sections import (
    AttackConfig,
    AttackScheduleConfig,
    AverageConfig,
    DataConfig,
    ModelConfig,
    ObjectiveConfig,
    OptimizerConfig,
    ScheduleConfig,
)

__all__ = [
    "AttackConfig",
    "AttackScheduleConfig",
    "AverageConfig",
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
    "read_words",
    "require_list",
]
