from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("gymnasium")

from mltoolkit.rllib.algorithms._checkpoints import (  # after the skips
    CheckpointError,
    find_checkpoint,
    read_checkpoint,
    write_checkpoint,
    write_numbered_checkpoint,
)

FILES = ("algorithm_state.json", "arrays.npz", "module_state.pt", "learner_state.pt", "rllib_checkpoint.json")


def _write(folder: Path, value: float = 1.0) -> None:
    write_checkpoint(
        os.fspath(folder),
        "PPO",
        {
            "numbers": [1, 2.5, None, "x"],
            "array": np.arange(3),
            "nested": {"rng": np.random.default_rng(0).bit_generator.state},
        },
        {"layer.weight": np.full((2, 3), value, np.float32)},
        {"optimizer": {"step": 7, "mean": np.ones(4, np.float32)}, "names": ["a"]},
    )


def test_everything_comes_back_as_it_was(tmp_path: Path) -> None:
    _write(tmp_path)
    content = read_checkpoint(tmp_path)
    assert content["algorithm"] == "PPO"
    assert content["state"]["numbers"] == [1, 2.5, None, "x"]
    assert content["state"]["array"].tolist() == [0, 1, 2]
    assert content["state"]["nested"]["rng"] == np.random.default_rng(0).bit_generator.state
    assert content["module_state"]["layer.weight"].dtype == np.float32
    assert content["learner_state"]["optimizer"]["step"] == 7
    assert content["learner_state"]["optimizer"]["mean"].tolist() == [1.0] * 4


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["cut", "missing", "flipped"])
def test_a_torn_file_is_an_error_that_names_it(tmp_path: Path, name: str, damage: str) -> None:
    _write(tmp_path)
    file = tmp_path / name
    data = file.read_bytes()
    if damage == "missing":
        file.unlink()
    elif damage == "cut":
        file.write_bytes(data[: len(data) // 2])
    else:
        middle = len(data) // 2
        file.write_bytes(data[:middle] + bytes([data[middle] ^ 0xFF]) + data[middle + 1 :])
    with pytest.raises(CheckpointError, match=r"torn|holds no checkpoint|not from mltoolkit"):
        read_checkpoint(tmp_path)


def test_a_file_of_pickles_executes_nothing(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (os.mkdir, (str(tmp_path / "executed"),))

    from mltoolkit.rllib.algorithms._checkpoints import _digest

    _write(tmp_path)
    manifest = json.loads((tmp_path / "rllib_checkpoint.json").read_text())
    for name in ("module_state.pt", "learner_state.pt", "arrays.npz"):
        folder = tmp_path / name.partition(".")[0]
        folder.mkdir()
        _write(folder)
        (folder / name).write_bytes(pickle.dumps(Evil()))
        # Whoever forges a file forges its digest too.
        manifest["files"][name] = [name, *_digest(folder / name)]
        original = json.loads((folder / "rllib_checkpoint.json").read_text())
        original["files"][name] = manifest["files"][name]
        (folder / "rllib_checkpoint.json").write_text(json.dumps(original))
        with pytest.raises(CheckpointError, match="cannot be read"):
            read_checkpoint(folder)
    assert not (tmp_path / "executed").exists()


def test_the_manifest_cannot_point_elsewhere(tmp_path: Path) -> None:
    _write(tmp_path / "a")
    _write(tmp_path / "b", value=2.0)
    manifest = json.loads((tmp_path / "a" / "rllib_checkpoint.json").read_text())
    other = json.loads((tmp_path / "b" / "rllib_checkpoint.json").read_text())
    manifest["files"]["module_state.pt"] = ["../b/module_state.pt", *other["files"]["module_state.pt"][1:]]
    (tmp_path / "a" / "rllib_checkpoint.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match="torn"):
        read_checkpoint(tmp_path / "a")


@pytest.mark.parametrize("step", range(1, 6))
def test_the_last_good_checkpoint_stays_whole_when_writing_is_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    _write(tmp_path, value=1.0)
    real, calls = os.replace, []

    def failing(source: Any, target: Any) -> None:
        calls.append(target)
        if len(calls) == step:
            raise OSError(28, "No space left on device")
        real(source, target)

    monkeypatch.setattr("mltoolkit.rllib.algorithms._checkpoints.os.replace", failing)
    with pytest.raises(OSError, match="No space left"):
        _write(tmp_path, value=2.0)
    monkeypatch.undo()
    assert read_checkpoint(tmp_path)["module_state"]["layer.weight"][0, 0] == 1.0
    _write(tmp_path, value=3.0)
    assert read_checkpoint(tmp_path)["module_state"]["layer.weight"][0, 0] == 3.0


def test_a_numbered_checkpoint_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail(folder: str) -> None:
        Path(folder, "half").touch()
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        write_numbered_checkpoint(str(tmp_path), 3, fail)
    assert list(tmp_path.iterdir()) == []
    for value in (1.0, 2.0):
        path = write_numbered_checkpoint(str(tmp_path), 3, lambda folder, value=value: _write(Path(folder), value))
        assert read_checkpoint(path)["module_state"]["layer.weight"][0, 0] == value
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint_000003"]


def test_the_folder_of_all_checkpoints_stands_for_the_newest(tmp_path: Path) -> None:
    for iteration in (2, 10, 9):
        write_numbered_checkpoint(str(tmp_path), iteration, lambda folder: _write(Path(folder)))
    assert find_checkpoint(tmp_path).name == "checkpoint_000010"
    assert find_checkpoint(tmp_path / "checkpoint_000002" / "module_state.pt").name == "checkpoint_000002"


def test_what_is_no_checkpoint_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        find_checkpoint(tmp_path / "nothing")
    with pytest.raises(CheckpointError, match=r"no rllib_checkpoint\.json"):
        find_checkpoint(tmp_path)
    (tmp_path / "algorithm_state.pkl").touch()
    with pytest.raises(CheckpointError, match="Ray's RLlib wrote"):
        find_checkpoint(tmp_path)


def test_another_format_names_the_release(tmp_path: Path) -> None:
    _write(tmp_path)
    file = tmp_path / "rllib_checkpoint.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "format": 99, "mltoolkit_version": "9.0"}))
    with pytest.raises(CheckpointError, match=r"format 99.*9\.0"):
        read_checkpoint(tmp_path)


def test_a_checkpoint_of_another_algorithm_is_refused(tmp_path: Path) -> None:
    from mltoolkit.rllib.algorithms.algorithm import Algorithm
    from mltoolkit.rllib.algorithms.ppo import PPO

    _write(tmp_path)
    file = tmp_path / "rllib_checkpoint.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "algorithm": "SAC"}))
    with pytest.raises(CheckpointError, match="one of SAC, not of PPO"):
        PPO.from_checkpoint(tmp_path)
    with pytest.raises(ValueError, match="no algorithm 'SAC'"):
        Algorithm.from_checkpoint(tmp_path)
    with PPO(env="CartPole-v1", config={"num_workers": 0}) as algo, pytest.raises(CheckpointError, match="SAC"):
        algo.restore(tmp_path)
