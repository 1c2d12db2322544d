"""XGBoost on the workers of a trainer, by a training function and in the older form, against XGBoost alone."""

from __future__ import annotations

import os
import signal
import time

import numpy as np
import pytest

from mltoolkit import train, tune

pytest.importorskip("xgboost")
pytest.importorskip("pandas")

PARAMS = {"objective": "binary:logistic", "max_depth": 3, "eval_metric": ["logloss", "error"]}
TWO = train.ScalingConfig(num_workers=2, resources_per_worker={"CPU": 1})


@pytest.fixture(scope="module")
def frame():
    import pandas

    rng = np.random.default_rng(0)
    data = pandas.DataFrame(rng.normal(size=(301, 3)), columns=list("abc"))
    return data.assign(y=(data["a"] + data["b"] ** 2 > 0.5).astype(int))


@pytest.fixture
def storage(tmp_path):
    def make(**options):
        return train.RunConfig(storage_path=tmp_path, verbose=0, **options)

    return make


def older(frame, run_config, **options):
    from mltoolkit.train.xgboost import XGBoostTrainer

    given = {
        "params": PARAMS,
        "label_column": "y",
        "num_boost_round": 4,
        "datasets": {"train": frame[:200], "valid": frame[200:]},
        "scaling_config": TWO,
        "run_config": run_config,
    }
    return XGBoostTrainer(**{**given, **options})


def alone(frame, rounds=4, **options):
    """The evaluations of XGBoost in one process."""
    import xgboost

    results = {}
    parts = {"train": frame[:200], "valid": frame[200:]}
    data = {name: xgboost.DMatrix(part.drop(columns="y"), part["y"]) for name, part in parts.items()}
    evals = [(each, name) for name, each in data.items()]
    params = {**PARAMS, "nthread": 1}
    xgboost.train(params, data["train"], rounds, evals=evals, evals_result=results, verbose_eval=False, **options)
    return results


def predict(model, frame):
    import xgboost

    return model.predict(xgboost.DMatrix(frame.drop(columns="y")))


def kill_once(gate, rank, rounds):
    """A callback that kills the process of a rank after so many rounds, the first time."""
    import xgboost

    class KillOnce(xgboost.callback.TrainingCallback):
        def after_iteration(self, model, epoch, evals_log):
            own = xgboost.collective.get_rank() == rank
            if own and model.num_boosted_rounds() == rounds and not os.path.exists(gate):
                open(gate, "w").close()
                os.kill(os.getpid(), signal.SIGKILL)
            return False

    return KillOnce()


def test_the_older_form_reports_what_xgboost_alone_finds(runtime, frame, storage):
    from mltoolkit.train.xgboost import RayTrainReportCallback, XGBoostTrainer

    config = train.CheckpointConfig(checkpoint_frequency=3, num_to_keep=1)
    result = older(frame, storage(checkpoint_config=config)).fit()
    table, expected = result.metrics_dataframe, alone(frame)
    for data in ("train", "valid"):
        for metric in ("logloss", "error"):
            assert table[f"{data}-{metric}"].tolist()[:4] == pytest.approx(expected[data][metric], rel=0.05), (
                data,
                metric,
            )
    model = XGBoostTrainer.get_model(result.checkpoint)
    assert model.num_boosted_rounds() == RayTrainReportCallback.get_model(result.checkpoint).num_boosted_rounds() == 4
    assert len(result.best_checkpoints) == 1
    labels = frame["y"][200:]
    scores = predict(model, frame[200:])
    loss = -np.mean(labels * np.log(scores) + (1 - labels) * np.log(1 - scores))
    assert result.metrics["valid-logloss"] == pytest.approx(loss, rel=1e-5)


def test_the_older_form_goes_on_from_checkpoints(runtime, frame, storage, tmp_path):
    from mltoolkit.train.xgboost import XGBoostTrainer

    gate = str(tmp_path / "killed")
    config = storage(
        checkpoint_config=train.CheckpointConfig(checkpoint_frequency=2),
        failure_config=train.FailureConfig(max_failures=1),
    )
    result = older(frame, config, num_boost_round=5, callbacks=[kill_once(gate, 1, 3)]).fit()
    assert os.path.exists(gate)
    model = XGBoostTrainer.get_model(result.checkpoint)
    assert model.num_boosted_rounds() == 5
    losses = result.metrics_dataframe["train-logloss"]
    assert len(losses) <= 7, "rounds that were kept were trained again"

    continued = older(frame, storage(), num_boost_round=7, resume_from_checkpoint=result.checkpoint).fit()
    longer = XGBoostTrainer.get_model(continued.checkpoint)
    assert longer.num_boosted_rounds() == 7
    assert np.allclose(predict(longer[:5], frame), predict(model, frame), atol=1e-6)
    finished = older(frame, storage(), num_boost_round=7, resume_from_checkpoint=continued.checkpoint).fit()
    assert finished.metrics["rounds"] == 7
    assert XGBoostTrainer.get_model(finished.checkpoint).num_boosted_rounds() == 7


def test_datasets_of_all_kinds(runtime, frame, storage):
    arrow = pytest.importorskip("pyarrow")
    dask = pytest.importorskip("dask.dataframe")
    from mltoolkit.xgboost import RayDMatrix

    features, labels = frame.drop(columns="y"), frame["y"]
    datasets = {
        "train": frame.assign(weight=1.0),
        "arrow": arrow.Table.from_pandas(frame, preserve_index=False),
        "pair": (features, labels),
        "matrix": RayDMatrix(features, labels),
        "columns": {name: frame[name].to_numpy() for name in frame},
        "made": lambda: frame,
        "dask": dask.from_pandas(frame, npartitions=3),
    }
    result = older(
        frame, storage(), datasets=datasets, num_boost_round=2, dmatrix_params={"train": {"weight": "weight"}}
    ).fit()
    losses = {name: result.metrics[f"{name}-logloss"] for name in datasets}
    assert losses == pytest.approx(dict.fromkeys(datasets, losses["train"]), rel=1e-5)


def test_early_stopping_in_the_older_form(runtime, frame, storage):
    from mltoolkit.train.xgboost import XGBoostTrainer

    result = older(frame, storage(), num_boost_round=200, params={**PARAMS, "eta": 1.0}, early_stopping_rounds=2).fit()
    model = XGBoostTrainer.get_model(result.checkpoint)
    assert model.num_boosted_rounds() < 200
    assert model.best_iteration == model.num_boosted_rounds() - 3


def loop(config):
    import xgboost

    from mltoolkit.train.xgboost import RayTrainReportCallback

    context = train.get_context()
    assert xgboost.collective.get_world_size() == context.get_world_size()
    assert xgboost.collective.get_rank() == context.get_world_rank()
    shards = {name: train.get_dataset_shard(name) for name in ("train", "valid")}
    data = {name: xgboost.DMatrix(shard.drop(columns="y"), shard["y"]) for name, shard in shards.items()}
    checkpoint = train.get_checkpoint()
    start = None if checkpoint is None else RayTrainReportCallback.get_model(checkpoint, "m.json")
    done = 0 if start is None else start.num_boosted_rounds()
    metrics = {"loss": "valid-logloss", "train-error": "train-error"}
    report = RayTrainReportCallback(
        metrics, filename="m.json", frequency=2, results_postprocessing_fn=lambda d: {**d, "begun": done}
    )
    model = xgboost.train(
        config["params"],
        data["train"],
        config["rounds"] - done,
        evals=[(each, name) for name, each in data.items()],
        xgb_model=start,
        verbose_eval=False,
        callbacks=[*config.get("callbacks", ()), report],
    )
    assert model.num_boosted_rounds() == config["rounds"]


def by_loop(frame, run_config, *, function=loop, workers=TWO, **config):
    from mltoolkit.train.xgboost import XGBoostConfig, XGBoostTrainer

    return XGBoostTrainer(
        function,
        train_loop_config={"params": PARAMS, "rounds": 4, **config},
        xgboost_config=XGBoostConfig(),
        scaling_config=workers,
        run_config=run_config,
        datasets={"train": frame[:200], "valid": frame[200:300]},
    )


def test_a_training_function_trains_on_the_data_of_all(runtime, frame, storage, capfd):
    from mltoolkit.train.xgboost import RayTrainReportCallback

    result = by_loop(frame, storage()).fit()
    expected = alone(frame[:300])
    table = result.metrics_dataframe
    assert table["loss"].tolist() == pytest.approx(expected["valid"]["logloss"], rel=0.05)
    assert table["train-error"].tolist() == pytest.approx(expected["train"]["error"], abs=0.02)
    assert "valid-error" not in table and result.metrics["begun"] == 0
    assert os.listdir(result.checkpoint.path) == ["m.json"]
    assert RayTrainReportCallback.get_model(result.checkpoint, "m.json").num_boosted_rounds() == 4
    said = capfd.readouterr()
    assert "got rank" not in said.out + said.err


def test_a_worker_that_is_lost(runtime, frame, storage, tmp_path):
    from mltoolkit.train.xgboost import RayTrainReportCallback

    began = time.monotonic()
    with pytest.raises(train.WorkerGroupError, match=r"Rank 1 of 2 .* died: .*SIGKILL") as caught:
        by_loop(frame, storage(), callbacks=[kill_once(str(tmp_path / "one"), 1, 3)]).fit()
    assert list(caught.value.worker_failures) == [1]
    assert time.monotonic() - began < 20
    config = storage(failure_config=train.FailureConfig(max_failures=1))
    result = by_loop(frame, config, rounds=5, callbacks=[kill_once(str(tmp_path / "two"), 0, 3)]).fit()
    assert result.metrics["begun"] == 2
    assert RayTrainReportCallback.get_model(result.checkpoint, "m.json").num_boosted_rounds() == 5


def test_an_error_of_one_rank_is_its_own(runtime, frame, storage):
    def broken():
        if train.get_context().get_world_rank() == 1:
            raise KeyError("only here")
        loop({"params": PARAMS, "rounds": 50})

    with pytest.raises(train.WorkerGroupError, match="Rank 1 of 2.*KeyError: 'only here'") as caught:
        by_loop(frame, storage(), function=broken).fit()
    assert list(caught.value.worker_failures) == [1]


def test_one_worker_and_none(runtime, frame, storage):
    expected = alone(frame[:300])["valid"]["logloss"]
    for count in (0, 1):
        result = by_loop(frame, storage(), workers=train.ScalingConfig(num_workers=count)).fit()
        assert result.metrics_dataframe["loss"].tolist() == pytest.approx(expected, rel=1e-6)


def test_a_trainer_is_swept(runtime, frame):
    from mltoolkit.train.xgboost import XGBoostTrainer

    results = tune.Tuner(
        older(frame, None, num_boost_round=2),
        param_space={"params": {"max_depth": tune.grid_search([1, 4])}},
        tune_config=tune.TuneConfig(metric="train-logloss", mode="min"),
        run_config=train.RunConfig(verbose=0),
    ).fit()
    assert not results.errors
    best = results.get_best_result()
    assert best.config["params"]["max_depth"] == 4
    assert XGBoostTrainer.get_model(best.checkpoint).num_boosted_rounds() == 2


def test_checkpoints_of_models(tmp_path):
    import xgboost

    from mltoolkit.train.xgboost import XGBoostCheckpoint

    data = xgboost.DMatrix(np.arange(8.0).reshape(-1, 1), np.arange(8.0))
    model = xgboost.train({"nthread": 1}, data, 2)
    for path in (None, tmp_path):
        checkpoint = XGBoostCheckpoint.from_model(model, path=path)
        assert (checkpoint.get_model().predict(data) == model.predict(data)).all()
    with pytest.raises(NotADirectoryError, match="must be a folder"):
        XGBoostCheckpoint.from_model(model, path=tmp_path / "nowhere")
    with pytest.raises(NotImplementedError, match="preprocessor"):
        XGBoostCheckpoint.from_model(model, preprocessor=object())


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"datasets": {"valid": 1}}, ValueError, "must have the dataset 'train', got 'valid'"),
        ({"datasets": {"train": None}}, TypeError, r"`datasets\['train'\]` must be a dataset, got None"),
        ({"label_column": "why"}, ValueError, "'train' has no such column. It has: 'a', 'b', 'c', 'y'"),
        ({"datasets": {"train": ([[1]], [1]), "a-b": ([[1]], [1])}}, ValueError, "must not contain '-'.*'a-b'"),
        ({"label_column": None}, ValueError, "`label_column` must name the column of the dataset 'train'"),
        ({"params": [1]}, TypeError, "`params` must be a dict"),
        ({"num_boost_round": 0}, ValueError, "`num_boost_round` must be an integer >= 1, got 0"),
        ({"dmatrix_params": {"test": {}}}, ValueError, "'test', and there is no dataset of that name"),
        ({"early_stopping_round": 3}, TypeError, "Did you mean `early_stopping_rounds`?"),
        ({"ray_params": {}}, TypeError, "`ray_params` cannot be given.*`scaling_config` says"),
        ({"evals": []}, TypeError, "`evals` cannot be given.*all `datasets` are evaluated"),
        ({"preprocessor": 1}, NotImplementedError, "`preprocessor` is not supported"),
        ({"train_loop_config": {}}, TypeError, "`train_loop_per_worker` is not given"),
        ({"train_loop_per_worker": print}, TypeError, "belongs to the form without a training function"),
        ({"scaling_config": train.ScalingConfig(num_workers=0)}, ValueError, "at least one worker with CPUs"),
        ({"xgboost_config": 1}, TypeError, "must be a train.xgboost.XGBoostConfig"),
    ],
)
def test_what_a_trainer_refuses(frame, options, error, text):
    with pytest.raises(error, match=text):
        older(frame, None, **options)


def test_what_a_training_function_is_given(runtime, frame, storage):
    arrow = pytest.importorskip("pyarrow")
    dask = pytest.importorskip("dask.dataframe")
    from mltoolkit.train.xgboost import XGBoostTrainer
    from mltoolkit.xgboost import RayDMatrix

    def look():
        shards = {name: train.get_dataset_shard(name) for name in ("arrow", "numpy", "dask")}
        train.report({name: [type(shard).__name__, len(shard)] for name, shard in shards.items()})

    datasets = {"arrow": arrow.table(frame), "numpy": frame.to_numpy(), "dask": dask.from_pandas(frame, npartitions=3)}
    result = XGBoostTrainer(look, datasets=datasets, scaling_config=TWO, run_config=storage()).fit()
    found = {name: result.metrics[name] for name in datasets}
    assert found == {"arrow": ["Table", 150], "numpy": ["ndarray", 150], "dask": ["DataFrame", 150]}
    with pytest.raises(TypeError, match="a RayDMatrix, which is for the form without a training function"):
        XGBoostTrainer(look, datasets={"train": RayDMatrix(frame, "y")})


def test_ranks_that_wait_for_each_other_in_different_places(runtime, frame, storage, monkeypatch):
    monkeypatch.setenv("MLTOOLKIT_TRAIN_STALL_S", "1")

    def unequal(config):
        loop({**config, "rounds": 3 + 2 * train.get_context().get_world_rank()})

    with pytest.raises(train.WorkerGroupError, match="Rank 1 of 2.*rank 0 waits at its report"):
        by_loop(frame, storage(), function=unequal).fit()


def test_what_goes_wrong_on_actors(runtime, frame, storage):
    with pytest.raises(train.TrainingFailedError, match="^Training failed in rank 0: .*Unknown objective") as caught:
        older(frame, storage(), params={"objective": "nonsense"}).fit()
    assert caught.value.__cause__ is not None
    with pytest.raises(train.TrainingFailedError, match="^`label` contains NaN"):
        older(frame, storage(), datasets={"train": frame.assign(y=np.nan)}).fit()
    with pytest.raises(train.TrainingFailedError, match="has no file 'model.ubj'; it holds "):
        older(frame, storage(), resume_from_checkpoint=train.Checkpoint(os.path.dirname(__file__))).fit()


def test_other_communicators_are_refused():
    from mltoolkit.train.xgboost import XGBoostConfig

    assert XGBoostConfig().to_dict() == {"xgboost_communicator": "rabit"}
    with pytest.raises(NotImplementedError, match="must be 'rabit', got 'federated'"):
        XGBoostConfig("federated")
