"""Decisions are those of Ray's schedulers for the same sequences of results, which were recorded from them."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from mltoolkit.tune.experiment import Trial
from mltoolkit.tune.schedulers.async_hyperband import AsyncHyperBandScheduler
from mltoolkit.tune.schedulers.hyperband import HyperBandScheduler
from mltoolkit.tune.schedulers.median_stopping_rule import MedianStoppingRule

DATA = Path(__file__).parent / "data"
CLASSES = {"asha": AsyncHyperBandScheduler, "hyperband": HyperBandScheduler, "median": MedianStoppingRule}


def _recorder():
    spec = importlib.util.spec_from_file_location("record_decisions", DATA / "record_decisions.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["record_decisions"] = module
    spec.loader.exec_module(module)
    return module


recorder = _recorder()
RECORDED = json.loads((DATA / "decisions.json").read_text())


def _id(case):
    return "-".join([case["scheduler"], str(case["seed"]), *(str(v) for v in case["options"].values())])


def test_every_case_was_recorded():
    assert len(RECORDED) == len(recorder.CASES)
    assert sum(len(decisions) for decisions in RECORDED) > 10_000
    assert all(letter in "".join(RECORDED) for letter in "CPS-s")


@pytest.mark.parametrize(
    ("case", "expected"), list(zip(recorder.CASES, RECORDED, strict=True)), ids=map(_id, recorder.CASES)
)
def test_decisions_are_rays(case, expected):
    scheduler = CLASSES[case["scheduler"]](metric="score", **case["options"])
    if case["scheduler"] == "asha":
        brackets = iter(recorder.assignment(case["seed"], case["trials"], case["options"]["brackets"]))
        scheduler._draw_bracket = lambda: next(brackets)
    sequence = recorder.Sequence(case, scheduler, lambda index: Trial(f"t{index:05d}", "curve", {}, index=index))
    decided = sequence.run()
    if decided != expected:
        at = next(i for i, (a, b) in enumerate(zip(decided, expected, strict=False)) if a != b)
        raise AssertionError(f"differs at {at}: {decided[at - 20 : at + 20]} instead of {expected[at - 20 : at + 20]}")
