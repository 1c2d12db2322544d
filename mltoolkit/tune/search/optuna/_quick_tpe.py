"""Optuna's TPE sampler with the hot parts computed otherwise; see `_tpe`, which alone imports this module."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from optuna.samplers import TPESampler
from optuna.samplers._tpe import _truncnorm
from optuna.samplers._tpe.probability_distributions import (
    _BatchedCategoricalDistributions,
)
from optuna.samplers._tpe.sampler import _get_infeasible_trial_score, _get_pruned_trial_score, default_gamma
from optuna.study import StudyDirection
from optuna.trial import TrialState

__all__ = ["QuickTPESampler"]

try:  # numpy has no error function, and Optuna's is a loop
    from scipy import special as _special
except ImportError:
    _special = None

_LOG_ROOT_2_PI = 0.5 * math.log(2 * math.pi)


class QuickTPESampler(TPESampler):
    """The sampler; made as `TPESampler` is. For several objectives it is just that."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._spaces: list[dict[str, Any]] = []
        self._rows: list[dict[int, list[float] | None]] = []  # for each space, by trial number
        self._ranks: dict[int, tuple[float, ...]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_spaces": [], "_rows": [], "_ranks": {}}

    def _sample(self, study: Any, trial: Any, search_space: dict[str, Any]) -> dict[str, Any]:
        """Split the history, estimate both densities, and take the best of some candidates."""
        if len(study.directions) > 1:
            return super()._sample(study, trial, search_space)
        states = [TrialState.COMPLETE, TrialState.PRUNED]
        if self._constant_liar:
            states.append(TrialState.RUNNING)
        trials = study._get_trials(deepcopy=False, states=states, use_cache=not self._constant_liar)
        running, ranks = [], {}  # by position: trials come in the order of their numbers
        for position, each in enumerate(trials):
            if each.state != TrialState.RUNNING:
                ranks[position] = self._rank(study, each)
            elif each.number != trial.number:
                running.append(position)
        ranked = sorted(ranks, key=ranks.__getitem__)
        n_below = (self._gamma or default_gamma)(len(ranked))
        below = [trials[position] for position in sorted(ranked[:n_below])]
        above = [trials[position] for position in sorted(ranked[n_below:] + running)]

        l_x = self._build_parzen_estimator(study, search_space, below, handle_below=True)
        g_x = self._build_parzen_estimator(study, search_space, above, handle_below=False)
        candidates = l_x.sample(self._rng.rng, self._n_ei_candidates)
        best = self._compare(candidates, self._compute_acquisition_func(candidates, l_x, g_x))
        return {name: each.to_external_repr(best[name]) for name, each in search_space.items()}

    def _rank(self, study: Any, trial: Any) -> tuple[float, ...]:
        """Completed trials before pruned ones before infeasible ones, each kind from the best on."""
        rank = self._ranks.get(trial.number)
        if rank is None:
            infeasible = _get_infeasible_trial_score(trial)
            if infeasible > 0:
                rank = (2, infeasible)
            elif trial.state == TrialState.COMPLETE:
                rank = (0, trial.value if study.direction == StudyDirection.MINIMIZE else -trial.value)
            else:
                rank = (1, *_get_pruned_trial_score(trial, study))
            self._ranks[trial.number] = rank
        return rank

    def _get_internal_repr(self, trials: list[Any], search_space: dict[str, Any], study: Any) -> dict[str, Any]:
        """Values of the trials that have all parameters, as arrays; those of finished trials are remembered."""
        remembered = self._rows_of(search_space)
        rows = []
        for trial in trials:
            number = trial.number
            if number in remembered:
                row = remembered[number]
            else:
                params = self._get_params(trial, study)
                row = None
                if search_space.keys() <= params.keys():
                    row = [each.to_internal_repr(params[name]) for name, each in search_space.items()]
                if trial.state.is_finished():
                    remembered[number] = row
            if row is not None:
                rows.append(row)
        columns = np.array(rows, dtype=float).reshape(len(rows), len(search_space)).T
        return dict(zip(search_space, columns, strict=True))

    def _rows_of(self, search_space: dict[str, Any]) -> dict[int, list[float] | None]:
        for known, rows in zip(self._spaces, self._rows, strict=True):
            if known == search_space and list(known) == list(search_space):
                return rows
        self._spaces.append(dict(search_space))
        self._rows.append({})
        return self._rows[-1]

    def _compute_acquisition_func(self, samples: dict[str, Any], mpe_below: Any, mpe_above: Any) -> Any:
        return _log_pdf(mpe_below, samples) - _log_pdf(mpe_above, samples)


def _log_pdf(estimator: Any, samples: dict[str, Any]) -> Any:
    """Log density of a mixture of products, at each of the samples."""
    mixture = estimator._mixture_distribution
    logs = np.log(mixture.weights)[None, :] + np.zeros((len(next(iter(samples.values()))), 1))
    weights, positions = [], []  # of what is a matrix product in the end
    for parts, values in zip(mixture.distributions, samples.values(), strict=True):
        if isinstance(parts, _BatchedCategoricalDistributions):
            logs += np.log(parts.weights).T[values.astype(np.int64)]
        elif parts.step:
            logs += _log_mass_of_steps(parts, values)
        else:
            at = np.log(values) if parts.is_log else values
            inverse = 1 / parts.sigma
            low, high = (parts.adapted_low - parts.mu) * inverse, (parts.adapted_high - parts.mu) * inverse
            # -(x - mu)^2 / (2 sigma^2), around the middle of the interval so that little is lost to rounding.
            middle = 0.5 * (parts.adapted_low + parts.adapted_high)
            shift, precision = parts.mu - middle, inverse**2
            weights += [-0.5 * precision, shift * precision]
            positions += [(at - middle) ** 2, at - middle]
            logs += (np.log(inverse) - _LOG_ROOT_2_PI - 0.5 * shift**2 * precision - _log_mass(low, high))[None, :]
    if weights:
        logs += np.array(positions).T @ np.array(weights)
    greatest = logs.max(axis=1)
    greatest[np.isneginf(greatest)] = 0
    with np.errstate(divide="ignore"):
        return np.log(np.exp(logs - greatest[:, None]).sum(axis=1)) + greatest


def _log_mass_of_steps(parts: Any, values: Any) -> Any:
    """Log of the share that each truncated kernel gives to the step around each value: shape (n_values, n_kernels)."""
    at, value_of = np.unique(values, return_inverse=True)
    ends = [np.log(at + half) if parts.is_log else at + half for half in (-parts.step / 2, parts.step / 2)]
    low, high = ((end[:, None] - parts.mu) / parts.sigma for end in ends)
    whole = _log_mass((parts.adapted_low - parts.mu) / parts.sigma, (parts.adapted_high - parts.mu) / parts.sigma)
    return (_log_mass(low, high) - whole)[value_of]


def _log_mass(low: Any, high: Any) -> Any:
    """Log of the mass of a standard Gaussian between two positions."""
    if _special is None:
        return _truncnorm._log_gauss_mass(low, high)
    # Mirrored where the interval lies to the right, since tails are exact on the left alone.
    is_right = low > 0
    low, high = np.where(is_right, -high, low), np.where(is_right, -low, high)
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        across = np.log1p(-_special.ndtr(low) - _special.ndtr(-high))
        if (high > 0).all():
            return across
        upper = _special.log_ndtr(np.minimum(high, 0))
        one_sided = upper + np.log1p(-np.exp(_special.log_ndtr(low) - upper))
    return np.where(high <= 0, one_sided, across)
