"""Helpers that programs for Tune use."""

from mltoolkit.tune.utils._dicts import (
    deep_update,
    flatten_dict,
    merge_dicts,
    unflatten_dict,
    unflatten_list_dict,
    unflattened_lookup,
)
from mltoolkit.tune.utils.util import date_str, diagnose_serialization, validate_save_restore, wait_for_gpu

__all__ = [
    "date_str",
    "deep_update",
    "diagnose_serialization",
    "flatten_dict",
    "merge_dicts",
    "unflatten_dict",
    "unflatten_list_dict",
    "unflattened_lookup",
    "validate_save_restore",
    "wait_for_gpu",
]
