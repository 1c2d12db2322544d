"""The learners of an algorithm: one in its process, or actors that average their gradients."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

import mltoolkit
from mltoolkit.exceptions import ActorDiedError, ActorUnavailableError
from mltoolkit.rllib.core.columns import Columns
from mltoolkit.rllib.core.learner.errors import LearnerDiedError
from mltoolkit.rllib.core.learner.learner import Learner
from mltoolkit.rllib.core.learner.learner_actor import LearnerActor
from mltoolkit.rllib.core.learner.train_batch import Fragment, check_fragments, split_fragments

__all__ = ["LearnerGroup"]

logger = logging.getLogger(__name__)

_START_TIMEOUT_S = 120.0
_UPDATE_TIMEOUT_S = 3600.0
# When one learner fails the others lose it: which was first is known once they have answered, too.
_AFTERMATH_S = 5.0

_SUMMED = (
    "num_env_steps_trained",
    "num_env_steps_trained_lifetime",
    "num_env_steps_trained_throughput",
    "num_module_steps_trained",
    "num_module_steps_trained_lifetime",
    "num_module_steps_trained_throughput",
)


class LearnerGroup:
    """One learner or several that learn side by side.

    With several, each updates from its share of the fragments in minibatches of ``config.minibatch_size`` steps of its
    own, and gradients are averaged over the learners before each step: as one learner with minibatches as many times
    as large. All have the same weights at all times.

    Parameters
    ----------
    config : AlgorithmConfig
        ``num_learners`` actors with ``num_cpus_per_learner``, ``num_gpus_per_learner`` and
        ``custom_resources_per_learner`` are started; with 0 the learner is in this process.
    module : RLModule
        What is learned; remote learners have copies of it.
    collective_timeout_s : float, default=300.0
        How long an operation over all learners waits for the slowest: longer than a minibatch ever takes.

    Raises
    ------
    LearnerDiedError
        If a learner can not be started.
    """

    def __init__(self, *, config: Any, module: Any, collective_timeout_s: float = 300.0) -> None:
        self.config = config
        self._learner: Learner | None = None
        self._actors: list[Any] = []
        self._failed: BaseException | None = None
        self._max_seq_len = int(module.model_config["max_seq_len"]) if module.is_stateful() else 1
        if config.num_learners == 0:
            self._learner = config.learner_class(config=config, module=module)
            self._learner.build()
            return
        _check_room(config)
        actor_class: Any = mltoolkit.remote(LearnerActor)
        actor_class = actor_class.options(**_resources(config))
        count = config.num_learners
        self._actors = [actor_class.remote(config, module, rank, count) for rank in range(count)]
        try:
            places = self._call_all("where", timeout_s=_START_TIMEOUT_S)
            meeting = None
            if count > 1:
                same_host = len({host for host, _, _ in places}) == 1
                meeting = self._call(self._actors[:1], "offer", same_host, _START_TIMEOUT_S)[0]
            self._call_all("build", meeting, collective_timeout_s)
            self._call(self._actors[:1], "met")
        except BaseException:
            self.stop()
            raise

    def __len__(self) -> int:
        return len(self._actors) or 1

    @property
    def is_local(self) -> bool:
        """Whether the learner is in this process."""
        return self._learner is not None

    @property
    def is_remote(self) -> bool:
        """Whether learners are actors."""
        return self._learner is None

    def update(
        self, fragments: Sequence[Fragment], *, timesteps: Mapping[str, int] | None = None, **options: Any
    ) -> dict[str, Any]:
        """Learn from fragments; see :meth:`Learner.update`, whose options this takes.

        Raises
        ------
        LearnerDiedError
            If a learner died. The group is of no use then; restore a checkpoint.
        """
        options = {"timesteps": dict(timesteps or {}), **options}
        if self._learner is not None:
            return self._learner.update(fragments, **options)
        check_fragments(fragments)
        shares = split_fragments(fragments, len(self._actors), max_seq_len=self._max_seq_len)
        for rank, share in enumerate(shares):
            if not any(np.asarray(fragment[Columns.LOSS_MASK]).any() for fragment in share):
                raise ValueError(
                    f"Learner {rank} of {len(shares)} has no step to learn from: the fragments are too short. Raise "
                    "`train_batch_size_per_learner` or the number of environments, or lower `num_learners`."
                )
        arguments = [(mltoolkit.put(share), options) for share in shares]
        return _merged(self._call_each("update", arguments, timeout_s=_UPDATE_TIMEOUT_S))

    def get_weights(self) -> dict[str, np.ndarray]:
        """The module's weights by name."""
        if self._learner is not None:
            return self._learner.get_weights()
        weights: dict[str, np.ndarray] = self._call(self._actors[:1], "get_weights")[0]
        return weights

    def set_weights(self, weights: Mapping[str, np.ndarray]) -> None:
        """Set the weights of all learners."""
        if self._learner is not None:
            self._learner.set_weights(weights)
        else:
            self._call_all("set_weights", mltoolkit.put(dict(weights)))

    def get_state(self) -> dict[str, Any]:
        """The learners' state, as arrays, numbers and strings."""
        if self._learner is not None:
            return self._learner.get_state()
        states = self._call_all("get_state")
        # What differs between learners is where their generators are.
        others = [{key: state[key] for key in _OWN if key in state} for state in states[1:]]
        return {**states[0], "other_learners": others}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Take up what :meth:`get_state` gave, of a group of as many learners or of another number."""
        state = dict(state)
        others = state.pop("other_learners", [])
        if self._learner is not None:
            self._learner.set_state(state)
            return
        states = [state]
        for rank in range(1, len(self._actors)):
            own = others[rank - 1] if rank <= len(others) else {}
            states.append({**state, **own, **({} if own else _fresh_rng(self.config.seed, rank))})
        self._call_each("set_state", [(mltoolkit.put(each),) for each in states])

    def foreach_learner(self, func: Callable[..., Any], *args: Any, **kwargs: Any) -> list[Any]:
        """What ``func(learner, *args, **kwargs)`` gives for each learner, called in its process."""
        if self._learner is not None:
            return [self._learner.apply(func, *args, **kwargs)]
        return self._call_all("apply", func, *args, timeout_s=_UPDATE_TIMEOUT_S, **kwargs)

    def stop(self) -> None:
        """End the learners."""
        if self._learner is not None:
            self._learner.shutdown()
        actors, self._actors = self._actors, []
        if actors:
            self._failed = self._failed or RuntimeError("The learners were stopped.")
        if not actors or not mltoolkit.is_initialized():
            return
        mltoolkit.wait([actor.shutdown.remote() for actor in actors], num_returns=len(actors), timeout=2.0)
        for actor in actors:
            mltoolkit.kill(actor)

    shutdown = stop

    # -- calls ---------------------------------------------------------------------------------------------------------

    def _call_all(self, method: str, *args: Any, timeout_s: float = _START_TIMEOUT_S, **kwargs: Any) -> list[Any]:
        return self._call(self._actors, method, *args, timeout_s=timeout_s, **kwargs)

    def _call_each(
        self, method: str, arguments: Sequence[tuple[Any, ...]], timeout_s: float = _START_TIMEOUT_S
    ) -> list[Any]:
        self._check_usable()
        refs = [getattr(actor, method).remote(*args) for actor, args in zip(self._actors, arguments, strict=True)]
        return self._results(refs, method, timeout_s)

    def _call(
        self, actors: Sequence[Any], method: str, *args: Any, timeout_s: float = _START_TIMEOUT_S, **kwargs: Any
    ) -> list[Any]:
        self._check_usable()
        return self._results([getattr(actor, method).remote(*args, **kwargs) for actor in actors], method, timeout_s)

    def _check_usable(self) -> None:
        if self._failed is not None:
            raise LearnerDiedError(
                f"The learners have failed before: {self._failed} Build the algorithm again and restore its last checkpoint."
            ) from self._failed

    def _results(self, refs: list[Any], method: str, timeout_s: float) -> list[Any]:
        """All results, or the error that was first: of several learners the others only lose the one that failed."""
        results: dict[int, Any] = {}
        errors: dict[int, BaseException] = {}
        rank_of = {ref: rank for rank, ref in enumerate(refs)}
        pending, deadline = list(refs), time.monotonic() + timeout_s
        while pending:
            done, pending = mltoolkit.wait(pending, num_returns=1, timeout=max(0.0, deadline - time.monotonic()))
            if not done:
                break
            for ref in done:
                try:
                    results[rank_of[ref]] = mltoolkit.get(ref)
                except Exception as error:
                    if not errors:
                        deadline = time.monotonic() + _AFTERMATH_S
                    errors[rank_of[ref]] = error
        if not errors and not pending:
            return [results[rank] for rank in range(len(refs))]
        cause = self._cause(errors, pending, method, timeout_s)
        # An error that all ran into leaves them in step: weights that became NaN, a batch without a column.
        if isinstance(cause, (LearnerDiedError, TimeoutError)) or len(errors) != len(refs):
            self._failed = cause
        raise cause

    def _cause(
        self, errors: dict[int, BaseException], pending: list[Any], method: str, timeout_s: float
    ) -> BaseException:
        if not errors:
            return TimeoutError(f"{len(pending)} learners did not finish `{method}` within {timeout_s:g} s.")
        for error in errors.values():
            if not isinstance(error, (ActorDiedError, ActorUnavailableError, LearnerDiedError)):
                return error
        for rank, error in errors.items():
            if isinstance(error, (ActorDiedError, ActorUnavailableError)):
                if isinstance(error.cause, BaseException):
                    return error.cause  # its constructor raised
                died = LearnerDiedError(f"Learner {rank} of {len(self._actors)} died during `{method}`: {error}")
                died.__cause__ = error
                return died
        return next(iter(errors.values()))


_OWN = ("rng", "torch_rng", "torch_cuda_rng")


def _fresh_rng(seed: int | None, rank: int) -> dict[str, Any]:
    return {"rng": np.random.default_rng(None if seed is None else (seed, rank)).bit_generator.state}


def _merged(results: list[dict[str, Any]]) -> dict[str, Any]:
    """One result of several: counts add up, the rest is averaged."""
    if len(results) == 1:
        return results[0]
    merged: dict[str, Any] = {}
    for key, first in results[0].items():
        values = [result[key] for result in results if key in result]
        if isinstance(first, dict):
            merged[key] = _merged(values)
        elif key in _SUMMED:
            merged[key] = sum(values)
        elif isinstance(first, float):
            merged[key] = float(np.mean(values))
        else:
            merged[key] = first
    return merged


def _resources(config: Any) -> dict[str, Any]:
    gpus, cpus = config.num_gpus_per_learner, config.num_cpus_per_learner
    options: dict[str, Any] = {"num_cpus": (0 if gpus else 1) if cpus == "auto" else cpus, "num_gpus": gpus}
    if config.custom_resources_per_learner:
        options["resources"] = dict(config.custom_resources_per_learner)
    return options


def _check_room(config: Any) -> None:
    """Learners beyond what there is would wait for ever: say so at once."""
    if mltoolkit.util.get_current_placement_group() is not None:
        return  # reserved, and so there
    options, there = _resources(config), mltoolkit.cluster_resources()
    for name, key in (("CPU", "num_cpus"), ("GPU", "num_gpus")):
        needed = config.num_learners * options[key]
        if needed > there.get(name, 0.0):
            raise ValueError(
                f"{config.num_learners} learners with `{key}_per_learner={options[key]:g}` need {needed:g} {name}s, but "
                f"there are {there.get(name, 0.0):g}. Lower `num_learners` or `{key}_per_learner`."
            )
