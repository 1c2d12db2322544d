"""A learner in a process of its own."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["LearnerActor"]

_RENDEZVOUS = "learners"


class LearnerActor:
    """What :class:`~mltoolkit.rllib.core.learner.learner_group.LearnerGroup` starts for each remote learner.

    Parameters
    ----------
    config : AlgorithmConfig
    module : RLModule
    rank, world_size : int
        Which learner this is, of how many.
    """

    def __init__(self, config: Any, module: Any, rank: int, world_size: int) -> None:
        self._learner = config.learner_class(config=config, module=module)
        self._rank, self._world_size = rank, world_size
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def where(self) -> tuple[str, str, int]:
        """Host name, address and process of this learner."""
        from mltoolkit.util import get_node_ip_address

        return socket.gethostname(), get_node_ip_address(), os.getpid()

    def offer(self, same_host: bool, timeout_s: float) -> tuple[str, int]:
        """Prepare, in the first learner, where all find each other; returns a file's path, or address and port."""
        from mltoolkit.rllib.core.learner.torch._gloo import rendezvous_by_tcp

        if same_host:
            self._folder = tempfile.TemporaryDirectory(prefix="mltoolkit-learners-")
            return str(Path(self._folder.name) / _RENDEZVOUS), 0
        address = self.where()[1]
        self._store = rendezvous_by_tcp(address, 0, self._world_size, is_master=True, timeout_s=timeout_s)
        return address, int(self._store.port)

    def build(self, meeting: tuple[str, int] | None, timeout_s: float) -> None:
        """Join the group, if there is one, and build the learner."""
        if meeting is not None:
            from mltoolkit.rllib.core.learner.torch._gloo import GlooCollective, rendezvous_by_file, rendezvous_by_tcp

            place, port = meeting
            store = getattr(self, "_store", None)
            if port == 0:
                store, address = rendezvous_by_file(place, self._world_size, timeout_s), "127.0.0.1"
            else:
                address = self.where()[1]
                if store is None:
                    store = rendezvous_by_tcp(place, port, self._world_size, is_master=False, timeout_s=timeout_s)
            self._learner.collective = GlooCollective(
                store, self._rank, self._world_size, address=address, timeout_s=timeout_s
            )
            if self._rank:
                # Each draws minibatches of its own steps; the first learner's are those of a single learner.
                seed = None if self._learner.config.seed is None else (self._learner.config.seed, self._rank)
                self._learner.rng = np.random.default_rng(seed)
        self._learner.build()

    def update(self, fragments: list[dict[str, Any]], options: dict[str, Any]) -> dict[str, Any]:
        """Update from this learner's share of the fragments."""
        results: dict[str, Any] = self._learner.update(fragments, **options)
        return results

    def get_weights(self) -> dict[str, np.ndarray]:
        """The weights, which all learners of a group have in common."""
        weights: dict[str, np.ndarray] = self._learner.get_weights()
        return weights

    def set_weights(self, weights: dict[str, np.ndarray]) -> None:
        """Set the weights."""
        self._learner.set_weights(weights)

    def get_state(self) -> dict[str, Any]:
        """The learner's state."""
        state: dict[str, Any] = self._learner.get_state()
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        """Set the learner's state."""
        self._learner.set_state(state)

    def apply(self, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call ``func(learner, *args, **kwargs)``."""
        return self._learner.apply(func, *args, **kwargs)

    def met(self) -> None:
        """All have joined: remove the file in which they found each other."""
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def shutdown(self) -> None:
        """Leave the group."""
        self._learner.shutdown()
        self.met()
