"""What wrappers around a searcher have in common."""

from __future__ import annotations

import inspect
import logging
import pickle
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from mltoolkit.tune.search.searcher import Searcher

__all__ = ["SearcherWrapper", "pass_search_properties", "state_from_bytes", "state_to_bytes"]

logger = logging.getLogger(__name__)

_MARK = "mltoolkit.tune searcher wrapper"


class SearcherWrapper(Searcher):
    """Passes on to another searcher whatever a subclass does not handle.

    Its state includes that of the searcher within.

    Parameters
    ----------
    searcher : Searcher
    """

    def __init__(self, searcher: Searcher) -> None:
        if not isinstance(searcher, Searcher):
            raise TypeError(
                f"{type(self).__name__} needs a Searcher, got {searcher!r}. For grid and random search, give "
                "`max_concurrent` to BasicVariantGenerator instead."
            )
        self.searcher = searcher

    @property
    def metric(self) -> Any:
        """What is optimised."""
        return self.searcher.metric

    @property
    def mode(self) -> Any:
        """Direction."""
        return self.searcher.mode

    def set_search_properties(self, metric: Any, mode: Any, config: dict[str, Any], **spec: Any) -> bool:
        """Pass metric, mode and search space on to the searcher."""
        return pass_search_properties(self.searcher, metric, mode, config, **spec)

    def set_seed(self, seed: int) -> bool:
        """Pass the sweep's seed on to the searcher."""
        return self.searcher.set_seed(seed)

    def set_max_concurrency(self, max_concurrent: int) -> bool:
        """Pass the limit on to the searcher."""
        return self.searcher.set_max_concurrency(max_concurrent)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Pass a result on to the searcher."""
        self.searcher.on_trial_result(trial_id, result)

    def on_pause(self, trial_id: str) -> None:
        """Tell the searcher that a trial was paused."""
        self.searcher.on_pause(trial_id)

    def on_unpause(self, trial_id: str) -> None:
        """Tell the searcher that a paused trial goes on."""
        self.searcher.on_unpause(trial_id)

    def add_evaluated_point(
        self,
        parameters: dict[str, Any],
        value: float,
        error: bool = False,
        pruned: bool = False,
        intermediate_values: list[float] | None = None,
    ) -> None:
        """Pass a configuration that was evaluated elsewhere on to the searcher."""
        self.searcher.add_evaluated_point(parameters, value, error, pruned, intermediate_values)

    def get_state(self) -> dict[str, Any]:
        """The wrapper's own state, without the searcher's."""
        state = self.__dict__.copy()
        del state["searcher"]
        return state

    def save(self, checkpoint_path: str | Path) -> None:
        """Write the state of wrapper and searcher to a file."""
        Path(checkpoint_path).write_bytes(pickle.dumps((_MARK, self.get_state(), state_to_bytes(self.searcher))))

    def restore(self, checkpoint_path: str | Path) -> None:
        """Take the state from a file that :meth:`save` wrote; one of the searcher alone will do too."""
        try:
            mark, state, within = pickle.loads(Path(checkpoint_path).read_bytes())
        except (pickle.UnpicklingError, TypeError, ValueError):
            mark = None
        if mark != _MARK:
            self.searcher.restore(checkpoint_path)
            return
        self.set_state(state)
        state_from_bytes(self.searcher, within)


def pass_search_properties(searcher: Searcher, metric: Any, mode: Any, config: dict[str, Any], **spec: Any) -> bool:
    """Call ``set_search_properties`` of a searcher, which may be written for the older form without ``**spec``."""
    method = searcher.set_search_properties
    parameters = inspect.signature(method).parameters.values()
    if spec and not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        spec = {}
    return bool(method(metric, mode, config, **spec))


def state_to_bytes(searcher: Searcher) -> bytes | None:
    """What a searcher's ``save`` writes; None, with a warning, where it cannot be saved."""
    with tempfile.TemporaryDirectory(prefix="searcher-") as folder:
        file = Path(folder, "state")
        try:
            searcher.save(file)
        except OSError:
            raise
        except Exception as error:  # `save` is the user's code, or pickles what the user's code holds
            _warn_unsaved(type(searcher).__name__, f"{type(error).__name__}: {error}")
            return None
        return file.read_bytes() if file.exists() else None


@cache
def _warn_unsaved(name: str, reason: str) -> None:
    logger.warning(
        "The state of %s cannot be saved (%s): after a restart of the sweep it starts afresh. "
        "Implement `save(checkpoint_path)` and `restore(checkpoint_path)`.",
        name,
        reason,
    )


def state_from_bytes(searcher: Searcher, state: bytes | None) -> None:
    """Let a searcher restore what :func:`state_to_bytes` returned."""
    if state is None:
        logger.warning("%s has no saved state: it starts afresh.", type(searcher).__name__)
        return
    with tempfile.TemporaryDirectory(prefix="searcher-") as folder:
        file = Path(folder, "state")
        file.write_bytes(state)
        searcher.restore(file)
