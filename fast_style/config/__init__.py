"""What a YAML may say: frozen dataclasses with every default, and the loader that checks them."""

from fast_style.config.loading import (
    build,
    config_from_dict,
    config_from_stored,
    find_config,
    flatten,
    load_config,
    load_yaml,
    to_dict,
)
from fast_style.config.recipes import (
    RECIPES,
    BaselineConfig,
    BaselineContentConfig,
    BaselineLossConfig,
    BaselineStyleConfig,
    OptimizationConfig,
    load_recipe,
)
from fast_style.config.schema import (
    Config,
    ConfigError,
    DataConfig,
    LossConfig,
    LossT,
    NetworkConfig,
    StyleConfig,
    TrainingConfig,
    locate,
)

__all__ = [
    "RECIPES",
    "BaselineConfig",
    "BaselineContentConfig",
    "BaselineLossConfig",
    "BaselineStyleConfig",
    "Config",
    "ConfigError",
    "DataConfig",
    "LossConfig",
    "LossT",
    "NetworkConfig",
    "OptimizationConfig",
    "StyleConfig",
    "TrainingConfig",
    "build",
    "config_from_dict",
    "config_from_stored",
    "find_config",
    "flatten",
    "load_config",
    "load_recipe",
    "load_yaml",
    "locate",
    "to_dict",
]
