"""Ranking with XGBoost and LightGBM: queries stay whole, whichever actor they go to.

Each query is a group of patients, and the one whose illness has progressed most should come first. The rows of a query
never part, so the metrics are those of one process.

    python examples/boosting_ranking.py
"""

from __future__ import annotations

import numpy as np
from sklearn.datasets import load_diabetes

from mltoolkit.lightgbm import RayLGBMRanker
from mltoolkit.xgboost import RayParams, RayXGBRanker

ACTORS = RayParams(num_actors=2, cpus_per_actor=1)


def make_queries() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Patients in random groups of about ten, to be ranked by the progress of their illness in five steps."""
    X, progress = load_diabetes(return_X_y=True)
    rng = np.random.default_rng(0)
    sizes = []
    while sum(sizes) < len(X):
        sizes.append(min(int(rng.integers(6, 15)), len(X) - sum(sizes)))
    relevance = np.digitize(progress, np.quantile(progress, [0.2, 0.4, 0.6, 0.8]))
    return X, relevance, np.array(sizes)


def first_is_best(scores: np.ndarray, relevance: np.ndarray, sizes: np.ndarray) -> float:
    """How often the row that is ranked first is among the best of its query."""
    ends = np.cumsum(sizes)
    queries = [slice(end - size, end) for size, end in zip(sizes, ends, strict=True)]
    return float(np.mean([relevance[q][np.argmax(scores[q])] == relevance[q].max() for q in queries]))


def main() -> None:
    X, relevance, sizes = make_queries()
    cut = len(sizes) * 3 // 4
    rows = int(sizes[:cut].sum())
    print(f"{cut} queries to learn from, {len(sizes) - cut} to rank")

    ranker = RayXGBRanker(n_estimators=30, max_depth=3, objective="rank:ndcg")
    ranker.fit(X[:rows], relevance[:rows], group=sizes[:cut], ray_params=ACTORS)
    scores = ranker.predict(X[rows:], ray_params=ACTORS)
    print(f"XGBoost:  the first is the best in {first_is_best(scores, relevance[rows:], sizes[cut:]):.2f} of them")

    lgbm = RayLGBMRanker(n_estimators=30, num_leaves=7)
    lgbm.fit(
        X[:rows],
        relevance[:rows],
        group=sizes[:cut],
        eval_set=[(X[rows:], relevance[rows:])],
        eval_group=[sizes[cut:]],
        eval_at=[3],
        ray_params=ACTORS,
    )
    scores = lgbm.predict(X[rows:], ray_params=ACTORS)
    ndcg = lgbm.evals_result_["valid_0"]["ndcg@3"][-1]
    print(f"LightGBM: the first is the best in {first_is_best(scores, relevance[rows:], sizes[cut:]):.2f} of them")
    print(f"          NDCG of the first three: {ndcg:.3f}")
    print(
        f"at random: {np.mean([np.mean(r == r.max()) for r in np.split(relevance[rows:], np.cumsum(sizes[cut:])[:-1])]):.2f}"
    )


if __name__ == "__main__":
    main()
