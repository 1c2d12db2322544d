"""TorchTrainer: process groups, models, data loaders; equal to plain torch step by step."""

from __future__ import annotations

import os

import pytest

from mltoolkit import train
from mltoolkit.train.torch import TorchConfig, TorchTrainer


@pytest.fixture(scope="module")
def warm():
    """A session whose fork server has torch loaded, for all tests of this module."""
    import mltoolkit as ray

    ray.shutdown()
    import torch
    import torch._dynamo  # noqa: F401

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLTOOLKIT_PRELOAD", "numpy,torch")
        patch.setenv("MLTOOLKIT_ZYGOTE", "fork")  # of this process, which has loaded it just now
        ray.init(num_cpus=4)
        yield
        ray.shutdown()


@pytest.fixture
def fit(warm, tmp_path):
    def run(loop, workers=2, **options):
        return TorchTrainer(
            loop,
            scaling_config=train.ScalingConfig(num_workers=workers),
            run_config=train.RunConfig(storage_path=tmp_path, verbose=0),
            **options,
        ).fit()

    return run


def make_model(torch):
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 1))


def make_data(torch):
    torch.manual_seed(1)
    return torch.utils.data.TensorDataset(torch.randn(32, 4), torch.randn(32, 1))


def test_training_equals_one_process_with_the_whole_batch(fit):
    import torch

    def loop(config):
        import torch
        import torch.distributed as dist

        from mltoolkit.train import torch as train_torch

        train_torch.enable_reproducibility(3)
        torch.manual_seed(0)
        model = train_torch.prepare_model(torch.nn.Linear(4, 1))
        loader = torch.utils.data.DataLoader(config["data"], batch_size=4)
        loader = train_torch.prepare_data_loader(loader)
        shuffled = train_torch.prepare_data_loader(torch.utils.data.DataLoader(list(range(8)), shuffle=True))
        orders = [[int(x) for x in shuffled] for _ in range(2)]
        optimizer = train_torch.prepare_optimizer(torch.optim.SGD(model.parameters(), lr=0.1))
        losses = []
        for x, y in loader:
            loss = torch.nn.functional.mse_loss(model(x), y)
            optimizer.zero_grad()
            train_torch.backward(loss)
            optimizer.step()
            whole = loss.detach().clone()
            dist.all_reduce(whole)
            losses.append(float(whole / dist.get_world_size()))
        gathered = [None, None]
        dist.all_gather_object(gathered, orders)
        train.report(
            {
                "losses": losses,
                "weights": [p.detach().tolist() for p in model.parameters()],
                "kind": type(model).__name__,
                "orders": gathered,
                "backend": dist.get_backend(),
                "address": os.environ["MASTER_ADDR"],
                "device": str(train_torch.get_device()),
                "ranks": [os.environ[name] for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "NODE_RANK")],
            }
        )

    data = make_data(torch)
    found = fit(loop, train_loop_config={"data": data}).metrics
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x, y = data.tensors
    losses = []
    for start in range(0, 32, 8):  # the rows that both workers have in a step
        loss = torch.nn.functional.mse_loss(model(x[start : start + 8]), y[start : start + 8])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert found["losses"] == pytest.approx(losses, rel=1e-5)
    for one, other in zip(found["weights"], model.parameters(), strict=True):
        torch.testing.assert_close(torch.tensor(one), other.detach())
    assert (found["kind"], found["backend"], found["address"]) == ("DistributedDataParallel", "gloo", "127.0.0.1")
    assert found["device"] == "cpu" and found["ranks"] == ["0", "2", "0", "0"]
    (first0, second0), (first1, second1) = found["orders"]
    assert sorted(first0 + first1) == sorted(second0 + second1) == list(range(8))
    assert (first0, first1) != (second0, second1), "each epoch has an order of its own"
    for rank, orders in enumerate(found["orders"]):
        sampler = torch.utils.data.DistributedSampler(
            range(8), num_replicas=2, rank=rank
        )  # what programs of torchrun use
        for epoch in range(2):
            sampler.set_epoch(epoch)
            assert orders[epoch] == list(sampler)


def test_a_shorter_rank_is_told_from_a_slow_one(fit, monkeypatch):
    monkeypatch.setenv("MLTOOLKIT_TRAIN_STALL_S", "1")

    def loop():
        import torch
        import torch.distributed as dist

        for _ in range(3 if train.get_context().get_world_rank() else 2):
            dist.all_reduce(torch.ones(1))

    with pytest.raises(train.WorkerGroupError, match="(?s)Rank 1 of 2.*rank 0 has ended.*same number of batches"):
        fit(loop)


def test_a_dead_peer_is_the_cause_and_not_the_broken_connection(fit):
    def loop():
        import torch
        import torch.distributed as dist

        dist.all_reduce(torch.ones(1))
        if train.get_context().get_world_rank() == 1:
            os._exit(7)
        dist.all_reduce(torch.ones(1))

    with pytest.raises(train.WorkerGroupError) as caught:
        fit(loop)
    assert list(caught.value.worker_failures) == [1] and "code 7" in str(caught.value)


def test_checkpoints_of_models(tmp_path):
    import torch

    from mltoolkit.train._trust import UntrustedFileError
    from mltoolkit.train.torch import TorchCheckpoint

    model, other = torch.nn.Linear(2, 1), torch.nn.Linear(2, 1)
    for weights in (model.state_dict(), {f"module.{name}": value for name, value in model.state_dict().items()}):
        kept = TorchCheckpoint.from_state_dict(weights)
        assert torch.equal(kept.get_model(other).weight, model.weight)
        with pytest.raises(ValueError, match="holds weights"):
            kept.get_model()
    inner = torch.nn.ModuleDict({"module": torch.nn.Linear(1, 1), "head": torch.nn.Linear(1, 1)})
    TorchCheckpoint.from_state_dict(inner.state_dict()).get_model(inner)  # a part of the name "module" is no wrapper
    whole = TorchCheckpoint.from_model(model)
    assert torch.equal(whole.get_model().weight, model.weight) and isinstance(whole, train.Checkpoint)
    folder = whole.to_directory(tmp_path / "foreign")
    os.chmod(os.path.join(folder, "model.pt"), 0o666)
    with pytest.raises(UntrustedFileError):
        TorchCheckpoint(folder).get_model()
    with pytest.raises(ValueError, match="holds no model.pt"):
        TorchCheckpoint(tmp_path).get_model()


def test_workers_of_a_sweep_have_torch_loaded_for_them(monkeypatch):
    from mltoolkit import util

    loaded = []
    monkeypatch.setattr(util, "preload_modules", lambda *names: loaded.extend(names))
    TorchTrainer(print).as_trainable()
    assert {"torch", "torch._dynamo"} <= set(loaded)


def test_a_port_that_is_taken_is_not_waited_for(fit, monkeypatch):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
        monkeypatch.setenv("MASTER_PORT", port)

        def loop():
            import torch
            import torch.distributed as dist

            one = torch.ones(1)
            dist.all_reduce(one)
            return one.item(), os.environ["MASTER_PORT"]

        total, own = fit(loop).return_value
    assert total == 2 and own != port


def test_sharded_models_run_on_cpus(fit):
    def loop():
        import torch

        from mltoolkit.train import torch as train_torch

        torch.manual_seed(0)
        model = train_torch.prepare_model(torch.nn.Linear(8, 4), parallel_strategy="fsdp")
        optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
        loss = model(torch.ones(2, 8)).square().mean()
        loss.backward()
        optimizer.step()
        local = sum(p.to_local().numel() for p in model.parameters())
        state = sum(v.to_local().numel() for s in optimizer.state.values() for k, v in s.items() if k == "exp_avg")
        train.report({"local": local, "state": state, "loss": loss})

    metrics = fit(loop).metrics
    assert metrics["local"] == metrics["state"] == (8 * 4 + 4) // 2


def test_names_that_the_guide_says_exist_do():
    import importlib
    import re

    from helpers import ROOT

    page = ROOT / "docs" / "coming-from-ray-train.md"
    if not page.exists():
        pytest.skip("a distribution without docs/")
    table = page.read_text().partition("## Supported names")[2]
    names = [
        name
        for line in table.splitlines()
        for name in re.findall(r"`ray\.([\w.]+)`", line.split("|")[1] if "|" in line else "")
    ]
    assert len(names) > 40
    for name in names:
        module, _, attribute = name.rpartition(".")
        if module != "train.xgboost" and module != "train.lightgbm":  # they need packages of their own
            assert hasattr(importlib.import_module(f"mltoolkit.{module}"), attribute), name


def test_what_is_refused():
    with pytest.raises(ValueError, match="'env' or 'tcp'"):
        TorchConfig(init_method="file")
    with pytest.raises(ValueError, match="seconds > 0"):
        TorchConfig(timeout_s=0)
    with pytest.raises(TypeError, match="needs `train_loop_per_worker`"):
        TorchTrainer()
    with pytest.raises(NotImplementedError, match="training operator"):
        TorchTrainer(training_operator_cls=object)
    with pytest.raises(TypeError, match="no argument `torch_conf`"):
        TorchTrainer(print, torch_conf=None)
    with pytest.raises(TypeError, match=r"train\.torch\.TorchConfig"):
        TorchTrainer(print, torch_config={"backend": "gloo"})
    with pytest.raises(train.TrainingFailedError, match="Leave `use_gpu` out"):
        TorchTrainer(print, scaling_config=train.ScalingConfig(use_gpu=True)).fit()
