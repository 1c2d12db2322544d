"""A parameter server: workers compute gradients on their share of the data, an actor holds the model.

Logistic regression, first in step (every worker waits for the others) and then without (each goes on as fast as it
can). The data are put into shared memory once; every worker reads them in place, without a copy.

    python examples/parameter_server.py
"""

from __future__ import annotations

import time

import numpy as np

import mltoolkit

WORKERS = 4
STEPS = 60
ROWS, COLUMNS = 20_000, 50


@mltoolkit.remote
class ParameterServer:
    """The model, and the only one that changes it."""

    def __init__(self, size: int, learning_rate: float) -> None:
        self.weights = np.zeros(size)
        self.learning_rate = learning_rate

    def apply(self, *gradients: np.ndarray) -> np.ndarray:
        self.weights = self.weights - self.learning_rate * np.mean(gradients, axis=0)
        return self.weights

    def get_weights(self) -> np.ndarray:
        return self.weights


@mltoolkit.remote
class Worker:
    """One share of the rows; it keeps its place in them between calls."""

    def __init__(self, X: np.ndarray, y: np.ndarray, rank: int) -> None:
        self.X, self.y = X[rank::WORKERS], y[rank::WORKERS]
        self.generator = np.random.default_rng(rank)

    def compute_gradient(self, weights: np.ndarray) -> np.ndarray:
        rows = self.generator.integers(0, len(self.y), 256)
        X, y = self.X[rows], self.y[rows]
        return X.T @ (1 / (1 + np.exp(-X @ weights)) - y) / len(y)


def make_data() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    X = generator.standard_normal((ROWS, COLUMNS))
    truth = generator.standard_normal(COLUMNS)
    return X, (X @ truth + generator.standard_normal(ROWS) > 0).astype(float)


def accuracy(X: np.ndarray, y: np.ndarray, weights: np.ndarray) -> float:
    return float(np.mean((X @ weights > 0) == y))


def train_in_step(server: mltoolkit.actor.ActorHandle, workers: list[mltoolkit.actor.ActorHandle]) -> np.ndarray:
    weights = server.get_weights.remote()
    for _ in range(STEPS):
        # Only references travel here: the gradients go from the workers to the server, not through the driver.
        gradients = [worker.compute_gradient.remote(weights) for worker in workers]
        weights = server.apply.remote(*gradients)
    return mltoolkit.get(weights)


def train_freely(server: mltoolkit.actor.ActorHandle, workers: list[mltoolkit.actor.ActorHandle]) -> np.ndarray:
    weights = server.get_weights.remote()
    at_work = {worker.compute_gradient.remote(weights): worker for worker in workers}
    for _ in range(STEPS * WORKERS):
        [gradient], _ = mltoolkit.wait(list(at_work), num_returns=1)
        worker = at_work.pop(gradient)
        weights = server.apply.remote(gradient)
        at_work[worker.compute_gradient.remote(weights)] = worker
    return mltoolkit.get(weights)


def main() -> None:
    X, y = make_data()
    with mltoolkit.init(num_cpus=WORKERS):
        X_ref, y_ref = mltoolkit.put(X), mltoolkit.put(y)
        print(f"{ROWS:,} rows, {WORKERS} workers; before training: {accuracy(X, y, np.zeros(COLUMNS)):.3f} accuracy")
        for title, train in (("in step", train_in_step), ("freely", train_freely)):
            server = ParameterServer.remote(COLUMNS, learning_rate=0.5)
            workers = [Worker.remote(X_ref, y_ref, rank) for rank in range(WORKERS)]
            started = time.perf_counter()
            weights = train(server, workers)
            seconds = time.perf_counter() - started
            gradients = STEPS * WORKERS
            print(f"{title:>8}: {accuracy(X, y, weights):.3f} accuracy after {gradients} gradients in {seconds:.2f} s")


if __name__ == "__main__":
    main()
