"""Search with Nevergrad's derivative-free optimizers."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

from mltoolkit.tune.search._library import (
    Choice,
    Gaussian,
    LibrarySearcher,
    Range,
    describe,
    domains_of,
    load,
    unsupported,
)

__all__ = ["NevergradSearch"]


class NevergradSearch(LibrarySearcher):
    """Suggest with an optimizer of Nevergrad's.

    Parameters
    ----------
    optimizer : optimizer class, ConfiguredOptimizer or Optimizer, optional
        By default ``nevergrad.optimizers.OnePlusOne``. Those that wrap a sequential method, to which ``NGOpt`` resorts
        for some spaces, can neither be asked twice in a row nor be saved.
    optimizer_kwargs : dict, optional
        For making the optimizer: ``budget``, the number of trials that it plans for, and ``num_workers``.
    space : dict, nevergrad.p.Parameter or list of str, optional
        A search space of Tune, or a ``ng.p.Dict`` or ``ng.p.Instrumentation`` of keywords; with an `optimizer` that is
        made already None, or the names of its array's values. None takes ``param_space``.
    metric : str, optional
    mode : {'min', 'max'}, optional
    points_to_evaluate : list of dict, optional
        Configurations to suggest first.
    seed : int, optional
        None takes the sweep's. An `optimizer` that is made already keeps its own generator.

    Notes
    -----
    Quantised parameters are searched as if they were not, and rounded afterwards. A trial that fails is not told to the
    optimizer.
    """

    def __init__(
        self,
        optimizer: Any = None,
        optimizer_kwargs: dict[str, Any] | None = None,
        space: Any = None,
        metric: str | None = None,
        mode: str | None = None,
        points_to_evaluate: list[dict[str, Any]] | None = None,
        seed: int | None = None,
    ) -> None:
        ng = _load()
        base, configured = ng.optimizers.base.Optimizer, ng.optimizers.base.ConfiguredOptimizer
        self._optimizer: Any = None
        self._factory: Any = None
        self._array_names: list[str] | None = None
        self._optimizer_kwargs = dict(optimizer_kwargs or {})
        self._is_own_optimizer = not isinstance(optimizer, base)
        if not self._is_own_optimizer:
            if space is not None and not isinstance(space, (list, tuple)):
                raise ValueError(
                    "With an `optimizer` that is made already, `space` must be None or the list of names of its values."
                )
            if self._optimizer_kwargs:
                raise ValueError("`optimizer_kwargs` are for making an optimizer, but `optimizer` is made already.")
            if seed is not None:
                raise ValueError(
                    "`seed` is for an optimizer that is made here; seed yours with "
                    "`optimizer.parametrization.random_state.seed(...)`."
                )
            self._optimizer = optimizer
        elif optimizer is None:
            self._factory = ng.optimizers.OnePlusOne
        elif isinstance(optimizer, configured) or (inspect.isclass(optimizer) and issubclass(optimizer, base)):
            self._factory = optimizer
        else:
            raise TypeError(
                "`optimizer` must be a class of nevergrad.optimizers, a configured one, or an optimizer, "
                f"got {optimizer!r}."
            )
        self._names_of_space: list[str] = []
        super().__init__(None if not self._is_own_optimizer else space, metric, mode, points_to_evaluate, seed)
        if not self._is_own_optimizer:
            self._take_optimizer(space)

    @staticmethod
    def convert_search_space(spec: dict[str, Any]) -> Any:
        """Convert a search space of Tune into a ``ng.p.Dict`` with flat names.

        Raises
        ------
        ValueError
            For a distribution that Nevergrad has not.
        """
        parameter = _load().p
        space: dict[str, Any] = {}
        for name, domain in domains_of(NevergradSearch, spec).items():
            match describe(domain):
                case Range(low, high) as described if low == high:
                    space[name] = parameter.Choice([low])
                case Range(low, high, log=True) as described:
                    space[name] = parameter.Log(lower=low, upper=high)
                    if described.integer:
                        space[name].set_integer_casting()
                case Range(low, high) as described:
                    space[name] = parameter.Scalar(lower=low, upper=high)
                    if described.integer:
                        space[name].set_integer_casting()
                case Gaussian(mean, sd):
                    space[name] = parameter.Scalar(init=mean).set_mutation(sigma=sd)
                case Choice(categories) as choice if not choice.is_nested:
                    space[name] = parameter.Choice(_Opaque(category) for category in categories)
                case _:
                    raise unsupported(
                        NevergradSearch, name, domain, "Use a flat tune.choice of constants, or HyperOptSearch."
                    )
        return parameter.Dict(**space)

    def _take_space(self, space: Any, argument: str) -> None:
        super()._take_space(space, argument)
        if not isinstance(self._space, _load().p.Parameter):
            raise TypeError(
                f"`{argument}` must be a search space of Tune or a parameter of nevergrad.p, got {type(space).__name__}."
            )
        self._names_of_space = list(_names_of(self._space))

    def _take_optimizer(self, names: list[str] | None) -> None:
        self._space = self._optimizer.parametrization
        self._names_of_space = list(_names_of(self._space))
        if names is not None:
            if self._names_of_space:
                raise ValueError(
                    f"The optimizer's values have names already: {self._names_of_space}. Leave `space` out."
                )
            if len(names) != self._optimizer.dimension:
                raise ValueError(
                    f"`space` must have one name for each of the optimizer's {self._optimizer.dimension} values, "
                    f"got {len(names)}."
                )
            self._array_names = list(names)
        elif not self._names_of_space:
            raise ValueError(
                "The optimizer's parameters have no names: pass them as `space`, or make it of a ng.p.Dict or a "
                "ng.p.Instrumentation of keywords."
            )

    def _names(self) -> Iterable[str]:
        return self._array_names or self._names_of_space or self._raw_domains

    def set_seed(self, seed: int) -> bool:
        """Take the sweep's seed, unless the optimizer was made by the user."""
        return self._is_own_optimizer and super().set_seed(seed)

    def _setup(self, seed: int) -> None:
        if not self._is_own_optimizer:
            return
        import numpy as np

        self._space.random_state = np.random.RandomState(seed % 2**32)
        self._optimizer = self._factory(self._space, **self._optimizer_kwargs)

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Ask the optimizer for a configuration; the same one again for a trial that is live."""
        self._prepare()
        if trial_id not in self._live:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                if self._points:
                    self._enqueue(self._points.pop(0))
                self._live[trial_id] = self._optimizer.ask()
        return self._nested(self._flat(self._live[trial_id]))

    def _enqueue(self, point: dict[str, Any]) -> None:
        """Let the optimizer ask for a point next."""
        assert self._seed is not None
        filled = self._filled(point, self._seed + len(self._points))
        if self._array_names is not None:
            self._optimizer.suggest([filled[name] for name in self._array_names])
            return
        values = {
            name: _Opaque(value) if isinstance(self._domains.get(name), Choice) else value
            for name, value in filled.items()
        }
        if _is_instrumentation(self._space):
            self._optimizer.suggest(**values)
        else:
            self._optimizer.suggest(values)

    def _flat(self, candidate: Any) -> dict[str, Any]:
        if self._array_names is not None:
            args = candidate.args[0] if candidate.args else candidate.value
            return dict(zip(self._array_names, args, strict=True))
        values: Mapping[str, Any] = candidate.kwargs or candidate.value
        return {name: value.value if isinstance(value, _Opaque) else value for name, value in values.items()}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tell the optimizer a result; a trial without a finite one is left out."""
        candidate = self._live.pop(trial_id, None)
        loss = None if error or candidate is None else self._loss(trial_id, result)
        if loss is not None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self._optimizer.tell(candidate, loss)


class _Opaque:
    """A category that Nevergrad shall not look into: it takes lists and dicts for parameters."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Opaque) and self.value in Choice([other.value])

    def __hash__(self) -> int:
        return hash(repr(self.value))

    def __repr__(self) -> str:
        return repr(self.value)


def _load() -> Any:
    return load("nevergrad", "NevergradSearch", "nevergrad")


def _is_instrumentation(space: Any) -> bool:
    return isinstance(space, _load().p.Instrumentation)


def _names_of(space: Any) -> Iterable[str]:
    parameter = _load().p
    if isinstance(space, parameter.Instrumentation):
        return list(space[1]) if not space.args else []
    return list(space) if isinstance(space, parameter.Dict) else []
