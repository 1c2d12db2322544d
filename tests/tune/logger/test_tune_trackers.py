"""Loggers for tracking services, against stand-ins that record what they are told."""

import math
import pickle
import sys
import types

import pytest

from mltoolkit.air.integrations import _session
from mltoolkit.air.integrations import mlflow as air_mlflow
from mltoolkit.air.integrations import wandb as air_wandb
from mltoolkit.tune.experiment.trial import Trial
from mltoolkit.tune.logger.aim import AimLoggerCallback
from mltoolkit.tune.logger.mlflow import MLflowLoggerCallback
from mltoolkit.tune.logger.wandb import WandbLoggerCallback

CONFIG = {"lr": 0.1, "model": {"sizes": [8, 8]}}
RESULT = {
    "loss": 0.5,
    "nested": {"acc": 0.75},
    "bad": math.nan,
    "note": "text",
    "training_iteration": 3,
    "pid": 7,
    "config": CONFIG,
}


@pytest.fixture
def trials(tmp_path):
    return [
        Trial(
            f"abc_{i:05d}",
            "train",
            CONFIG,
            evaluated_params={"lr": 0.1},
            experiment_path=tmp_path / "exp",
            dirname=f"trial_{i}",
            location="10.0.0.1:42",
        )
        for i in range(3)
    ]


def drive(logger, trials):
    """One trial that completes, one that fails, one that never ends."""
    info = {"iteration": 1, "trials": trials}
    for trial in trials:
        logger.on_trial_start(**info, trial=trial)
        logger.on_trial_result(**info, trial=trial, result=RESULT)
    logger.on_trial_complete(**info, trial=trials[0])
    logger.on_trial_error(**info, trial=trials[1])
    logger.on_experiment_end(trials=trials)


# MLflow.


class FakeMlflow:
    def __init__(self, experiments=()):
        self.experiments = {name: f"id of {name}" for name in experiments}
        self.runs = {}
        self.active = None
        self.calls = []

    def client(self, tracking_uri=None, registry_uri=None):
        self.calls.append(("client", tracking_uri, registry_uri))
        return self

    def get_experiment_by_name(self, name):
        found = self.experiments.get(name)
        return found and types.SimpleNamespace(experiment_id=found)

    def get_experiment(self, experiment_id):
        if experiment_id not in self.experiments.values():
            raise FakeMlflowError(experiment_id)
        return types.SimpleNamespace(experiment_id=experiment_id)

    def create_experiment(self, name, artifact_location=None):
        self.experiments[name] = f"id of {name}"
        return self.experiments[name]

    def create_run(self, experiment_id, run_name, tags):
        run_id = f"run {len(self.runs)}"
        self.runs[run_id] = {"name": run_name, "tags": tags, "experiment": experiment_id, "params": {}, "metrics": {}}
        return types.SimpleNamespace(info=types.SimpleNamespace(run_id=run_id))

    def log_batch(self, run_id, metrics=(), params=()):
        assert len(params) <= 100
        self.runs[run_id]["params"].update(params)
        self.runs[run_id]["metrics"].update({name: (value, step) for name, value, _, step in metrics})

    def log_artifacts(self, run_id, local_dir):
        self.runs[run_id]["artifacts"] = local_dir

    def set_terminated(self, run_id, status):
        self.runs[run_id]["status"] = status

    def set_tracking_uri(self, uri):
        self.calls.append(("tracking_uri", uri))

    def active_run(self):
        return self.active

    def start_run(self, experiment_id, run_name, tags):
        self.active = self.create_run(experiment_id, run_name, tags)
        return self.active

    def end_run(self):
        self.set_terminated(self.active.info.run_id, "FINISHED")
        self.active = None

    def log_params(self, params):
        self.runs[self.active.info.run_id]["params"].update(params)


class FakeMlflowError(Exception):
    pass


@pytest.fixture
def mlflow(monkeypatch):
    fake = FakeMlflow(experiments=["known"])
    entities = types.SimpleNamespace(Param=lambda *values: values, Metric=lambda *values: values)
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    monkeypatch.setitem(sys.modules, "mlflow.tracking", types.SimpleNamespace(MlflowClient=fake.client))
    monkeypatch.setitem(sys.modules, "mlflow.entities", entities)
    monkeypatch.setitem(sys.modules, "mlflow.exceptions", types.SimpleNamespace(MlflowException=FakeMlflowError))
    monkeypatch.setattr(air_mlflow, "_begun", None)
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    monkeypatch.delenv("MLFLOW_EXPERIMENT_ID", raising=False)
    return fake


def test_mlflow_has_a_run_for_each_trial(mlflow, trials):
    logger = pickle.loads(pickle.dumps(MLflowLoggerCallback("the uri", experiment_name="new", tags={"by": "me"})))
    logger.setup()
    drive(logger, trials)
    assert mlflow.calls == [("client", "the uri", None)]
    first = mlflow.runs["run 0"]
    assert first == {
        "name": "train_abc_00000",
        "tags": {"by": "me", "trial_name": "train_abc_00000", "trial_id": "abc_00000"},
        "experiment": "id of new",
        "params": {"lr": "0.1", "model/sizes": "[8, 8]"},
        "metrics": {"loss": (0.5, 3), "nested/acc": (0.75, 3), "training_iteration": (3.0, 3), "pid": (7.0, 3)},
        "status": "FINISHED",
    }
    assert [run["status"] for run in mlflow.runs.values()] == ["FINISHED", "FAILED", "KILLED"]


def test_mlflow_can_log_parameters_and_files_at_the_end(mlflow, trials, tmp_path):
    (tmp_path / "exp" / "trial_0").mkdir(parents=True)
    logger = MLflowLoggerCallback(experiment_name="known", save_artifact=True, log_params_on_trial_end=True)
    logger.setup()
    logger.log_trial_start(trials[0])
    assert mlflow.runs["run 0"]["params"] == {}
    trials[0].config = {"lr": 0.2}
    logger.log_trial_start(trials[0])  # goes on after a mutation
    logger.log_trial_end(trials[0])
    assert mlflow.runs["run 0"]["params"] == {"lr": "0.2"}
    assert mlflow.runs["run 0"]["artifacts"] == trials[0].path
    assert len(mlflow.runs) == 1


def test_mlflow_needs_an_experiment(mlflow):
    with pytest.raises(ValueError, match="give `experiment_name` or set MLFLOW_EXPERIMENT_NAME"):
        MLflowLoggerCallback().setup()


def running_as(monkeypatch, module, **names):
    monkeypatch.setattr(module, "running", lambda: _session.Running(**names))


def test_setup_mlflow_begins_a_run_for_the_trial(mlflow, monkeypatch):
    running_as(monkeypatch, air_mlflow, trial_id="t1", trial_name="train_t1", experiment_name="exp")
    module = air_mlflow.setup_mlflow({"a": {"b": 1}}, tracking_uri="uri", experiment_name="known")
    assert module is mlflow
    assert mlflow.runs["run 0"]["name"] == "train_t1"
    assert mlflow.runs["run 0"]["params"] == {"a/b": "1"}
    assert air_mlflow.setup_mlflow({"a": {"b": 2}}, experiment_name="known") is mlflow  # the trial goes on
    assert mlflow.runs["run 0"]["params"] == {"a/b": "1"}

    running_as(monkeypatch, air_mlflow, trial_id="t2", trial_name="train_t2")  # the process runs another trial
    air_mlflow.setup_mlflow({}, experiment_name="known")
    assert mlflow.runs["run 0"]["status"] == "FINISHED"
    assert mlflow.active.info.run_id == "run 1"


def test_setup_mlflow_leaves_the_users_own_run_active(mlflow):
    own = mlflow.start_run("id of known", "own", {})
    air_mlflow.setup_mlflow({"lr": 1})
    assert mlflow.active is own
    assert mlflow.runs["run 0"]["params"] == {"lr": "1"}


def test_setup_mlflow_makes_experiments_only_if_told(mlflow):
    with pytest.raises(ValueError, match="no MLflow experiment with the id None or the name 'other'"):
        air_mlflow.setup_mlflow(experiment_name="other")
    air_mlflow.setup_mlflow(experiment_name="other", create_experiment_if_not_exists=True)
    assert mlflow.runs["run 0"]["experiment"] == "id of other"


def test_setup_mlflow_does_nothing_in_other_ranks(mlflow, monkeypatch):
    running_as(monkeypatch, air_mlflow, rank=1)
    module = air_mlflow.setup_mlflow({}, experiment_name="known")
    with module.start_run() as run:
        run.log_metric("loss", 1.0)
    assert mlflow.runs == {}
    air_mlflow.setup_mlflow({}, experiment_name="known", rank_zero_only=False)
    assert len(mlflow.runs) == 1


# Weights & Biases.


class FakeRun:
    def __init__(self, options):
        self.options = options
        self.config = types.SimpleNamespace(update=self._update)
        self.updated, self.logged, self.artifacts, self.exit_code = {}, [], [], None

    def _update(self, values, allow_val_change):
        assert allow_val_change
        self.updated.update(values)

    def log(self, values, step):
        self.logged.append((values, step))

    def log_artifact(self, artifact):
        self.artifacts.append(artifact)

    def finish(self, exit_code):
        if self.options.get("broken"):
            raise OSError("no network")
        self.exit_code = exit_code


@pytest.fixture
def wandb(monkeypatch):
    runs = []

    def init(**options):
        runs.append(FakeRun(options))
        return runs[-1]

    fake = types.SimpleNamespace(init=init, runs=runs, Settings=lambda **options: options)
    fake.Image = lambda image, **options: ("image", image.shape, options)
    fake.Artifact = lambda name, type: types.SimpleNamespace(name=name, type=type, add_dir=lambda path: None)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    for name in ("WANDB_PROJECT_NAME", "WANDB_GROUP_NAME", "WANDB_API_KEY"):
        monkeypatch.setenv(name, "")  # so that what is set is taken back
    return fake


def test_wandb_has_a_run_for_each_trial(wandb, trials):
    logger = pickle.loads(pickle.dumps(WandbLoggerCallback("proj", excludes=["nested"], tags=["x"])))
    logger.setup()
    drive(logger, trials)
    options = wandb.runs[0].options
    assert (options["id"], options["name"]) == ("abc_00000", "train_abc_00000")
    assert (options["project"], options["group"], options["tags"]) == ("proj", "exp", ["x"])
    assert options["config"] == CONFIG
    assert wandb.runs[0].logged[0][0].keys() == {"loss", "bad", "training_iteration"}
    assert wandb.runs[0].logged[0][1] == 3
    assert wandb.runs[0].updated == {"trial_log_path": trials[0].path, "pid": 7}
    assert [run.exit_code for run in wandb.runs] == [0, 1, 1]


def test_wandb_can_log_configurations_media_and_checkpoints(wandb, trials):
    np = pytest.importorskip("numpy")
    logger = WandbLoggerCallback("p", log_config=True, save_checkpoints=True, image_kwargs={"mode": "RGB"})
    logger.setup()
    trials[0].add_checkpoint(types.SimpleNamespace(path="/checkpoint"), {})
    logger.log_trial_start(trials[0])
    logger.log_trial_result(1, trials[0], {**RESULT, "picture": np.zeros((4, 4, 3)), "one": np.array([2.0])})
    logger.log_trial_save(trials[0])
    logged = wandb.runs[0].logged[0][0]
    assert logged["config/lr"] == 0.1
    assert logged["picture"] == ("image", (4, 4, 3), {"mode": "RGB"})
    assert logged["one"] == 2.0
    assert "note" not in logged
    assert wandb.runs[0].artifacts[0].name == "checkpoint_train_abc_00000"


def test_a_failed_upload_to_wandb_is_a_warning(wandb, trials, caplog):
    logger = WandbLoggerCallback("p", broken=True)
    logger.setup()
    logger.log_trial_start(trials[0])
    logger.on_experiment_end(trials=trials)
    assert "run of train_abc_00000 was not uploaded: no network" in caplog.text


def test_wandb_needs_a_project_and_one_key(wandb, tmp_path, monkeypatch):
    import os

    with pytest.raises(ValueError, match="give `project` or set WANDB_PROJECT_NAME"):
        WandbLoggerCallback().setup()
    (tmp_path / "key").write_text("secret\n")
    with pytest.raises(ValueError, match="give one of them"):
        WandbLoggerCallback("p", api_key="x", api_key_file=str(tmp_path / "key")).setup()
    WandbLoggerCallback("p", api_key_file=str(tmp_path / "key")).setup()
    assert os.environ["WANDB_API_KEY"] == "secret"


def test_setup_wandb_names_the_run_after_the_trial(wandb, monkeypatch):
    running_as(monkeypatch, air_wandb, trial_id="t1", trial_name="train_t1", experiment_name="exp")
    air_wandb.setup_wandb({"lr": 1}, project="p", group="mine")
    options = wandb.runs[0].options
    assert (options["id"], options["name"], options["group"], options["project"]) == ("t1", "train_t1", "mine", "p")
    running_as(monkeypatch, air_wandb, rank=2)
    air_wandb.setup_wandb({})
    assert wandb.runs[1].options == {"mode": "disabled"}


# Aim.


@pytest.fixture
def aim(monkeypatch):
    runs = []

    class Run(dict):
        def __init__(self, **options):
            super().__init__()
            self.options, self.tracked, self.closed = options, [], False
            runs.append(self)

        def track(self, value, name, step, epoch, context):
            self.tracked.append((name, value, step, epoch, context))

        def close(self):
            self.closed = True

    monkeypatch.setitem(sys.modules, "aim", types.SimpleNamespace(Run=Run))
    return runs


def test_aim_has_a_run_for_each_trial(aim, trials):
    drive(AimLoggerCallback(system_tracking_interval=None), trials)
    assert len(aim) == 3
    assert all(run.closed for run in aim)
    assert aim[0].options == {
        "repo": str(trials[0].experiment_path),
        "experiment": "exp",
        "system_tracking_interval": None,
    }
    assert aim[0]["hparams"] == {"lr": 0.1}
    assert aim[0]["trial_ip"] == "10.0.0.1"
    assert aim[0].tracked == [("ray/tune/loss", 0.5, 3, None, None), ("ray/tune/nested/acc", 0.75, 3, None, None)]


def test_aim_tracks_the_metrics_that_are_asked_for(aim, trials):
    logger = AimLoggerCallback(metrics=["nested/acc"])
    logger.log_trial_result(1, trials[0], {**RESULT, "epoch": 4, "context": {"subset": "val"}})
    assert aim[0].tracked == [("ray/tune/nested/acc", 0.75, 3, 4, {"subset": "val"})]
    with pytest.raises(ValueError, match="must name one metric at least"):
        AimLoggerCallback(metrics=[])


@pytest.mark.parametrize(
    ("make", "module"),
    [(MLflowLoggerCallback, "mlflow"), (lambda: WandbLoggerCallback("p"), "wandb"), (AimLoggerCallback, "aim")],
)
def test_a_missing_service_is_named(make, module, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(
        ImportError, match=rf'needs {module}, which is not installed. Run `pip install "mltoolkit\[{module}\]"'
    ):
        make()


def test_outside_of_a_trial_nobody_runs():
    assert _session.running() == _session.Running()
