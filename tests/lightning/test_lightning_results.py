"""What a run leaves in the program beside weights: optimizers, logs, new modules; and several runs at a time."""

from __future__ import annotations

import threading

import pytest


def test_a_checkpoint_that_the_program_saves_goes_on_as_if_there_had_been_no_break(
    runtime, pl, parts, trainer_of, tmp_path
):
    import torch

    from mltoolkit.lightning import RayStrategy

    Net, _, _, loader = parts
    torch.manual_seed(2)
    whole, half = Net(), Net()
    half.load_state_dict(whole.state_dict())
    trainer_of(RayStrategy(num_workers=2), max_epochs=4).fit(whole, loader())

    first = trainer_of(RayStrategy(num_workers=2))
    first.fit(half, loader())
    (optimizer,) = first.optimizers
    assert all(
        ours is theirs for ours, theirs in zip(optimizer.param_groups[0]["params"], half.parameters(), strict=True)
    )
    (config,) = first.lr_scheduler_configs
    assert config.scheduler.optimizer is optimizer
    assert config.scheduler.get_last_lr() == pytest.approx([0.05 * 0.9**2])
    assert first.num_training_batches == 4
    first.save_checkpoint(tmp_path / "half.ckpt")

    resumed = Net()
    second = trainer_of(RayStrategy(num_workers=2), max_epochs=4)
    second.fit(resumed, loader(), ckpt_path=tmp_path / "half.ckpt")
    assert (second.current_epoch, second.global_step) == (4, 16)
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], value)


def test_optimizers_that_cannot_come_back_are_named_when_a_checkpoint_is_saved(
    runtime, pl, parts, trainer_of, tmp_path, caplog
):
    import torch

    from mltoolkit.lightning import RayStrategy

    Net, _, _, loader = parts

    class Locked(Net):
        def configure_optimizers(self):
            optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
            optimizer.param_groups[0]["lock"] = threading.Lock()
            return optimizer

    trainer = trainer_of(RayStrategy(num_workers=2), max_epochs=1)
    trainer.fit(Locked(), loader())
    assert trainer.global_step == 4 and trainer.optimizers == []
    trainer.save_checkpoint(tmp_path / "bare.ckpt")
    assert "bare.ckpt has no states of optimizers: they could not be sent" in caplog.text


def test_a_run_that_has_failed_leaves_no_checkpoint_of_a_model_without_training(
    runtime, pl, parts, trainer_of, tmp_path, caplog
):
    from mltoolkit.lightning import RayStrategy

    Net, _, _, loader = parts
    callback = pl.callbacks.OnExceptionCheckpoint(tmp_path)
    trainer = trainer_of(RayStrategy(num_workers=2), callbacks=[callback], enable_checkpointing=True)
    with pytest.raises(ZeroDivisionError):
        trainer.fit(Net(fail_on=1), loader())
    assert not (tmp_path / "on_exception.ckpt").exists()
    assert "on_exception.ckpt is not saved: the state of the run" in caplog.text
    trainer.save_checkpoint(tmp_path / "own.ckpt")
    assert (tmp_path / "own.ckpt").exists()


def test_modules_that_a_run_makes_come_back(runtime, pl, parts, trainer_of):
    import torch

    from mltoolkit.lightning import RayShardedStrategy, RayStrategy

    Net, _, _, loader = parts

    class Late(Net):
        def __init__(self):
            super().__init__()
            self.tail = None

        def configure_model(self):
            if self.tail is None:
                self.tail = torch.nn.Sequential(torch.nn.Linear(1, 3), torch.nn.BatchNorm1d(3))

        def training_step(self, batch, _):
            return self.tail(self.body(batch[0])).square().mean()

        def predict_step(self, batch, _):
            return self.tail(self.body(batch[0]))

    for strategy in (RayStrategy(num_workers=2), RayShardedStrategy(num_workers=2)):
        net = Late()
        trainer = trainer_of(strategy, max_epochs=1)
        trainer.fit(net, loader())
        assert len(net.state_dict()) == 4 + 2 + 5 and net.tail[1].num_batches_tracked == 4
        predicted = torch.cat(trainer.predict(net, loader()))
        net.eval()
        torch.testing.assert_close(predicted, net.predict_step([loader().dataset.tensors[0]], 0))


def test_a_log_goes_on_and_a_profile_comes_back(runtime, pl, parts, trainer_of, tmp_path):
    from mltoolkit.lightning import RayStrategy

    Net, _, _, loader = parts
    logger = pl.loggers.CSVLogger(tmp_path)
    trainer = trainer_of(
        RayStrategy(num_workers=2), max_epochs=1, logger=logger, log_every_n_steps=1, profiler="simple"
    )
    net = Net()
    trainer.fit(net, loader())
    trainer.test(net, loader(), verbose=False)
    with open(f"{logger.log_dir}/metrics.csv") as stream:
        rows = stream.read().splitlines()
    assert len(rows) == 1 + 4 + 1, "four steps and the test"
    assert any("training_step" in name for name in trainer.profiler.recorded_durations)


def test_the_tuner_finds_a_learning_rate(runtime, pl, parts, trainer_of):
    import importlib

    import torch

    from mltoolkit.lightning import RayStrategy

    Net, _, _, loader = parts

    class Tuned(Net):
        lr = 0.5

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=self.lr)

    net = Tuned()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    trainer = trainer_of(RayStrategy(num_workers=2), max_epochs=1)
    tuner = importlib.import_module("pytorch_lightning.tuner").Tuner(trainer)
    data = torch.utils.data.ConcatDataset([loader().dataset] * 4)
    found = tuner.lr_find(
        net, torch.utils.data.DataLoader(data, batch_size=4), num_training=20, early_stop_threshold=None
    )
    assert len(found.results["lr"]) == 20
    assert net.lr == found.suggestion() != 0.5
    for name, value in before.items():
        torch.testing.assert_close(net.state_dict()[name], value)


def test_four_fits_at_a_time(runtime, pl, parts, trainer_of):
    from mltoolkit.lightning import RayStrategy

    Net, _, _, loader = parts
    trainers = [trainer_of(RayStrategy(num_workers=2)) for _ in range(4)]
    threads = [threading.Thread(target=trainer.fit, args=(Net(), loader())) for trainer in trainers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(100)
    assert [trainer.global_step for trainer in trainers] == [8] * 4


def test_ranks_that_disagree_on_the_number_of_batches_are_told_so(runtime, pl, parts, trainer_of, monkeypatch):
    import torch

    from mltoolkit.lightning import RayStrategy

    Net, _, _, loader = parts
    monkeypatch.setenv("MLTOOLKIT_TRAIN_STALL_S", "1")

    class Uneven(torch.utils.data.IterableDataset):
        def __iter__(self):
            x, y = loader().dataset.tensors
            for index in range(8 + 8 * torch.distributed.get_rank()):
                yield x[index], y[index]

    trainer = trainer_of(RayStrategy(num_workers=2), max_epochs=1)
    with pytest.raises(RuntimeError, match=r"waited for the other ranks .* the same number of batches"):
        trainer.fit(Net(), torch.utils.data.DataLoader(Uneven(), batch_size=2))


def test_a_number_of_devices_that_is_not_the_number_of_workers_is_refused(runtime, pl, parts, trainer_of):
    from mltoolkit.lightning import RayStrategy

    Net, _, _, loader = parts
    with pytest.raises(ValueError, match=r"`Trainer\(devices=4\)` and `RayStrategy\(num_workers=2\)` disagree"):
        trainer_of(RayStrategy(num_workers=2), devices=4).fit(Net(), loader())
