"""Learners of torch modules."""

from __future__ import annotations
