"""What does distributed training cost beside the training: start-up, each step, and the model's way back?

`wine`: 1,000 steps of a small network, 11 inputs and two hidden layers of 64, in Lightning with two workers; against
Lightning on one process and its own `ddp_fork` and `ddp_spawn`, and Ray Train where `--peers-python` has it. The time runs
from the making of the Trainer to the return of `fit`, the session's start included; the imports come before.

`step`: a network of four million parameters in plain torch with DistributedDataParallel over gloo, on TorchTrainer and on
`torchrun`: time of a step, and the losses, which must be equal.

`large`: how long a model of 200 MB takes from the end of training on the workers to the return of `fit`.

`sharded`: the share of the optimizer's state that each of two workers keeps.

Everything runs in fresh interpreters, round by round in turn.

    python benchmarks/lightning_workers.py --rounds 3
    python benchmarks/lightning_workers.py --parts wine --peers-python .venv-peers/bin/python
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from _harness import SEED, describe_machine, versions

PARTS = {
    "wine": ("one", "ddp_fork", "ddp_spawn", "mltoolkit", "ray"),
    "step": ("torchrun", "mltoolkit"),
    "large": ("mltoolkit",),
    "sharded": ("mltoolkit",),
}
WORKERS = 2
TIMEOUT_S = 600.0


def quiet_options() -> dict[str, Any]:
    """Options of a Trainer that measures training alone."""
    names = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    return {"accelerator": "cpu", **dict.fromkeys(names, False)}


def wine(runtime: str, smoke: bool) -> dict[str, float]:
    """Train the network once, and again in the same process."""
    import lightning.pytorch as pl
    from _lightning_wine import WineNet, wine_loader

    steps = 20 if smoke else 1000
    if runtime == "ray":
        return wine_on_ray(steps)
    values = {}
    for name in ("fit", "again"):
        file = tempfile.mktemp()
        os.environ["FIRST_STEP"] = file
        began = time.time()
        options = quiet_options()
        if runtime == "mltoolkit":
            from mltoolkit.lightning import RayStrategy

            options["strategy"] = RayStrategy(num_workers=WORKERS)
        elif runtime != "one":
            options.update(strategy=runtime, devices=WORKERS)
        trainer = pl.Trainer(max_steps=steps, max_epochs=-1, **options)
        trainer.fit(WineNet(began), wine_loader())
        values[name] = time.time() - began
        values[f"{name}_first_step"] = float(Path(file).read_text())
        os.unlink(file)
    return values


def wine_on_ray(steps: int) -> dict[str, float]:
    """Train the network on Ray Train."""
    import ray
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    began = time.time()
    ray.init(num_cpus=WORKERS + 1, include_dashboard=False, log_to_driver=False)
    started = time.time()

    def loop() -> None:
        import lightning.pytorch as pl
        from _lightning_wine import WineNet, wine_loader
        from ray.train.lightning import RayDDPStrategy, RayLightningEnvironment

        options = quiet_options()
        plugins = [RayLightningEnvironment()]
        trainer = pl.Trainer(
            max_steps=steps, max_epochs=-1, strategy=RayDDPStrategy(), plugins=plugins, devices="auto", **options
        )
        trainer.fit(WineNet(started), wine_loader())

    with tempfile.TemporaryDirectory() as folder:
        TorchTrainer(
            loop, scaling_config=ScalingConfig(num_workers=WORKERS), run_config=RunConfig(storage_path=folder)
        ).fit()
    return {"session": started - began, "fit": time.time() - started}


def train_steps(steps: int) -> dict[str, Any]:
    """Train the larger network in a process group that stands; return the time of a step and rank 0's losses."""
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


def step(runtime: str, smoke: bool) -> dict[str, Any]:
    """Time steps of the larger network."""
    steps = 10 if smoke else 60
    if runtime == "torchrun":
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "out.json"
            command = [sys.executable, "-m", "torch.distributed.run", f"--nproc_per_node={WORKERS}", "--standalone"]
            command += [__file__, "--rank-of-torchrun", str(out), "--steps", str(steps)]
            environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
            subprocess.run(command, check=True, timeout=TIMEOUT_S, capture_output=True, env=environment)
            measured: dict[str, Any] = json.loads(out.read_text())
            return measured
    import torch  # noqa: F401 - as programs have it

    from mltoolkit import train
    from mltoolkit.train.torch import TorchTrainer

    with tempfile.TemporaryDirectory() as folder:
        result = TorchTrainer(
            lambda: train.report(train_steps(steps)),
            scaling_config=train.ScalingConfig(num_workers=WORKERS),
            run_config=train.RunConfig(storage_path=folder, verbose=0),
        ).fit()
    assert result.metrics is not None
    return {name: result.metrics[name] for name in ("step_ms", "losses")}


def rank_of_torchrun(out: str, steps: int) -> None:
    """Be one of torchrun's processes."""
    import torch.distributed as dist

    dist.init_process_group("gloo")
    measured = train_steps(steps)
    if dist.get_rank() == 0:
        Path(out).write_text(json.dumps(measured))
    dist.destroy_process_group()


def large(runtime: str, smoke: bool) -> dict[str, float]:
    """Time the way back of a model of 200 MB."""
    import lightning.pytorch as pl
    import torch

    from mltoolkit.lightning import RayStrategy

    megabytes = 4 if smoke else 200
    ended = tempfile.mktemp()

    class Net(pl.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.body = torch.nn.Linear(1000, megabytes * 250)

        def training_step(self, batch: Any, _: int) -> Any:
            return self.body(batch[0]).square().mean()

        def on_train_end(self) -> None:
            if self.global_rank == 0:
                Path(ended).write_text(str(time.time()))

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.01)

    net = Net()
    before = net.body.weight.detach().sum()
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.randn(8, 1000)), batch_size=2)
    pl.Trainer(max_steps=1, strategy=RayStrategy(num_workers=WORKERS), **quiet_options()).fit(net, loader)
    came_back = time.time() - float(Path(ended).read_text())
    os.unlink(ended)
    if torch.equal(before, net.body.weight.detach().sum()):
        raise RuntimeError("the trained weights did not come back")
    return {"return_s": came_back}


def sharded(runtime: str, smoke: bool) -> dict[str, float]:
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
    return {"state_share": sizes.local / (2 * sum(each.numel() for each in net.parameters()))}


def child(part: str, runtime: str, smoke: bool) -> None:
    """Measure one part for one runtime in this fresh interpreter."""
    import logging
    import warnings

    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    measure = {"wine": wine, "step": step, "large": large, "sharded": sharded}[part]
    print("ANSWER " + json.dumps(measure(runtime, smoke)), flush=True)


def run_child(part: str, runtime: str, options: argparse.Namespace) -> dict[str, Any]:
    """Run one measurement in a fresh interpreter."""
    python = options.peers_python if runtime == "ray" else Path(sys.executable)
    command = [str(python.absolute()), __file__, "--child", part, runtime, *(["--smoke"] if options.smoke else [])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    answers = [line for line in done.stdout.splitlines() if line.startswith("ANSWER ")]
    if done.returncode or not answers:
        raise RuntimeError(f"{part} on {runtime} ended with code {done.returncode}:\n{done.stderr[-3000:]}")
    answer: dict[str, Any] = json.loads(answers[-1].removeprefix("ANSWER "))
    return answer


def main() -> None:
    """Run the program."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--rounds", type=int, default=3, help="how often everything is run")
    parser.add_argument("--smoke", action="store_true", help="one round of tiny sizes: does the program work")
    parser.add_argument("--peers-python", type=Path, help="interpreter of an environment with Ray Train and Lightning")
    parser.add_argument("--out", type=Path, help="also write all samples there as JSON")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--rank-of-torchrun", help=argparse.SUPPRESS)
    parser.add_argument("--steps", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rank_of_torchrun:
        rank_of_torchrun(options.rank_of_torchrun, options.steps)
        return
    if options.child:
        child(*options.child, options.smoke)
        return
    print(describe_machine())
    print(", ".join(f"{name} {version}" for name, version in versions(("torch", "lightning", "mltoolkit")).items()))
    samples: dict[str, dict[str, dict[str, list[float]]]] = {}
    losses: dict[str, list[float]] = {}
    for _ in range(1 if options.smoke else options.rounds):
        for part in options.parts:
            for runtime in PARTS[part]:
                if runtime == "ray" and options.peers_python is None:
                    continue
                for name, value in run_child(part, runtime, options).items():
                    if name == "losses":
                        losses[runtime] = value
                    else:
                        samples.setdefault(part, {}).setdefault(name, {}).setdefault(runtime, []).append(value)
    for part, rows in samples.items():
        for name, columns in rows.items():
            cells = [
                f"{runtime} {statistics.median(values):.4g} [{min(values):.4g} .. {max(values):.4g}]"
                for runtime, values in columns.items()
            ]
            print(f"{part:<8} {name:<18} {'   '.join(cells)}")
    if len(losses) == 2:
        difference = max(abs(one - other) for one, other in zip(*losses.values(), strict=True))
        print(f"step     largest difference of a loss from torchrun's: {difference:.3g}")
    if options.out is not None:
        options.out.write_text(json.dumps({"samples": samples, "losses": losses}))


if __name__ == "__main__":
    main()
