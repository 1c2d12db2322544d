"""Lightning's Trainer on workers: as on one process, with all that it has made back in the program."""

from __future__ import annotations

import os
import warnings

import pytest

from mltoolkit import train


class BothRanks:
    """The batches of two ranks as one, in the order in which Lightning deals them out."""

    def __init__(self, dataset):
        self.dataset = dataset
        self.epoch = 0

    def __len__(self):
        return 4

    def __iter__(self):
        import torch

        dealt = []
        for rank in range(2):
            sampler = torch.utils.data.DistributedSampler(self.dataset, num_replicas=2, rank=rank, seed=0)
            sampler.set_epoch(self.epoch)
            dealt.append(list(sampler))
        self.epoch += 1
        for start in range(0, 32, 8):
            yield [index for indices in dealt for index in indices[start : start + 8]]


def test_a_fit_as_on_one_process_with_all_of_it_back(runtime, pl, parts, trainer_of, tmp_path):
    import torch

    from mltoolkit.lightning import RayStrategy

    Net, Record, Bar, loader = parts
    torch.manual_seed(1)
    net = Net()
    alone = Net()
    alone.load_state_dict(net.state_dict())
    record, bar = Record(), Bar()
    checkpoints = pl.callbacks.ModelCheckpoint(monitor="val", dirpath=tmp_path / "kept", save_last=True)
    strategy = RayStrategy(num_workers=2)
    assert isinstance(strategy, pl.strategies.DDPStrategy)
    trainer = trainer_of(
        strategy,
        callbacks=[record, bar, checkpoints],
        enable_checkpointing=True,
        enable_progress_bar=True,
        logger=pl.loggers.CSVLogger(tmp_path),
        log_every_n_steps=1,
        gradient_clip_val=1.0,
    )
    trainer.fit(net, loader(), loader())

    # Two workers with batches of 8 see together what one process sees in batches of 16.
    single = trainer_of("auto", gradient_clip_val=1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        single.fit(alone, torch.utils.data.DataLoader(loader().dataset, batch_sampler=BothRanks(loader().dataset)))
    for name, value in alone.state_dict().items():
        torch.testing.assert_close(net.state_dict()[name], value)

    metrics = trainer.callback_metrics
    assert set(metrics) == {"loss", "val"} == set(trainer.logged_metrics) and "loss" in trainer.progress_bar_metrics
    assert record.losses[-1] == pytest.approx(float(metrics["loss"])) and len(record.losses) == 2
    assert record.ranks == (0, 2, 0, "DistributedSampler")
    assert len(net.seen) == 8, "attributes of the model are rank 0's"
    assert (trainer.current_epoch, trainer.global_step, trainer.state.finished) == (2, 8, True)
    assert os.path.exists(checkpoints.best_model_path) and os.path.exists(checkpoints.last_model_path)
    assert float(checkpoints.best_model_score) == pytest.approx(float(metrics["val"]))
    assert "metrics.csv" in os.listdir(trainer.logger.log_dir) and trainer.logger.version == 0
    assert bar.calls[0] == (0, os.getpid())
    assert [call[:2] for call in bar.calls if len(call) == 3][-1] == (4, 4)
    assert "loss" in bar.calls[-1][2]

    tested = trainer.test(net, loader(), verbose=False)
    assert tested[0]["val"] == pytest.approx(float(metrics["val"]), rel=1e-4)
    predicted = torch.cat(trainer.predict(net, loader()))
    torch.testing.assert_close(predicted, net.body(loader().dataset.tensors[0]))
    trainer.fit_loop.max_epochs = 3
    trainer.fit(net, loader(), loader())
    assert (trainer.current_epoch, trainer.global_step) == (3, 12)


def test_sharded_training_is_the_same_and_its_checkpoints_load_everywhere(runtime, pl, parts, trainer_of, tmp_path):
    import torch

    from mltoolkit.lightning import RayShardedStrategy, RayStrategy

    Net, _, _, loader = parts

    class Sizes(pl.Callback):
        def on_train_end(self, trainer, module):
            optimizer = trainer.optimizers[0]
            states = [each for state in optimizer.state.values() for each in state.values() if each.ndim]
            self.local = sum(each.to_local().numel() for each in states)

    sizes = Sizes()
    torch.manual_seed(1)
    plain, sharded = Net(), Net()
    sharded.load_state_dict(plain.state_dict())
    kept = pl.callbacks.ModelCheckpoint(dirpath=tmp_path / "sharded", save_last=True)
    options = {"gradient_clip_val": 1.0, "accumulate_grad_batches": 2}
    trainer = trainer_of(
        RayShardedStrategy(num_workers=2), callbacks=[sizes, kept], enable_checkpointing=True, **options
    )
    trainer.fit(sharded, loader())
    other = trainer_of(RayStrategy(num_workers=2), **options)
    other.fit(plain, loader())
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(sharded.state_dict()[name], value)
    whole = 2 * sum(each.numel() for each in plain.parameters())  # Adam keeps two values for each
    assert whole / 2 <= sizes.local <= whole / 2 + 16, "torch pads shards by less than a row"
    saved = torch.load(kept.last_model_path, weights_only=False)
    assert all(type(each) is torch.Tensor for each in saved["state_dict"].values())

    resumed = []
    for strategy in ("auto", RayShardedStrategy(num_workers=2), RayStrategy(num_workers=2)):
        net = Net()
        again = trainer_of(strategy, max_epochs=3, **options)
        data = loader()
        if strategy == "auto":
            both = BothRanks(loader().dataset)
            both.epoch = 2
            data = torch.utils.data.DataLoader(loader().dataset, batch_sampler=both)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            again.fit(net, data, ckpt_path=kept.last_model_path)
        assert (again.current_epoch, again.global_step) == (3, 6)
        resumed.append(net.state_dict())
    for state in resumed[1:]:
        for name, value in resumed[0].items():
            torch.testing.assert_close(state[name], value)


def test_failures_name_the_rank_and_the_next_fit_works(runtime, pl, parts, trainer_of):
    import threading

    import torch

    from mltoolkit.lightning import RayStrategy

    Net, Record, _, loader = parts
    trainer = trainer_of(RayStrategy(num_workers=2))
    with pytest.raises(ZeroDivisionError, match="in this rank's step") as caught:
        trainer.fit(Net(fail_on=1), loader())
    note = "".join(caught.value.__notes__)
    assert "Rank 1 of 2" in note and "in training_step" in note

    class Killed(pl.Callback):
        def on_train_batch_start(self, trainer, module, batch, index):
            if trainer.global_rank == 1:
                os.kill(os.getpid(), 9)

    with pytest.raises(train.WorkerGroupError, match=r"Rank 1 of 2 .* died: .*SIGKILL"):
        trainer_of(RayStrategy(num_workers=2), callbacks=[Killed()]).fit(Net(), loader())

    net = Net()
    net.lock = threading.Lock()
    with pytest.raises(TypeError, match=r"The model \(Net\) cannot be sent to the workers.*`value.lock`"):
        trainer_of(RayStrategy(num_workers=2)).fit(net, loader())

    class Locked(torch.utils.data.TensorDataset):
        pass

    data = Locked(*loader().dataset.tensors)
    data.rows = (row for row in range(3))
    with pytest.raises(TypeError, match=r"The data \(DataLoader\) cannot be sent.*`value.dataset.rows`"):
        trainer_of(RayStrategy(num_workers=2)).fit(Net(), torch.utils.data.DataLoader(data))
    with pytest.raises(train.TrainingFailedError, match=r"9 workers .* the session has 4 CPU.*init\(num_cpus=9\)"):
        trainer_of(RayStrategy(num_workers=9)).fit(Net(), loader())
    with pytest.raises(train.TrainingFailedError, match="Leave `use_gpu` out"):
        trainer_of(RayStrategy(num_workers=2, use_gpu=True), accelerator="auto").fit(Net(), loader())

    record = Record()
    stop = pl.callbacks.EarlyStopping("loss", mode="max", patience=1)
    hooked = trainer_of(
        RayStrategy(num_workers=2, init_hook=lambda: os.environ.__setitem__("HOOKED", "1"), env_vars={"OWN": "2"}),
        callbacks=[record, stop],
        max_epochs=50,
        limit_train_batches=2,
    )
    hooked.fit(Net(), loader())
    assert len(record.losses) < 50 and stop.stopped_epoch > 0 and hooked.should_stop


def test_trials_report_and_a_scheduler_ends_them(runtime, pl, parts, tmp_path):
    from mltoolkit import tune
    from mltoolkit.lightning import RayStrategy
    from mltoolkit.lightning.tune import TuneReportCheckpointCallback, get_tune_resources

    Net, _, _, loader = parts

    def trial(config):
        net = Net()
        callback = TuneReportCheckpointCallback({"score": "val"}, filename="net.ckpt", on="validation_end")
        warnings.simplefilter("ignore")
        trainer = pl.Trainer(
            max_epochs=config["epochs"],
            strategy=RayStrategy(num_workers=2),
            callbacks=[callback],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(net, loader(), loader())

    results = tune.Tuner(
        tune.with_resources(trial, get_tune_resources(num_workers=2)),
        param_space={"epochs": tune.grid_search([3, 50])},
        run_config=tune.RunConfig(storage_path=tmp_path, verbose=0, stop={"training_iteration": 3}),
    ).fit()
    assert not results.errors, results.errors
    assert [result.metrics["training_iteration"] for result in results] == [3, 3]
    with results[1].checkpoint.as_directory() as folder:
        assert os.listdir(folder) == ["net.ckpt"]


def test_lightning_in_a_training_function(runtime, pl, parts, tmp_path):
    from mltoolkit.train.lightning import RayDDPStrategy
    from mltoolkit.train.torch import TorchTrainer

    Net, _, _, loader = parts

    def loop():
        from mltoolkit.train.lightning import (
            RayDDPStrategy,
            RayLightningEnvironment,
            RayTrainReportCallback,
            prepare_trainer,
        )

        warnings.simplefilter("ignore")
        options = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        checkpoint = train.get_checkpoint()
        trainer = pl.Trainer(
            max_epochs=2 if checkpoint is None else 3,
            strategy=RayDDPStrategy(),
            plugins=[RayLightningEnvironment()],
            callbacks=[RayTrainReportCallback()],
            enable_checkpointing=False,
            devices="auto",
            accelerator="auto",
            **options,
        )
        path = None
        if checkpoint is not None:
            path = os.path.join(checkpoint.path, RayTrainReportCallback.CHECKPOINT_NAME)
        prepare_trainer(trainer).fit(Net(), loader(), ckpt_path=path)
        assert trainer.world_size == 2
        with pytest.raises(RuntimeError, match="RayDDPStrategy"):
            prepare_trainer(pl.Trainer(accelerator="cpu", strategy="auto", enable_checkpointing=False, **options))

    def trainer(**options):
        return TorchTrainer(
            loop,
            scaling_config=train.ScalingConfig(num_workers=2),
            run_config=train.RunConfig(storage_path=tmp_path, verbose=0),
            **options,
        )

    result = trainer().fit()
    assert (result.metrics["epoch"], result.metrics["step"]) == (1, 8)
    again = trainer(resume_from_checkpoint=result.checkpoint).fit()
    assert (again.metrics["epoch"], again.metrics["training_iteration"]) == (2, 1)
    with pytest.raises(RuntimeError, match=r"mltoolkit\.lightning\.RayStrategy"):
        RayDDPStrategy()


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"num_workers": 0}, ValueError, "`num_workers` must be an integer >= 1"),
        ({"num_cpus_per_worker": -1}, ValueError, "`num_cpus_per_worker` must be a number >= 0"),
        ({"init_hook": 3}, TypeError, "`init_hook` must be a function"),
        ({"num_nodes": 2}, TypeError, "has no argument `num_nodes`"),
        ({"num_worker": 2}, TypeError, "RayStrategy has no argument `num_worker`. Did you mean `num_workers`?"),
        ({"find_unused": True}, TypeError, "`find_unused`. Did you mean `find_unused_parameters`?"),
        ({"accelerator": "cpu"}, TypeError, "RayStrategy has no argument `accelerator`."),
        ({"resources_per_worker": {"cpu": 1}}, ValueError, "upper case"),
    ],
)
def test_what_a_strategy_refuses(pl, options, error, text):
    from mltoolkit.lightning import RayStrategy

    with pytest.raises(error) as caught:
        RayStrategy(**options)
    assert text in str(caught.value)


def test_what_other_options_refuse(pl, trainer_of):
    from mltoolkit.lightning import HorovodRayStrategy, RayShardedStrategy, RayStrategy
    from mltoolkit.tune.integration.pytorch_lightning import TuneReportCallback

    with pytest.raises(TypeError, match="no argument `find_unused_parameters`"):
        RayShardedStrategy(find_unused_parameters=True)
    with pytest.raises(ValueError, match=r"`Trainer\(num_nodes=2\)` has no meaning"):
        trainer_of(RayStrategy(), num_nodes=2)
    with pytest.raises(ValueError, match="Did you mean 'validation_end'"):
        TuneReportCallback("val", on="validaton_end")
    assert HorovodRayStrategy(num_workers=2).chosen_backend == "gloo"
    assert RayStrategy(2, resources_per_worker={"CPU": 2, "disk": 1}).worker_resources == {"CPU": 2.0, "disk": 1.0}
