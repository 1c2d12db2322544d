"""Names of trials' folders: safe for any filesystem, and telling."""

from __future__ import annotations

import re

import pytest

from mltoolkit.tune.experiment.naming import dirname_of, tag_of
from mltoolkit.tune.experiment.trial import Trial


def trial(**fields):
    fields = {"trial_id": "5f3a9_00007", "trainable_name": "train", "config": {}, **fields}
    return Trial(**fields)


def test_a_tag_tells_number_and_drawn_values():
    assert tag_of(3, {}) == "3"
    assert tag_of(3, {"model/lr": 0.1, "act": "relu"}) == "3_act=relu,lr=0.1000"


HOSTILE = [
    "../../etc/passwd",
    "a/b\\c",
    "new\nline",
    "nul\x00",
    "~",
    " spaces  ",
    "%s{}$HOME`id`",
    "日本語" * 60,
    "x" * 500,
]


@pytest.mark.parametrize("value", HOSTILE)
def test_a_folder_name_is_one_safe_component(value, tmp_path):
    name = dirname_of(trial(trainable_name=value, experiment_tag=tag_of(7, {"x": value, value: 1})))
    assert not re.search(r"[/\\\x00\n]", name)
    assert name not in (".", "..")
    assert len(name.encode()) <= 130
    (tmp_path / name).mkdir()  # the filesystem agrees


def test_a_folder_name_keeps_what_tells_trials_apart():
    name = dirname_of(trial(experiment_tag="7_lr=0.1000"))
    assert re.fullmatch(r"train_5f3a9_00007_7_lr=0\.1000_\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d", name)
    assert dirname_of(trial(custom_name="mine", experiment_tag="7")).startswith("mine_7_")


def test_long_names_do_not_collide():
    names = {dirname_of(trial(trainable_name="f" * 300, trial_id=f"5f3a9_{i:05d}")) for i in range(20)}
    assert len(names) == 20
