"""XGBoost on two workers, in both forms of XGBoostTrainer: parameters alone, and a training function of one's own.

With parameters, the trainer divides the data, evaluates every dataset after each round and keeps checkpoints. A training
function does what it likes between, and calls `xgboost.train` on its own part of the data: XGBoost adds up over all workers.
Here one of them is killed on the way, and the run goes on from its last checkpoint.

    python examples/train_xgboost.py
    python examples/train_xgboost.py --rounds 100
"""

from __future__ import annotations

import argparse
import os
import signal
import tempfile
from typing import Any

import xgboost
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split

from mltoolkit import train
from mltoolkit.train.xgboost import RayTrainReportCallback, XGBoostTrainer

PARAMS = {"objective": "binary:logistic", "eval_metric": ["logloss", "error"], "max_depth": 3, "eta": 0.3}
WORKERS = train.ScalingConfig(num_workers=2)


def run_config(folder: str, name: str, **options: Any) -> train.RunConfig:
    return train.RunConfig(name=name, storage_path=folder, verbose=0, **options)


class KillOnce(xgboost.callback.TrainingCallback):
    """Kills rank 1 in the middle of the training, unless it was done before."""

    def __init__(self, done: str, rounds: int) -> None:
        super().__init__()
        self.done = done
        self.rounds = rounds

    def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
        if xgboost.collective.get_rank() == 1 and epoch == self.rounds // 2 and not os.path.exists(self.done):
            open(self.done, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        return False


def loop(config: dict[str, Any]) -> None:
    parts = {name: train.get_dataset_shard(name) for name in ("train", "valid")}
    data = {name: xgboost.DMatrix(part.drop(columns="target"), part["target"]) for name, part in parts.items()}
    checkpoint = train.get_checkpoint()
    start = None if checkpoint is None else RayTrainReportCallback.get_model(checkpoint)
    done = 0 if start is None else start.num_boosted_rounds()
    if train.get_context().get_world_rank() == 0:
        size = xgboost.collective.get_world_size()
        print(f"{size} workers, {data['train'].num_row()} rows each, go on from round {done}")
    xgboost.train(
        config["params"],
        data["train"],
        config["rounds"] - done,
        evals=[(each, name) for name, each in data.items()],
        xgb_model=start,
        verbose_eval=False,
        callbacks=[KillOnce(config["killed"], config["rounds"]), RayTrainReportCallback(frequency=5)],
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="XGBoost on the workers of a trainer.")
    parser.add_argument("--rounds", type=int, default=30, help="boosting rounds (default: %(default)s)")
    args = parser.parse_args()

    frame = load_breast_cancer(as_frame=True).frame
    parts = train_test_split(frame, test_size=0.25, random_state=0, stratify=frame["target"])
    datasets = dict(zip(("train", "valid"), parts, strict=True))

    with tempfile.TemporaryDirectory() as folder:
        trainer = XGBoostTrainer(
            params=PARAMS,
            label_column="target",
            num_boost_round=args.rounds,
            datasets=datasets,
            scaling_config=WORKERS,
            run_config=run_config(folder, "parameters"),
        )
        result = trainer.fit()
        losses = result.metrics_dataframe["valid-logloss"]
        print(f"parameters: valid-logloss {losses.iloc[0]:.3f} -> {losses.iloc[-1]:.3f}")

        trainer = XGBoostTrainer(
            loop,
            train_loop_config={"params": PARAMS, "rounds": args.rounds, "killed": os.path.join(folder, "killed")},
            datasets=datasets,
            scaling_config=WORKERS,
            run_config=run_config(folder, "function", failure_config=train.FailureConfig(max_failures=1)),
        )
        result = trainer.fit()
        model = RayTrainReportCallback.get_model(result.checkpoint)
        wrong = (model.predict(xgboost.DMatrix(datasets["valid"].drop(columns="target"))) > 0.5) != datasets["valid"][
            "target"
        ]
        print(f"function: {model.num_boosted_rounds()} rounds, {wrong.mean():.3f} of {len(wrong)} wrong")


if __name__ == "__main__":
    main()
