"""LightGBM on the workers of a trainer, by a training function and in the older form, against LightGBM alone."""

from __future__ import annotations

import os
import signal
import time

import numpy as np
import pytest

from mltoolkit import train, tune

pytest.importorskip("lightgbm")
pytest.importorskip("pandas")

METRICS = ["binary_logloss", "auc"]
PARAMS = {"objective": "binary", "num_leaves": 5, "min_data_in_leaf": 3, "metric": METRICS, "verbosity": -1}
TWO = train.ScalingConfig(num_workers=2, resources_per_worker={"CPU": 1})


@pytest.fixture(scope="module")
def frame():
    import pandas

    rng = np.random.default_rng(0)
    data = pandas.DataFrame(rng.normal(size=(301, 3)), columns=list("abc"))
    return data.assign(y=(data["a"] + data["b"] ** 2 + rng.normal(size=301) > 0.5).astype(int))


@pytest.fixture
def storage(tmp_path):
    def make(**options):
        return train.RunConfig(storage_path=tmp_path, verbose=0, **options)

    return make


def older(frame, run_config, **options):
    from mltoolkit.train.lightgbm import LightGBMTrainer

    given = {
        "params": PARAMS,
        "label_column": "y",
        "num_boost_round": 4,
        "datasets": {"train": frame[:200], "valid": frame[200:]},
        "scaling_config": TWO,
        "run_config": run_config,
    }
    return LightGBMTrainer(**{**given, **options})


def evaluations(model, frame):
    """Log loss and area under the curve of a model."""
    from sklearn.metrics import log_loss, roc_auc_score

    scores = model.predict(frame[list("abc")])
    if frame["y"].nunique() == 1:
        return [log_loss(frame["y"], scores, labels=[0, 1])]
    return [log_loss(frame["y"], scores, labels=[0, 1]), roc_auc_score(frame["y"], scores)]


def kill_once(gate, rank, iteration):
    """A callback that kills the process of a rank in one iteration, the first time."""

    def kill(env):
        from mltoolkit._boosting.session import current_session

        session = current_session()
        own = train.get_context().get_world_rank() if session is None else session.get_actor_rank()
        if own == rank and env.iteration == iteration and not os.path.exists(gate):
            open(gate, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)

    return kill


def test_the_older_form_reports_what_holds_for_all_rows(runtime, frame, storage):
    from mltoolkit.train.lightgbm import LightGBMTrainer, RayTrainReportCallback

    config = train.CheckpointConfig(checkpoint_frequency=3)
    result = older(frame, storage(checkpoint_config=config)).fit()
    model = LightGBMTrainer.get_model(result.checkpoint)
    assert model.current_iteration() == RayTrainReportCallback.get_model(result.checkpoint).current_iteration() == 4
    for name, part in {"train": frame[:200], "valid": frame[200:]}.items():
        found = [result.metrics[f"{name}-{metric}"] for metric in METRICS]
        assert found == pytest.approx(evaluations(model, part), rel=1e-5)
    assert result.metrics_dataframe["training_iteration"].tolist() == [1, 2, 3, 4]
    assert len(result.best_checkpoints) == 2


def test_the_older_form_goes_on_from_checkpoints(runtime, frame, storage, tmp_path):
    from mltoolkit.train.lightgbm import LightGBMTrainer

    gate = str(tmp_path / "killed")
    config = storage(
        checkpoint_config=train.CheckpointConfig(checkpoint_frequency=2),
        failure_config=train.FailureConfig(max_failures=1),
    )
    result = older(frame, config, num_boost_round=5, callbacks=[kill_once(gate, 1, 2)]).fit()
    assert os.path.exists(gate)
    model = LightGBMTrainer.get_model(result.checkpoint)
    assert model.current_iteration() == 5
    continued = older(frame, storage(), num_boost_round=7, resume_from_checkpoint=result.checkpoint).fit()
    longer = LightGBMTrainer.get_model(continued.checkpoint)
    assert longer.current_iteration() == 7
    features = frame[list("abc")]
    assert np.allclose(longer.predict(features, num_iteration=5), model.predict(features))
    finished = older(frame, storage(), num_boost_round=7, resume_from_checkpoint=continued.checkpoint).fit()
    assert finished.metrics["rounds"] == 7
    assert LightGBMTrainer.get_model(finished.checkpoint).current_iteration() == 7


def test_early_stopping_in_the_older_form_keeps_the_best_rounds(runtime, frame, storage):
    from mltoolkit.train.lightgbm import LightGBMTrainer

    result = older(
        frame,
        storage(),
        num_boost_round=200,
        params={**PARAMS, "learning_rate": 0.9, "metric": "binary_logloss"},
        early_stopping_rounds=3,
        datasets={"train": frame[:200], "valid": frame[300:]},
    ).fit()
    losses = result.metrics_dataframe["valid-binary_logloss"].tolist()
    assert len(losses) < 200
    model = LightGBMTrainer.get_model(result.checkpoint)
    assert model.current_iteration() == np.argmin(losses) + 1 == len(losses) - 4
    assert losses[-1] == losses[-2] == result.metrics["valid-binary_logloss"]


def loop(config):
    import lightgbm

    from mltoolkit.train.lightgbm import RayTrainReportCallback, get_network_params

    context = train.get_context()
    network = get_network_params()
    assert network.get("num_machines") == context.get_world_size()
    assert "machines" not in network
    shards = {name: train.get_dataset_shard(name) for name in ("train", "valid")}
    data = {name: lightgbm.Dataset(shard.drop(columns="y"), shard["y"]) for name, shard in shards.items()}
    checkpoint = train.get_checkpoint()
    start = None if checkpoint is None else RayTrainReportCallback.get_model(checkpoint, "m.txt")
    done = 0 if start is None else start.current_iteration()
    report = RayTrainReportCallback(
        filename="m.txt", frequency=config.get("frequency", 2), results_postprocessing_fn=lambda d: {**d, "begun": done}
    )
    model = lightgbm.train(
        {**config["params"], "tree_learner": "data", **network},
        data["train"],
        config["rounds"] - done,
        valid_sets=list(data.values()),
        valid_names=list(data),
        init_model=start,
        callbacks=[*config.get("callbacks", ()), report],
    )
    assert model.current_iteration() <= config["rounds"]


def by_loop(frame, run_config, *, function=loop, workers=TWO, datasets=None, **config):
    from mltoolkit.train.lightgbm import LightGBMConfig, LightGBMTrainer

    return LightGBMTrainer(
        function,
        train_loop_config={"params": PARAMS, "rounds": 4, **config},
        lightgbm_config=LightGBMConfig(),
        scaling_config=workers,
        run_config=run_config,
        datasets=datasets or {"train": frame[:200], "valid": frame[200:300]},
    )


def test_a_training_function_trains_on_the_data_of_all(runtime, frame, storage, capfd):
    from mltoolkit.train.lightgbm import RayTrainReportCallback

    result = by_loop(frame, storage()).fit()
    model = RayTrainReportCallback.get_model(result.checkpoint, "m.txt")
    assert model.current_iteration() == 4
    for name, part in {"train": frame[:200], "valid": frame[200:300]}.items():
        found = [result.metrics[f"{name}-{metric}"] for metric in METRICS]
        assert found == pytest.approx(evaluations(model, part), rel=1e-5), name
    counts = model.dump_model()["tree_info"][0]["tree_structure"]["internal_count"]
    assert counts == 200, "each worker has trained for itself"
    assert os.listdir(result.checkpoint.path) == ["m.txt"]
    said = capfd.readouterr()
    assert "LightGBM" not in said.out + said.err


def test_a_training_function_that_stops_early_does_so_everywhere(runtime, frame, storage):
    import lightgbm

    from mltoolkit.train.lightgbm import RayTrainReportCallback

    result = by_loop(
        frame,
        storage(),
        params={**PARAMS, "learning_rate": 0.9, "metric": "binary_logloss"},
        rounds=200,
        frequency=1,
        callbacks=[lightgbm.early_stopping(3, verbose=False)],
        datasets={"train": frame[:200], "valid": frame[297:299]},
    ).fit()
    losses = result.metrics_dataframe["valid-binary_logloss"].tolist()
    assert len(losses) < 200
    assert min(losses) == losses[-4]
    model = RayTrainReportCallback.get_model(result.checkpoint, "m.txt")
    assert evaluations(model, frame[297:299])[0] == pytest.approx(losses[-1], rel=1e-5)


def test_a_worker_that_is_lost(runtime, frame, storage, tmp_path):
    from mltoolkit.train.lightgbm import RayTrainReportCallback

    began = time.monotonic()
    with pytest.raises(train.WorkerGroupError, match=r"Rank 1 of 2 .* died: .*SIGKILL") as caught:
        by_loop(frame, storage(), callbacks=[kill_once(str(tmp_path / "one"), 1, 2)]).fit()
    assert list(caught.value.worker_failures) == [1]
    assert time.monotonic() - began < 20
    config = storage(failure_config=train.FailureConfig(max_failures=1))
    result = by_loop(frame, config, rounds=5, callbacks=[kill_once(str(tmp_path / "two"), 0, 2)]).fit()
    assert result.metrics["begun"] == 2
    assert RayTrainReportCallback.get_model(result.checkpoint, "m.txt").current_iteration() == 5


def test_workers_that_would_train_each_for_itself_are_told(runtime, frame, storage):
    def serial(config):
        import lightgbm

        from mltoolkit.train.lightgbm import RayTrainReportCallback, get_network_params

        shard = train.get_dataset_shard("train")
        data = lightgbm.Dataset(shard.drop(columns="y"), shard["y"])
        callbacks = [RayTrainReportCallback()]
        lightgbm.train({**PARAMS, **get_network_params()}, data, 2, [data], callbacks=callbacks)

    with pytest.raises(train.WorkerGroupError, match="`tree_learner` must be 'data' or 'voting'.*got 'serial'"):
        by_loop(frame, storage(), function=serial).fit()


def test_one_worker_and_none(runtime, frame, storage):
    losses = []
    for count in (0, 1):
        function = loop if count else (lambda config: loop_without_network(config))
        result = by_loop(frame, storage(), function=function, workers=train.ScalingConfig(num_workers=count)).fit()
        losses.append(result.metrics_dataframe["valid-binary_logloss"].tolist())
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def loop_without_network(config):
    """The same in a program without workers, where there is no network to ask for."""
    import lightgbm

    from mltoolkit.train.lightgbm import RayTrainReportCallback

    data = {}
    for name in ("train", "valid"):
        shard = train.get_dataset_shard(name)
        data[name] = lightgbm.Dataset(shard.drop(columns="y"), shard["y"])
    lightgbm.train(
        config["params"], data["train"], 4, list(data.values()), list(data), callbacks=[RayTrainReportCallback()]
    )


def test_outside_a_training_function_there_is_no_network(caplog):
    from mltoolkit.train.lightgbm import get_network_params

    assert get_network_params() == {}
    assert "outside the training function of a LightGBMTrainer" in caplog.text


def test_a_trainer_is_swept(runtime, frame):
    results = tune.Tuner(
        older(frame, None, num_boost_round=2),
        param_space={"params": {"num_leaves": tune.grid_search([2, 9])}},
        tune_config=tune.TuneConfig(metric="train-binary_logloss", mode="min"),
        run_config=train.RunConfig(verbose=0),
    ).fit()
    assert not results.errors
    assert results.get_best_result().config["params"]["num_leaves"] == 9


def test_checkpoints_of_models():
    import lightgbm

    from mltoolkit.train.lightgbm import LightGBMCheckpoint

    X = np.arange(40.0).reshape(-1, 1)
    model = lightgbm.train({"num_threads": 1, "verbosity": -1}, lightgbm.Dataset(X, X[:, 0]), 2)
    checkpoint = LightGBMCheckpoint.from_model(model)
    assert os.listdir(checkpoint.path) == ["model.txt"]
    assert (checkpoint.get_model().predict(X) == model.predict(X)).all()


def test_tables_of_arrow_arrays():
    import pandas

    pytest.importorskip("pyarrow")
    from mltoolkit.train.lightgbm import normalize_pandas_for_lightgbm

    kinds = {"i": "int8", "u": "uint32", "f": "float", "d": "double", "b": "bool", "s": "string"}
    frame = pandas.DataFrame({name: pandas.array([None], f"{kind}[pyarrow]") for name, kind in kinds.items()})
    frame["plain"] = [1.0]
    plain = normalize_pandas_for_lightgbm(frame)
    found = {name: str(dtype) for name, dtype in plain.dtypes.items()}
    assert found == {
        "i": "Int8", "u": "UInt32", "f": "Float32", "d": "Float64", "b": "boolean", "s": "string",
        "plain": "float64",
    }  # fmt: skip
    assert plain.isna().to_numpy().tolist() == [[True] * 6 + [False]]


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"valid_sets": []}, TypeError, "`valid_sets` cannot be given.*all `datasets` are evaluated"),
        ({"early_stopping_round": 3}, TypeError, "Did you mean `early_stopping_rounds`?"),
        ({"lightgbm_config": 1}, TypeError, "must be a train.lightgbm.LightGBMConfig"),
        ({"init_model": 1, "train_loop_per_worker": print}, TypeError, "belongs to the form without"),
    ],
)
def test_what_a_trainer_refuses(frame, options, error, text):
    with pytest.raises(error, match=text):
        older(frame, None, **options)
