"""From sampled fragments to the rows of minibatches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mltoolkit.rllib.core.columns import Columns

__all__ = ["Fragment", "TrainBatch", "check_fragments", "make_train_batch", "minibatch_rows", "split_fragments"]

Fragment = Mapping[str, Any]

_FLAGS = (Columns.TERMINATEDS, Columns.TRUNCATEDS)
_REQUIRED = (Columns.OBS, Columns.ACTIONS, Columns.REWARDS, *_FLAGS, Columns.LOSS_MASK)
# One entry a step; observations and `is_first` have one more.
_PER_STEP = (
    Columns.ACTIONS,
    Columns.REWARDS,
    *_FLAGS,
    Columns.LOSS_MASK,
    Columns.ACTION_LOGP,
    Columns.ACTION_DIST_INPUTS,
    Columns.ADVANTAGES,
    Columns.VALUE_TARGETS,
    Columns.VF_PREDS,
)


@dataclass
class TrainBatch:
    """What one update learns from.

    Attributes
    ----------
    columns : dict of str to ndarray of shape (n_rows, ...)
        A row is a step or, for stateful modules, a sequence of ``seq_len`` steps.
    rows : ndarray of int of shape (n,)
        The rows to learn from; the others hold no step.
    num_steps : int
        Number of steps in them.
    seq_len : int, optional
        Steps of a row; None where a row is a step.
    state_in : dict of str to ndarray of shape (n_rows, ...)
        State of the module before each row.
    """

    columns: dict[str, NDArray[Any]]
    rows: NDArray[np.intp]
    num_steps: int
    seq_len: int | None = None
    state_in: dict[str, NDArray[Any]] = field(default_factory=dict)


def check_fragments(fragments: Sequence[Fragment]) -> None:
    """Refuse what cannot be learned from.

    Raises
    ------
    ValueError
        If there is no fragment, a column is missing, or lengths do not agree.
    """
    if not fragments:
        raise ValueError("`fragments` must hold at least one sampled fragment, got none.")
    for index, fragment in enumerate(fragments):
        missing = [name for name in _REQUIRED if name not in fragment]
        if missing:
            raise ValueError(f"Fragment {index} lacks {', '.join(map(repr, missing))}; it has {sorted(fragment)}.")
        n_steps, n_envs = np.shape(fragment[Columns.REWARDS])[:2]
        for name in (Columns.OBS, Columns.IS_FIRST, *_PER_STEP):
            if name not in fragment:
                continue
            steps = n_steps + (name in (Columns.OBS, Columns.IS_FIRST))
            if np.shape(fragment[name])[:2] != (steps, n_envs):
                raise ValueError(
                    f"`{name}` of fragment {index} must begin with the shape ({steps}, {n_envs}), got "
                    f"{np.shape(fragment[name])}."
                )


def make_train_batch(fragments: Sequence[Fragment], *, max_seq_len: int | None = None) -> TrainBatch:
    """Lay the steps of all fragments out as rows.

    Parameters
    ----------
    fragments : sequence of dict
        Time-major arrays.
    max_seq_len : int, optional
        For stateful modules: cut each environment's steps into sequences of this length. The last is padded.

    Raises
    ------
    ValueError
        If no step remains.
    """
    names = [name for name in _PER_STEP if all(name in fragment for fragment in fragments)]
    if max_seq_len is None:
        batch = _steps(fragments, names)
    else:
        batch = _sequences(fragments, names, max_seq_len)
    if batch.num_steps == 0:
        raise ValueError("No step of the fragments can be learned from: `loss_mask` is False everywhere.")
    return batch


def _steps(fragments: Sequence[Fragment], names: list[str]) -> TrainBatch:
    columns = {name: _join([_flat(fragment[name]) for fragment in fragments]) for name in names}
    columns[Columns.OBS] = _join([_flat(fragment[Columns.OBS][:-1]) for fragment in fragments])
    mask = columns.pop(Columns.LOSS_MASK)
    rows = np.flatnonzero(mask)
    return TrainBatch(columns, rows, len(rows))


def _sequences(fragments: Sequence[Fragment], names: list[str], max_seq_len: int) -> TrainBatch:
    # Fragments shorter than a sequence need not be padded to its length.
    length = min(max_seq_len, max(len(fragment[Columns.REWARDS]) for fragment in fragments))

    def cut(array: NDArray[Any]) -> NDArray[Any]:
        """(T, N, ...) to (chunks * N, length, ...)."""
        n_steps, n_envs = array.shape[:2]
        chunks = -(-n_steps // length)
        if chunks * length != n_steps:
            padding = np.zeros((chunks * length - n_steps, *array.shape[1:]), array.dtype)
            array = np.concatenate([array, padding])
        array = array.reshape(chunks, length, n_envs, *array.shape[2:]).swapaxes(1, 2)
        return array.reshape(chunks * n_envs, length, *array.shape[3:])

    columns = {name: _join([cut(np.asarray(fragment[name])) for fragment in fragments]) for name in names}
    for name in (Columns.OBS, Columns.IS_FIRST):
        columns[name] = _join([cut(np.asarray(fragment[name])[:-1]) for fragment in fragments])
    states = [fragment[Columns.STATE_IN] for fragment in fragments]
    state_in = {name: _join([_flat(state[name]) for state in states]) for name in states[0]}
    mask = columns[Columns.LOSS_MASK]
    return TrainBatch(columns, np.flatnonzero(mask.any(1)), int(mask.sum()), length, state_in)


def _flat(array: Any) -> NDArray[Any]:
    array = np.asarray(array)
    return array.reshape(array.shape[0] * array.shape[1], *array.shape[2:])


def _join(arrays: list[NDArray[Any]]) -> NDArray[Any]:
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def num_minibatches(num_rows: int, size: int, num_epochs: int) -> int:
    """How many minibatches cover the rows so many times."""
    return -(-num_rows * num_epochs // size)


def minibatch_rows(
    rows: NDArray[np.intp],
    *,
    size: int,
    num_minibatches: int,
    shuffle: bool,
    rng: np.random.Generator,
) -> Iterator[NDArray[np.intp]]:
    """The rows of minibatches, about an epoch at a time.

    Epochs follow each other without a gap, each in an order of its own: a minibatch is completed with the first rows
    of the next epoch, so all have the same size.

    Yields
    ------
    ndarray of int of shape (n_minibatches, size)
    """
    per_epoch = max(1, len(rows) // size)
    waiting: NDArray[np.intp] = rows[:0]
    while num_minibatches:
        count = min(num_minibatches, per_epoch)
        parts = [waiting]
        missing = count * size - len(waiting)
        while missing > 0:
            parts.append(rng.permutation(rows) if shuffle else rows)
            missing -= len(rows)
        waiting = np.concatenate(parts) if len(parts) > 1 else waiting
        count = min(num_minibatches, len(waiting) // size)
        yield waiting[: count * size].reshape(count, size)
        waiting = waiting[count * size :]
        num_minibatches -= count


def split_fragments(fragments: Sequence[Fragment], parts: int, *, max_seq_len: int = 1) -> list[list[Fragment]]:
    """Share fragments out among learners, as evenly as their environments allow.

    Each fragment is cut between environments; one with fewer environments than `parts` is cut in time, at a multiple
    of `max_seq_len`, which only moves the step at which its advantages are bootstrapped.
    """
    shares: list[list[Fragment]] = [[] for _ in range(parts)]
    for number, fragment in enumerate(fragments):
        n_steps, n_envs = np.shape(fragment[Columns.REWARDS])[:2]
        # What does not divide goes to another learner each time.
        order = [(number + part) % parts for part in range(parts)]
        if n_envs >= parts:
            for part, envs in zip(order, np.array_split(np.arange(n_envs), parts), strict=True):
                shares[part].append(_slice(fragment, slice(0, n_steps), slice(envs[0], envs[-1] + 1), max_seq_len))
            continue
        chunks = np.array_split(np.arange(-(-n_steps // max_seq_len)), parts)
        for part, chunk in zip(order, chunks, strict=True):
            if len(chunk):
                steps = slice(int(chunk[0]) * max_seq_len, min(n_steps, (int(chunk[-1]) + 1) * max_seq_len))
                shares[part].append(_slice(fragment, steps, slice(0, n_envs), max_seq_len))
    return shares


def _slice(fragment: Fragment, steps: slice, envs: slice, max_seq_len: int) -> Fragment:
    part: dict[str, Any] = {}
    for name, value in fragment.items():
        if name == Columns.STATE_IN:
            chunks = slice(steps.start // max_seq_len, -(-steps.stop // max_seq_len))
            part[name] = {key: array[chunks, envs] for key, array in value.items()}
        elif name in (Columns.OBS, Columns.IS_FIRST):
            part[name] = value[steps.start : steps.stop + 1, envs]
        elif name in _PER_STEP:
            part[name] = value[steps, envs]
    return part
