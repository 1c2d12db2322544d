"""The configuration that an environment is made with."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

__all__ = ["EnvContext"]


class EnvContext(dict):
    """The ``env_config`` together with the place of the environment: which runner, which slot of its vector.

    Parameters
    ----------
    env_config : mapping, optional
        What the user configured; the items of this dictionary.
    worker_index : int, default=0
        The runner: 0 for the one in the algorithm's own process, from 1 on for remote ones.
    vector_index : int, default=0
        The environment's index in the runner's vector.
    remote : bool, default=False
        Whether the environment lives in an actor of its own.
    num_workers : int, optional
        How many remote runners there are.
    recreated_worker : bool, default=False
        Whether the runner replaces one that had failed.

    Examples
    --------
    >>> context = EnvContext({"size": 5}, worker_index=2, num_workers=3)
    >>> context["size"], context.worker_index, context.copy_with_overrides(vector_index=7).vector_index
    (5, 2, 7)
    """

    def __init__(
        self,
        env_config: Mapping[str, Any] | None = None,
        worker_index: int = 0,
        vector_index: int = 0,
        remote: bool = False,
        num_workers: int | None = None,
        recreated_worker: bool = False,
    ) -> None:
        super().__init__(env_config or {})
        self.worker_index = worker_index
        self.vector_index = vector_index
        self.remote = remote
        self.num_workers = num_workers
        self.recreated_worker = recreated_worker

    def copy_with_overrides(
        self,
        env_config: Mapping[str, Any] | None = None,
        worker_index: int | None = None,
        vector_index: int | None = None,
        remote: bool | None = None,
        num_workers: int | None = None,
        recreated_worker: bool | None = None,
    ) -> EnvContext:
        """A copy, with everything that is not None replaced."""
        return EnvContext(
            copy.deepcopy(env_config) if env_config is not None else self,
            worker_index if worker_index is not None else self.worker_index,
            vector_index if vector_index is not None else self.vector_index,
            remote if remote is not None else self.remote,
            num_workers if num_workers is not None else self.num_workers,
            recreated_worker if recreated_worker is not None else self.recreated_worker,
        )

    def set_defaults(self, defaults: Mapping[str, Any]) -> None:
        """Set the keys that are missing."""
        for key, value in defaults.items():
            self.setdefault(key, value)

    def __str__(self) -> str:
        place = f"worker={self.worker_index}/{self.num_workers}, vector_idx={self.vector_index}, remote={self.remote}"
        return f"{dict.__str__(self)[:-1]}{', ' if self else ''}{place}}}"

    def __reduce__(self) -> tuple[Any, ...]:
        place = (self.worker_index, self.vector_index, self.remote, self.num_workers, self.recreated_worker)
        return type(self), (dict(self), *place)
