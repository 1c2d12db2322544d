"""Policies for use without mltoolkit: from raw observations to the environment's actions in one file."""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from mltoolkit._optional import require

if TYPE_CHECKING:
    import torch

    from mltoolkit.rllib.core.rl_module.rl_module import RLModule

__all__ = ["export_policy"]

_SUFFIXES = (".pt", ".pt2", ".onnx")


def export_policy(
    algo_or_module: Any, path: str | os.PathLike[str], *, env_to_module: Any = None, module_to_env: Any = None
) -> str:
    """Write a policy to a file that needs no mltoolkit to run.

    The exported function takes a batch of observations as the environment gives them, shape (N, ...) for any N, and
    returns the most probable actions as the environment takes them: one-hot encoding, flattening and the MeanStdFilter
    (with its statistics as they are now) come before the network, the mapping to the action space's bounds after it.
    Observations of Dict and Tuple spaces are given as the vectors that FlattenObservations makes of them. Policies with
    state take the state's arrays, shape (N, ...), in the order of ``module.get_initial_state()``, as further arguments, and
    return the next ones after the actions.

    Parameters
    ----------
    algo_or_module : Algorithm or RLModule
        Of a module alone, observations and actions are the module's own unless pipelines are given.
    path : path-like
        The suffix is the format: ``.pt`` is TorchScript, for ``torch.jit.load`` in Python or C++; ``.pt2`` is for
        ``torch.export.load(path).module()``; ``.onnx`` is for any ONNX runtime, with inputs ``obs``, ``state_0``, ... and
        outputs ``actions``, ``state_out_0``, ....
    env_to_module : EnvToModulePipeline, optional
    module_to_env : ModuleToEnvPipeline, optional
        In place of the algorithm's.

    Returns
    -------
    str
        The path. An earlier file is replaced once the new one is complete.

    Raises
    ------
    ValueError
        For other suffixes, and for connectors that have no counterpart in a single function: frame stacking, previous
        actions, and those of the user. Export ``algo.get_module()`` then, and do by hand what they do.
    ImportError
        If the packages for ONNX are missing.
    """
    import torch

    target = os.fspath(path)
    suffix = os.path.splitext(target)[1].lower()
    if suffix not in _SUFFIXES:
        raise ValueError(f"`path` must end with one of {', '.join(_SUFFIXES)}, which is the format, got {target!r}.")
    if suffix == ".onnx":
        for package in ("onnx", "onnxscript"):
            require(package, purpose="Exporting to ONNX", extra="onnx")
    module = algo_or_module
    if not isinstance(module, torch.nn.Module):
        module = algo_or_module.get_module()
        env_to_module = algo_or_module.pipeline if env_to_module is None else env_to_module
        module_to_env = algo_or_module.to_env if module_to_env is None else module_to_env
    policy = _policy(module, env_to_module, module_to_env)
    example = policy.example(2)
    os.makedirs(os.path.dirname(os.path.abspath(target)), exist_ok=True)
    with tempfile.TemporaryDirectory(dir=os.path.dirname(os.path.abspath(target))) as folder:
        written = os.path.join(folder, f"policy{suffix}")
        with _quiet(), _without_gradients(policy):
            _write(policy, example, written, suffix)
        os.replace(written, target)
    return target


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without warnings: TorchScript is deprecated, tracers warn of what they handle and of packages nobody asked for."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


@contextlib.contextmanager
def _without_gradients(policy: torch.nn.Module) -> Iterator[None]:
    """The file shall hold parameters that need no gradients; those of the module at hand need theirs again."""
    trained = [parameter for parameter in policy.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_()


def _write(policy: Any, example: tuple[torch.Tensor, ...], path: str, suffix: str) -> None:
    import torch

    names = ["obs", *(f"state_{index}" for index in range(len(example) - 1))]
    if suffix == ".pt":
        with torch.no_grad():
            torch.jit.trace(policy, example, check_inputs=[policy.example(3)]).save(path)
        return
    batch = torch.export.Dim("batch", min=1)
    if suffix == ".pt2":
        with torch.no_grad():
            program = torch.export.export(policy, example, dynamic_shapes=(({0: batch},) * len(example),))
        torch.export.save(program, path)
        return
    outputs = ["actions", *(f"state_out_{index}" for index in range(len(example) - 1))]
    torch.onnx.export(
        policy,
        example,
        path,
        input_names=names,
        output_names=outputs,
        dynamic_shapes=(({0: batch},) * len(example),),
        dynamo=True,
        external_data=False,
        verbose=False,
    )


def _policy(module: RLModule, env_to_module: Any, module_to_env: Any) -> Any:
    """The function that is exported, as a torch module."""
    import torch
    from torch import nn

    from mltoolkit.rllib.core.columns import Columns

    before = _observation_steps(env_to_module)
    after = _action_step(module_to_env)
    shape, dtype = _input_of(env_to_module, module)
    state_names = list(module.get_initial_state())
    distribution = module.get_inference_action_dist_cls()

    class Policy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.before = nn.ModuleList(before)
            self.after = after
            self.module = module

        def forward(self, *inputs: torch.Tensor) -> Any:
            obs, *states = inputs
            for step in self.before:
                obs = step(obs)
            batch: dict[str, Any] = {Columns.OBS: obs}
            if state_names:
                batch[Columns.STATE_IN] = dict(zip(state_names, states, strict=True))
            out = self.module.forward_inference(batch)
            if Columns.ACTIONS in out:
                actions = out[Columns.ACTIONS]
            else:
                actions = distribution.from_logits(out[Columns.ACTION_DIST_INPUTS]).to_deterministic().sample()
            actions = self.after(actions)
            if not state_names:
                return actions
            return (actions, *(out[Columns.STATE_OUT][name] for name in state_names))

        def example(self, rows: int) -> tuple[torch.Tensor, ...]:
            obs = torch.zeros((rows, *shape), dtype=dtype)
            initial = module.get_initial_state()
            states = [torch.from_numpy(np.repeat(np.asarray(initial[name])[None], rows, 0)) for name in state_names]
            return (obs, *states)

    return Policy().eval()


def _input_of(env_to_module: Any, module: RLModule) -> tuple[tuple[int, ...], torch.dtype]:
    """Shape and type of one observation."""
    import torch
    from gymnasium.spaces import Dict, Tuple

    space = module.observation_space if env_to_module is None else env_to_module.input_observation_space
    if isinstance(space, Dict | Tuple):
        return tuple(env_to_module.connectors[0].observation_space.shape), torch.float32
    kind = np.dtype(space.dtype)
    if kind.kind in "iu" and kind != np.uint8:
        return tuple(space.shape), torch.int64
    return tuple(space.shape), {"uint8": torch.uint8, "float64": torch.float64}.get(kind.name, torch.float32)


def _observation_steps(pipeline: Any) -> list[Any]:
    if pipeline is None:
        return []
    from gymnasium.spaces import Dict, Tuple

    from mltoolkit.rllib.connectors.connector_v2 import ConnectorV2
    from mltoolkit.rllib.connectors.env_to_module import FlattenObservations, MeanStdFilter, PrepareImages

    steps: list[Any] = []
    space = pipeline.input_observation_space
    for connector in pipeline.connectors:
        cls = type(connector)
        if cls.__call__ is ConnectorV2.__call__:
            pass  # it changes rewards, which the policy does not see
        elif cls is FlattenObservations and isinstance(space, Dict | Tuple) and not steps:
            pass  # the vector itself is given
        elif cls is FlattenObservations:
            steps.append(_flatten_step(space))
        elif cls is PrepareImages:
            steps.append(_image_step(connector.observation_space))
        elif cls is MeanStdFilter and not isinstance(space, Dict | Tuple):
            steps.append(_mean_std_step(connector))
        else:
            raise ValueError(
                f"The connector {cls.__name__} on observations of {type(space).__name__} cannot be exported. Export the "
                "network alone with `export_policy(algo.get_module(), path)`, and prepare its observations yourself."
            )
        space = connector.observation_space
    if not steps:
        steps.append(_cast_step(pipeline.observation_space))
    return steps


def _action_step(pipeline: Any) -> Any:
    from torch import nn

    if pipeline is None:
        return nn.Identity()
    if pipeline.connectors:
        names = ", ".join(type(connector).__name__ for connector in pipeline.connectors)
        raise ValueError(
            f"The connectors {names} on actions cannot be exported. Export the network alone with "
            "`export_policy(algo.get_module(), path)`, and map its actions yourself."
        )
    return _bounds_step(pipeline)


def _cast_step(space: Any) -> Any:
    from torch import nn

    class Cast(nn.Module):
        def forward(self, obs: torch.Tensor) -> torch.Tensor:
            return obs if space.dtype == np.uint8 else obs.float()

    return Cast()


def _image_step(space: Any) -> Any:
    from torch import nn

    class Image(nn.Module):
        def forward(self, obs: torch.Tensor) -> torch.Tensor:
            if obs.ndim == 3:
                obs = obs.unsqueeze(-1)
            return obs if space.dtype == np.uint8 else obs.float()

    return Image()


def _flatten_step(space: Any) -> Any:
    import torch
    from gymnasium.spaces import Discrete, MultiDiscrete
    from torch import nn

    sizes: list[int] = []
    starts: list[int] = []
    if isinstance(space, Discrete):
        sizes, starts = [int(space.n)], [int(space.start)]
    elif isinstance(space, MultiDiscrete):
        sizes, starts = np.ravel(space.nvec).tolist(), np.ravel(space.start).tolist()

    class Flatten(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            # One column per choice: which component it is of, and the value that it stands for.
            component = [index for index, size in enumerate(sizes) for _ in range(size)]
            value = [start + offset for size, start in zip(sizes, starts, strict=True) for offset in range(size)]
            self.register_buffer("component", torch.tensor(component, dtype=torch.int64))
            self.register_buffer("value", torch.tensor(value, dtype=torch.int64))

        def forward(self, obs: torch.Tensor) -> torch.Tensor:
            flat = obs.flatten(1) if obs.ndim > 1 else obs.unsqueeze(1)
            if sizes:
                component: Any = self.component
                return (flat.index_select(1, component) == self.value).float()
            return flat.float()

    return Flatten()


def _mean_std_step(connector: Any) -> Any:
    import torch
    from torch import nn

    from mltoolkit.rllib.utils.filter import SharedStat

    (state,) = connector.get_state()["running_stats"]
    stat = SharedStat(np.shape(state["base"]["mean"]))
    stat.set_state(state)
    total = stat.total()
    # As the filter itself has it: in float64, without scaling before the second observation.
    mean = total.mean if connector.de_mean_to_zero else np.zeros(total.shape)
    scaled = connector.de_std_to_one and total.n > 1
    factor = 1.0 / (total.std + 1e-8) if scaled else np.ones(total.shape)
    clip = np.inf if connector.clip_by_value is None else float(connector.clip_by_value)

    class MeanStd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mean", torch.from_numpy(np.array(mean)))
            self.register_buffer("factor", torch.from_numpy(np.array(factor)))

        def forward(self, obs: torch.Tensor) -> torch.Tensor:
            scaled = (obs.double() - self.mean) * self.factor
            return scaled.clamp(-clip, clip).float()

    return MeanStd()


def _bounds_step(pipeline: Any) -> Any:
    import torch
    from torch import nn

    space = pipeline.action_space
    if np.dtype(space.dtype).kind != "f":
        return nn.Identity()
    bounds = pipeline._to_bounds

    class Bounds(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for name in ("scale", "offset", "low", "high"):
                value = getattr(bounds, f"_{name}")
                self.register_buffer(name, None if value is None else torch.from_numpy(np.array(value)))
            self.dtype = torch.from_numpy(np.zeros(1, space.dtype)).dtype

        def forward(self, actions: torch.Tensor) -> torch.Tensor:
            scale: Any = self.scale
            low: Any = self.low
            high: Any = self.high
            if scale is not None:
                actions = actions * scale + self.offset
            if low is not None:
                actions = torch.minimum(torch.maximum(actions, low), high)
            return actions.to(self.dtype)

    return Bounds()
