"""The configuration of a run: `config` and `sections` have every setting, `reading` makes them."""

from mpiadv.settings.choices import Climbed, MemoryFormat, Norm, Precision
from mpiadv.settings.config import Config
from mpiadv.settings.reading import (
    code_words,
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
    "Climbed",
    "Config",
    "DataConfig",
    "MemoryFormat",
    "ModelConfig",
    "Norm",
    "ObjectiveConfig",
    "OptimizerConfig",
    "Precision",
    "ScheduleConfig",
    "code_words",
    "dump_config",
    "load_config",
    "override_config",
    "parse_config",
    "read_words",
    "require_list",
]
