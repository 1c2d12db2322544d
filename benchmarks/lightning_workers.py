"""What does distributed training cost beside the training: start-up, each step, and the model's way back?

`wine`: 1,000 steps of a small network, 11 inputs and two hidden layers of 64, in Lightning with two workers; against
Lightning on one process, its own `ddp_fork` and `ddp_spawn`, and Ray Train. The time runs from the making of the Trainer
to the return of `fit`, the session's start included; the imports come before. Then again in the same process.

`step`: a network of four million parameters in plain torch with DistributedDataParallel over gloo, on TorchTrainer, on
Ray's and on `torchrun`: time of a step. run.py compares the losses, which must be equal.

`large`: how long a model of 200 MB takes from the end of training on the workers to the return of `fit`.

`sharded`: the share of the optimizer's state that each of two workers keeps.

Every measurement is a fresh interpreter.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from _harness import SEED, Recorder, parser, run_fresh, seed_everything
from _runtimes import answer

PARTS = {
    "wine": ("mltoolkit", "ray", "ddp_fork", "ddp_spawn", "process"),
    "step": ("mltoolkit", "ray", "torchrun"),
    "large": ("mltoolkit",),
    "sharded": ("mltoolkit",),
}
RUNTIMES = ("mltoolkit", "ray", "ddp_fork", "ddp_spawn", "torchrun", "process")
WORKERS = 2
TIMEOUT_S = 600.0


def quiet_options() -> dict[str, Any]:
    """Options of a Trainer that measures training alone."""
    names = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    return {"accelerator": "cpu", **dict.fromkeys(names, False)}


def wine(runtime: str, smoke: bool) -> None:
    """Train the network once, and again in the same process."""
    import lightning.pytorch as pl
    from _lightning_wine import WineNet, wine_loader

    steps = 20 if smoke else 1000
    if runtime == "ray":
        wine_on_ray(steps)
        return
    if runtime == "mltoolkit":
        from mltoolkit.lightning import RayStrategy
    values = {}
    for name in ("fit", "again"):
        with tempfile.TemporaryDirectory() as folder:
            first = Path(folder) / "first"
            os.environ["FIRST_STEP"] = str(first)
            began = time.time()
            options = quiet_options()
            if runtime == "mltoolkit":
                options["strategy"] = RayStrategy(num_workers=WORKERS)
            elif runtime != "process":
                options.update(strategy=runtime, devices=WORKERS)
            trainer = pl.Trainer(max_steps=steps, max_epochs=-1, **options)
            trainer.fit(WineNet(began), wine_loader())
            values[f"lightning_{name}"] = [time.time() - began]
            values[f"lightning_{name}_first_step"] = [float(first.read_text())]
    answer(values, {})


def wine_on_ray(steps: int) -> None:
    """Train the network on Ray Train."""
    import ray
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    def loop(began: float) -> None:
        import lightning.pytorch as pl
        from _lightning_wine import WineNet, wine_loader
        from ray.train.lightning import RayDDPStrategy, RayLightningEnvironment

        trainer = pl.Trainer(
            max_steps=steps,
            max_epochs=-1,
            strategy=RayDDPStrategy(),
            plugins=[RayLightningEnvironment()],
            devices="auto",
            **quiet_options(),
        )
        trainer.fit(WineNet(began), wine_loader())

    began = time.time()
    values: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        first = Path(folder) / "first"
        os.environ["FIRST_STEP"] = str(first)
        ray.init(num_cpus=WORKERS + 1, include_dashboard=False, log_to_driver=False)
        for name in ("fit", "again"):
            began = began if name == "fit" else time.time()
            TorchTrainer(
                lambda: loop(began),  # noqa: B023 - called before it changes
                scaling_config=ScalingConfig(num_workers=WORKERS),
                run_config=RunConfig(storage_path=folder),
            ).fit()
            values[f"lightning_{name}"] = [time.time() - began]
            values[f"lightning_{name}_first_step"] = [float(first.read_text())]
    answer(values, {})


def train_steps(steps: int) -> dict[str, Any]:
    """Train the larger network in a process group that stands; return the time of a step and this rank's losses."""
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    width = 1408
    layers: list[Any] = [torch.nn.Linear(64, width), torch.nn.ReLU(), torch.nn.Linear(width, width), torch.nn.ReLU()]
    layers += [torch.nn.Linear(width, width), torch.nn.ReLU(), torch.nn.Linear(width, 10)]
    model = torch.nn.parallel.DistributedDataParallel(torch.nn.Sequential(*layers))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    generator = torch.Generator().manual_seed(SEED + dist.get_rank())
    x = torch.randn(64, 64, generator=generator)
    y = torch.randint(0, 10, (64,), generator=generator)
    losses, times = [], []
    for _ in range(steps):
        began = time.perf_counter()
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        times.append(time.perf_counter() - began)
    return {"step_ms": statistics.median(times[5:]) * 1000, "losses": losses}


def step(runtime: str, smoke: bool) -> None:
    """Time steps of the larger network."""
    steps = 10 if smoke else 60
    measured = steps_on_torchrun(steps) if runtime == "torchrun" else steps_on_trainer(runtime, steps)
    # One number for all losses: run.py wants it to be the same everywhere.
    fingerprint = sum((number + 1) * loss for number, loss in enumerate(measured["losses"]))
    answer({"ddp_step": [measured["step_ms"]]}, {"ddp_losses_score": fingerprint})


def steps_on_torchrun(steps: int) -> dict[str, Any]:
    """Train the larger network in two processes of torchrun's."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.json"
        command = [sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={WORKERS}", "--standalone"]
        command += [__file__, "--rank-of-torchrun", str(out), "--steps", str(steps)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
        subprocess.run(command, check=True, timeout=TIMEOUT_S, capture_output=True, env=environment)
        measured: dict[str, Any] = json.loads(out.read_text())
        return measured


def steps_on_trainer(runtime: str, steps: int) -> dict[str, Any]:
    """Train the larger network on a TorchTrainer."""
    importlib.import_module("torch")  # as programs have it
    train = importlib.import_module(f"{runtime}.train")
    trainer = importlib.import_module(f"{runtime}.train.torch").TorchTrainer
    if runtime == "ray":
        importlib.import_module("ray").init(num_cpus=WORKERS + 1, include_dashboard=False, log_to_driver=False)

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.json"

        def loop() -> None:
            import torch.distributed as dist

            measured = train_steps(steps)
            if dist.get_rank() == 0:
                out.write_text(json.dumps(measured))

        trainer(
            loop,
            scaling_config=train.ScalingConfig(num_workers=WORKERS),
            run_config=train.RunConfig(storage_path=folder),
        ).fit()
        measured: dict[str, Any] = json.loads(out.read_text())
        return measured


def rank_of_torchrun(out: str, steps: int) -> None:
    """Be one of torchrun's processes."""
    import torch.distributed as dist

    dist.init_process_group("gloo")
    measured = train_steps(steps)
    if dist.get_rank() == 0:
        Path(out).write_text(json.dumps(measured))
    dist.destroy_process_group()


def large(runtime: str, smoke: bool) -> None:
    """Time the way back of a model of 200 MB."""
    import lightning.pytorch as pl
    import torch

    from mltoolkit.lightning import RayStrategy

    megabytes = 4 if smoke else 200
    with tempfile.TemporaryDirectory() as folder:
        ended = Path(folder) / "ended"

        class Net(pl.LightningModule):  # type: ignore[misc, name-defined]
            def __init__(self) -> None:
                super().__init__()
                self.body = torch.nn.Linear(1000, megabytes * 250)

            def training_step(self, batch: Any, _: int) -> Any:
                return self.body(batch[0]).square().mean()

            def on_train_end(self) -> None:
                if self.global_rank == 0:
                    ended.write_text(str(time.time()))

            def configure_optimizers(self) -> Any:
                return torch.optim.SGD(self.parameters(), lr=0.01)

        net = Net()
        before = net.body.weight.detach().sum()
        loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.randn(8, 1000)), batch_size=2)
        pl.Trainer(max_steps=1, strategy=RayStrategy(num_workers=WORKERS), **quiet_options()).fit(net, loader)
        came_back = time.time() - float(ended.read_text())
    if torch.equal(before, net.body.weight.detach().sum()):
        raise RuntimeError("the trained weights did not come back")
    answer({"model_return": [came_back]}, {})


def sharded(runtime: str, smoke: bool) -> None:
    """Measure the share of the optimizer's state on one of two workers."""
    import lightning.pytorch as pl
    import torch

    from mltoolkit.lightning import RayShardedStrategy

    class Sizes(pl.Callback):  # type: ignore[misc, name-defined]
        local = 0

        def on_train_end(self, trainer: Any, pl_module: Any) -> None:
            states = [each for state in trainer.optimizers[0].state.values() for each in state.values() if each.ndim]
            self.local = sum(each.to_local().numel() for each in states)

    class Net(pl.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.body = torch.nn.Linear(512, 512)

        def training_step(self, batch: Any, _: int) -> Any:
            return self.body(batch[0]).square().mean()

        def configure_optimizers(self) -> Any:
            return torch.optim.Adam(self.parameters())

    net, sizes = Net(), Sizes()
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.randn(8, 512)), batch_size=2)
    strategy = RayShardedStrategy(num_workers=WORKERS)
    pl.Trainer(max_steps=1, strategy=strategy, callbacks=[sizes], **quiet_options()).fit(net, loader)
    answer({"optimizer_share": [sizes.local / (2 * sum(each.numel() for each in net.parameters()))]}, {})


def child(part: str, runtime: str, smoke: bool) -> None:
    """Measure one part for one runtime in this fresh interpreter."""
    import logging
    import warnings

    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    seed_everything()
    {"wine": wine, "step": step, "large": large, "sharded": sharded}[part](runtime, smoke)


def main() -> None:
    """Run the program."""
    arguments = parser(__doc__, RUNTIMES)
    arguments.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS), help="what is measured")
    arguments.add_argument("--child", choices=list(PARTS), help="used by the program itself")
    arguments.add_argument("--rank-of-torchrun", help=argparse.SUPPRESS)
    arguments.add_argument("--steps", type=int, help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.rank_of_torchrun:
        rank_of_torchrun(options.rank_of_torchrun, options.steps)
        return
    if options.child:
        child(options.child, options.runtime, options.smoke)
        return
    record = Recorder(options.runtime)
    for part in options.parts:
        if options.runtime in PARTS[part]:
            command = [sys.executable, __file__, "--child", part, "--runtime", options.runtime]
            run_fresh([*command, *(["--smoke"] if options.smoke else [])], record, timeout=TIMEOUT_S)
    record.finish(options.out, ("torch", "lightning", options.runtime))


if __name__ == "__main__":
    main()
