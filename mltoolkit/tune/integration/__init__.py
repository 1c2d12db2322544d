"""Callbacks of training libraries that report to Tune."""

from __future__ import annotations
