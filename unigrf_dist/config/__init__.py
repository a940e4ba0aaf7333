"""Configuration: one schema, one loader."""

from unigrf_dist.config.loader import load_config, save_config
from unigrf_dist.config.schema import Config

__all__ = ["Config", "load_config", "save_config"]
