"""Hooks that run inside the actors."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mltoolkit._boosting.actor import BoostingActor
    from mltoolkit._boosting.matrix import RayDMatrix

__all__ = ["DistributedCallback", "DistributedCallbackContainer", "EnvironmentCallback"]


class DistributedCallback:
    """Base class of hooks that run in every actor: to set its environment, to log, to fetch data.

    Each actor has a copy of its own, so what one changes the others do not see. `actor` is the actor itself, with the
    attributes ``rank`` and ``num_actors``. Give instances to ``RayParams(distributed_callbacks=[...])``.
    """

    def on_init(self, actor: BoostingActor, *args: Any, **kwargs: Any) -> None:
        """The actor has started."""

    def before_data_loading(self, actor: BoostingActor, data: RayDMatrix, *args: Any, **kwargs: Any) -> None:
        """The actor is about to load its shard of `data`."""

    def after_data_loading(self, actor: BoostingActor, data: RayDMatrix, *args: Any, **kwargs: Any) -> None:
        """The actor has its shard of `data`."""

    def before_train(self, actor: BoostingActor, *args: Any, **kwargs: Any) -> None:
        """Training is about to start, for the first time or after a failure."""

    def after_train(self, actor: BoostingActor, result_dict: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        """Training is done; `result_dict` has ``bst``, ``evals_result`` and ``train_n``, the rows of this shard."""

    def before_predict(self, actor: BoostingActor, *args: Any, **kwargs: Any) -> None:
        """The actor is about to predict."""

    def after_predict(self, actor: BoostingActor, predictions: Any, *args: Any, **kwargs: Any) -> None:
        """The actor has predicted its shard: `predictions`, an ndarray."""


class DistributedCallbackContainer(DistributedCallback):
    """Calls many hooks as one.

    Parameters
    ----------
    callbacks : sequence of DistributedCallback, optional
        Called in this order.
    """

    def __init__(self, callbacks: Sequence[DistributedCallback] | None) -> None:
        self.callbacks = list(callbacks or ())

    def _call(self, hook: str, *args: Any, **kwargs: Any) -> None:
        for callback in self.callbacks:
            getattr(callback, hook)(*args, **kwargs)

    def on_init(self, actor: BoostingActor, *args: Any, **kwargs: Any) -> None:
        """Call each."""
        self._call("on_init", actor, *args, **kwargs)

    def before_data_loading(self, actor: BoostingActor, data: RayDMatrix, *args: Any, **kwargs: Any) -> None:
        """Call each."""
        self._call("before_data_loading", actor, data, *args, **kwargs)

    def after_data_loading(self, actor: BoostingActor, data: RayDMatrix, *args: Any, **kwargs: Any) -> None:
        """Call each."""
        self._call("after_data_loading", actor, data, *args, **kwargs)

    def before_train(self, actor: BoostingActor, *args: Any, **kwargs: Any) -> None:
        """Call each."""
        self._call("before_train", actor, *args, **kwargs)

    def after_train(self, actor: BoostingActor, result_dict: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        """Call each."""
        self._call("after_train", actor, result_dict, *args, **kwargs)

    def before_predict(self, actor: BoostingActor, *args: Any, **kwargs: Any) -> None:
        """Call each."""
        self._call("before_predict", actor, *args, **kwargs)

    def after_predict(self, actor: BoostingActor, predictions: Any, *args: Any, **kwargs: Any) -> None:
        """Call each."""
        self._call("after_predict", actor, predictions, *args, **kwargs)


class EnvironmentCallback(DistributedCallback):
    """Sets environment variables in each actor.

    Parameters
    ----------
    env_dict : dict of str to str
        The variables.
    """

    def __init__(self, env_dict: Mapping[str, str]) -> None:
        self.env_dict = dict(env_dict)

    def on_init(self, actor: BoostingActor, *args: Any, **kwargs: Any) -> None:
        """Set them."""
        os.environ.update(self.env_dict)
