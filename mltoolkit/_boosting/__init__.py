"""The common ground of `mltoolkit.xgboost` and `mltoolkit.lightgbm`: datasets divided among actors, attempts, messages."""

from __future__ import annotations
