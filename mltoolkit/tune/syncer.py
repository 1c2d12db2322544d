"""Where Ray keeps the settings of synchronisation."""

from mltoolkit.train import SyncConfig

__all__ = ["SyncConfig"]
