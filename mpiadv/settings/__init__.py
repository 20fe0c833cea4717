"""The configuration of a run: `config` and its sections, which `reading` makes."""

from mpiadv.settings.choices import Climbed, MemoryFormat, Norm, Precision
from mpiadv.settings.config import Config
from mpiadv.settings.method_sections import (
    AttackConfig,
    AttackScheduleConfig,
    AverageConfig,
    ObjectiveConfig,
    OptimizerConfig,
    ScheduleConfig,
    ThreatModel,
)
from mpiadv.settings.reading import (
    code_words,
    dump_config,
    load_config,
    override_config,
    parse_config,
    read_words,
    require_list,
)
from mpiadv.settings.sections import DataConfig, GuardConfig, ModelConfig, TrainingConfig

__all__ = [
    "AttackConfig",
    "AttackScheduleConfig",
    "AverageConfig",
    "Climbed",
    "Config",
    "DataConfig",
    "GuardConfig",
    "MemoryFormat",
    "ModelConfig",
    "Norm",
    "ObjectiveConfig",
    "OptimizerConfig",
    "Precision",
    "ScheduleConfig",
    "ThreatModel",
    "TrainingConfig",
    "code_words",
    "dump_config",
    "load_config",
    "override_config",
    "parse_config",
    "read_words",
    "require_list",
]
