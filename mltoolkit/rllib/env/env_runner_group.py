"""The environment runners of an algorithm: one in its process, or actors that are replaced when they die."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

import mltoolkit
from mltoolkit.exceptions import ActorDiedError, ActorUnavailableError, GetTimeoutError
from mltoolkit.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from mltoolkit.tune import registry

__all__ = ["EnvRunnerGroup", "EnvRunnersLostError"]

logger = logging.getLogger(__name__)

_LOST = (ActorDiedError, ActorUnavailableError)
_START_TIMEOUT_S = 120.0
_ROOM_WARNING_S = 10.0


class EnvRunnersLostError(RuntimeError):
    """Environment runners died and may not or could not be replaced."""


class EnvRunnerGroup:
    """Runners that sample side by side with the same weights.

    Parameters
    ----------
    config : AlgorithmConfig
    num_env_runners : int
        Actors to start; with 0 there is one runner in this process.
    seed : tuple of int
        What the runners' seeds are derived from.
    on_recreated : callable, optional
        Called with the indices of runners that were replaced.

    Attributes
    ----------
    local_env_runner : SingleAgentEnvRunner or None
    num_restarts : int
        Runners replaced so far.
    num_dropped : int
        Runners that were lost for good, with ``ignore_env_runner_failures``.
    """

    def __init__(
        self,
        config: Any,
        num_env_runners: int,
        seed: tuple[int, ...],
        on_recreated: Callable[[list[int]], None] | None = None,
    ) -> None:
        self._config = config
        self._seed = seed
        self._on_recreated = on_recreated
        self.local_env_runner: SingleAgentEnvRunner | None = None
        self._actors: dict[int, Any] = {}
        self._restarts_of: dict[int, int] = {}
        self._restarted_at: dict[int, float] = {}
        self._lost_in_a_row = 0
        runner_class = config.env_runner_cls or SingleAgentEnvRunner
        self.num_restarts = 0
        self.num_dropped = 0
        if num_env_runners == 0:
            self.local_env_runner = runner_class(config, 0, seed=(*seed, 0))
        else:
            actor_class: Any = mltoolkit.remote(runner_class)
            self._actor_class = actor_class.options(**_resources(config))
            self._config_ref = mltoolkit.put(config)
            # Names that this process registered mean nothing in another.
            self._registered = _registered_names(config)
            _check_room(config, num_env_runners)
            for index in range(1, num_env_runners + 1):
                self._start(index)

    def spaces(self) -> tuple[Any, Any]:
        """Spaces of observations and actions, from any runner; waits for the environments to be made.

        Raises
        ------
        Exception
            What an environment's constructor raised.
        """
        if self.local_env_runner is not None:
            return self.local_env_runner.spaces()
        # Every runner is waited for, so that the errors of all environments surface now, unless that is not wanted.
        asked = None if self._config.validate_env_runners_after_construction else self.indices[:1]
        refs = [actor.ping.remote() for index, actor in self._actors.items() if asked is None or index in asked]
        if len(mltoolkit.wait(refs, num_returns=len(refs), timeout=_ROOM_WARNING_S)[0]) < len(refs):
            logger.warning(
                "Still waiting for environment runners to start; CPUs that are free: %g, each takes %g. Is another algorithm "
                "there that has not been stopped? `algo.stop()` frees its CPUs.",
                mltoolkit.available_resources().get("CPU", 0.0),
                self._config.num_cpus_per_env_runner,
            )
        results = self._call_all("spaces", timeout_s=_START_TIMEOUT_S, indices=asked)
        first: tuple[Any, Any] = next(iter(results.values()))
        return first

    @property
    def num_healthy(self) -> int:
        """Actors that are there."""
        return len(self._actors)

    @property
    def indices(self) -> list[int]:
        """Indices of the runners: 0 for the one in this process, from 1 for actors."""
        return [0] if self.local_env_runner is not None else sorted(self._actors)

    def sample(self, state: Any, steps_of: Callable[[int], int], **options: Any) -> list[dict[str, Any]]:
        """Let every runner sample its part, in the order of their indices.

        Parameters
        ----------
        state : dict
            Weights and filters, as :meth:`SingleAgentEnvRunner.sample` takes them.
        steps_of : callable
            Environment steps for a runner's index.

        Raises
        ------
        EnvRunnersLostError
            If runners died and must not be replaced, or do so again and again.
        Exception
            What an environment raised.
        """
        if self.local_env_runner is not None:
            return [self.local_env_runner.sample(state, num_env_steps=steps_of(0), **options)]
        ref = mltoolkit.put(state)
        results = self._call_all(
            "sample",
            arguments=lambda index: ((ref,), {"num_env_steps": steps_of(index), **options}),
            timeout_s=self._config.sample_timeout_s,
        )
        return [results[index] for index in sorted(results)]

    def evaluate(
        self, state: Any, arguments_of: Callable[[int], dict[str, Any]], timeout_s: float | None
    ) -> list[dict[str, Any]]:
        """Let every runner evaluate its part, in the order of their indices."""
        if self.local_env_runner is not None:
            return [self.local_env_runner.evaluate(state, timeout_s=timeout_s, **arguments_of(0))]
        ref = mltoolkit.put(state)
        results = self._call_all(
            "evaluate",
            arguments=lambda index: ((ref,), {"timeout_s": timeout_s, **arguments_of(index)}),
            # A runner ends by itself; the margin is for its start and the way back.
            timeout_s=None if timeout_s is None else timeout_s + _START_TIMEOUT_S,
        )
        return [results[index] for index in sorted(results)]

    def foreach_env_runner(
        self,
        func: Callable[[Any], Any],
        timeout_seconds: float | None = None,
        *,
        local_env_runner: bool = True,
        remote_worker_ids: Sequence[int] | None = None,
    ) -> list[Any]:
        """What `func` gives for each runner, called in its process, in the order of their indices.

        Parameters
        ----------
        func : callable
            Of the runner.
        timeout_seconds : float, optional
            By default ``config.sample_timeout_s``.
        local_env_runner : bool, default=True
            Whether the runner of this process, where there is one, is among them.
        remote_worker_ids : sequence of int, optional
            Indices of the actors to call; by default all.
        """
        if self.local_env_runner is not None:
            return [func(self.local_env_runner)] if local_env_runner else []
        chosen = self.indices if remote_worker_ids is None else [i for i in self.indices if i in remote_worker_ids]
        if not chosen:
            return []
        timeout_s = self._config.sample_timeout_s if timeout_seconds is None else timeout_seconds
        results = self._call_all("apply", arguments=lambda _: ((func,), {}), timeout_s=timeout_s, indices=chosen)
        return [results[index] for index in sorted(results)]

    def foreach_env(self, func: Callable[[Any], Any]) -> list[list[Any]]:
        """What `func` gives for each environment of each runner; see :meth:`SingleAgentEnvRunner.foreach_env`."""
        return self.foreach_env_runner(lambda runner: runner.foreach_env(func))

    # Older names

    foreach_worker = foreach_env_runner

    def local_worker(self) -> SingleAgentEnvRunner | None:
        """The older way to ask for `local_env_runner`."""
        return self.local_env_runner

    def remote_workers(self) -> list[Any]:
        """The actors."""
        return [self._actors[index] for index in sorted(self._actors)]

    def num_remote_workers(self) -> int:
        """How many actors there are."""
        return len(self._actors)

    def take_state(self, state: Any) -> None:
        """Give all runners the weights and filters of a policy, as :meth:`SingleAgentEnvRunner.sample` takes them."""
        if self.local_env_runner is not None:
            self.local_env_runner.take_state(state)
            return
        ref = mltoolkit.put(state)
        self._call_all("take_state", arguments=lambda _: ((ref,), {}), timeout_s=self._config.sample_timeout_s)

    def get_states(self) -> dict[int, dict[str, Any]]:
        """Where each runner's environments and generators are."""
        if self.local_env_runner is not None:
            return {0: self.local_env_runner.get_state()}
        return self._call_all("get_state", timeout_s=self._config.sample_timeout_s)

    def set_states(self, states: dict[int, dict[str, Any]], runner_state: dict[str, Any]) -> None:
        """Let the runners go on from where they were; those that were not there then begin anew."""
        if self.local_env_runner is not None:
            if 0 in states:
                self.local_env_runner.take_state(runner_state)
                self.local_env_runner.set_state(states[0])
            return
        known = {index: state for index, state in states.items() if index in self._actors}
        ref = mltoolkit.put(runner_state)
        refs = [self._actors[index].take_state.remote(ref) for index in known]
        refs += [self._actors[index].set_state.remote(state) for index, state in known.items()]
        mltoolkit.get(refs, timeout=self._config.sample_timeout_s)

    def stop(self) -> None:
        """Close the environments and end the actors."""
        if self.local_env_runner is not None:
            self.local_env_runner.stop()
        actors, self._actors = self._actors, {}
        if not actors or not mltoolkit.is_initialized():
            return
        # A moment to close windows and sockets of the environments; a runner that hangs is ended without.
        mltoolkit.wait([actor.stop.remote() for actor in actors.values()], num_returns=len(actors), timeout=2.0)
        for actor in actors.values():
            mltoolkit.kill(actor)

    def _start(self, index: int, recreated: bool = False) -> None:
        seed = (*self._seed, index)
        if recreated:
            # Not the first one's: it would draw the same episodes again.
            seed = (*seed, self._restarts_of[index])
        self._actors[index] = self._actor_class.remote(
            self._config_ref, index, seed=seed, recreated=recreated, registered=self._registered
        )

    def _call_all(
        self,
        method: str,
        *,
        arguments: Callable[[int], tuple[tuple[Any, ...], dict[str, Any]]] | None = None,
        timeout_s: float | None,
        indices: list[int] | None = None,
    ) -> dict[int, Any]:
        """Results by index. Runners that die meanwhile are replaced and asked again."""
        results: dict[int, Any] = {}
        pending = {index: self._submit(index, method, arguments) for index in indices or sorted(self._actors)}
        limit = float("inf") if timeout_s is None else timeout_s
        deadline = time.monotonic() + limit
        while pending:
            lost: dict[int, BaseException] = {}
            for index, ref in list(pending.items()):
                try:
                    left = None if timeout_s is None else max(0.0, deadline - time.monotonic())
                    results[index] = mltoolkit.get(ref, timeout=left)
                except _LOST as error:
                    if isinstance(error.cause, BaseException):
                        # The constructor raised: the environment's error is what the user looks for, and another
                        # try would end the same way.
                        raise error.cause from None
                    lost[index] = error
                except GetTimeoutError as error:
                    if method == "spaces":
                        raise TimeoutError(
                            f"Environment runner {index} has not started within {limit:g} s: its environment's "
                            "constructor hangs, or other actors hold the CPUs (an algorithm that was not stopped?). Free: "
                            f"{mltoolkit.available_resources()}."
                        ) from error
                    self._replace_stuck(pending)
                    raise TimeoutError(
                        f"Environment runner {index} did not finish `{method}` within {limit:g} s and was ended; a new one "
                        "takes its place. Either its environment hangs, or the steps take longer: raise "
                        "`config.env_runners(sample_timeout_s=...)`, or lower `rollout_fragment_length` or "
                        "`train_batch_size`."
                    ) from error
                del pending[index]
            if lost:
                self._replace(lost)
                pending = {index: self._submit(index, method, arguments) for index in lost if index in self._actors}
                deadline = time.monotonic() + limit
        self._lost_in_a_row = 0
        if not results and self._config.num_env_runners:
            raise EnvRunnersLostError("All environment runners are lost; none is left to sample with.")
        return results

    def _submit(self, index: int, method: str, arguments: Any) -> Any:
        args, kwargs = arguments(index) if arguments is not None else ((), {})
        return getattr(self._actors[index], method).remote(*args, **kwargs)

    def _replace(self, lost: dict[int, BaseException]) -> None:
        config = self._config
        recreated = []
        for index, error in lost.items():
            del self._actors[index]
            if not config.restart_failed_env_runners:
                if not config.ignore_env_runner_failures:
                    raise EnvRunnersLostError(
                        f"Environment runner {index} died: {error}. It is not replaced, since "
                        "`fault_tolerance(restart_failed_env_runners=False)` was set; with "
                        "`ignore_env_runner_failures=True` training goes on with those that are left."
                    ) from error
                self.num_dropped += 1
                logger.warning("Environment runner %d died and is left out from now on: %s", index, error)
                continue
            self._lost_in_a_row += 1
            if self._lost_in_a_row > config.num_consecutive_env_runner_failures_tolerance:
                raise EnvRunnersLostError(
                    f"{self._lost_in_a_row} environment runners died in a row, more than "
                    f"`num_consecutive_env_runner_failures_tolerance={config.num_consecutive_env_runner_failures_tolerance}` "
                    f"allows. The last one: {error}"
                ) from error
            restarts = self._restarts_of.get(index, 0) + 1
            if restarts > config.max_num_env_runner_restarts:
                raise EnvRunnersLostError(
                    f"Environment runner {index} died {restarts} times, more than "
                    f"`max_num_env_runner_restarts={config.max_num_env_runner_restarts}` allows. The last time: {error}"
                ) from error
            logger.warning("Environment runner %d died and is replaced: %s", index, error)
            pause = self._restarted_at.get(index, -float("inf")) + config.delay_between_env_runner_restarts_s
            time.sleep(max(0.0, pause - time.monotonic()))
            self._start_again(index)
            recreated.append(index)
        if recreated and self._on_recreated is not None:
            self._on_recreated(recreated)

    def _replace_stuck(self, pending: dict[int, Any]) -> None:
        """End runners that do not answer: another call would wait behind the one that hangs."""
        answered = mltoolkit.wait(list(pending.values()), num_returns=len(pending), timeout=0)[0]
        stuck = [index for index, ref in pending.items() if ref not in answered]
        for index in stuck:
            mltoolkit.kill(self._actors[index])
            self._start_again(index)
        if self._on_recreated is not None:
            self._on_recreated(stuck)

    def _start_again(self, index: int) -> None:
        self._restarts_of[index] = self._restarts_of.get(index, 0) + 1
        self._restarted_at[index] = time.monotonic()
        self._start(index, recreated=True)
        self.num_restarts += 1


def _resources(config: Any) -> dict[str, Any]:
    options: dict[str, Any] = {"num_cpus": config.num_cpus_per_env_runner, "num_gpus": config.num_gpus_per_env_runner}
    if config.custom_resources_per_env_runner:
        options["resources"] = dict(config.custom_resources_per_env_runner)
    return options


def _check_room(config: Any, count: int) -> None:
    """Runners beyond the CPUs would wait for ever: say so at once."""
    if mltoolkit.util.get_current_placement_group() is not None:
        return  # reserved, and so there
    needed, there = count * config.num_cpus_per_env_runner, mltoolkit.cluster_resources().get("CPU", 0.0)
    if needed > there:
        raise ValueError(
            f"{count} environment runners with `num_cpus_per_env_runner={config.num_cpus_per_env_runner:g}` need {needed:g} "
            f"CPUs, but there are {there:g}. Lower `num_env_runners`, or let several share a CPU: "
            "`num_cpus_per_env_runner=0` (older name: `num_cpus_per_worker`)."
        )


def _registered_names(config: Any) -> dict[str, dict[str, Any]]:
    """What is registered under the names that a configuration uses, by kind."""
    model = config.model
    names = {
        "environments": config.env,
        "models": model.get("custom_model"),
        "action_distributions": model.get("custom_action_dist"),
    }
    return {
        kind: {name: known[name]}
        for kind, name in names.items()
        if isinstance(name, str) and name in (known := registry.registered(kind))
    }
