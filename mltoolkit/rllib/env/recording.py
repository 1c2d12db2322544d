"""Films of episodes: GIF or MP4."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mltoolkit._optional import require
from mltoolkit.rllib.env.env_context import EnvContext
from mltoolkit.rllib.env.errors import EnvError, EnvRenderError, describe_cause
from mltoolkit.rllib.env.registration import EnvSource, resolve_env
from mltoolkit.rllib.env.serial_vector_env import SerialVectorEnv

__all__ = ["RecordedEpisode", "record_episode"]

_SUFFIXES = (".gif", ".mp4")
_DEFAULT_FPS = 30.0
#: GIF counts in hundredths of a second, and viewers show what is faster than 50 frames a second much slower.
_MAX_GIF_FPS = 50.0


@dataclasses.dataclass(frozen=True)
class RecordedEpisode:
    """What was recorded.

    Parameters
    ----------
    path : Path
    episode_return : float
        The sum of its rewards.
    num_steps : int
    num_frames : int
        One more than steps: the picture after the reset.
    """

    path: Path
    episode_return: float
    num_steps: int
    num_frames: int


def record_episode(
    env: Any,
    act: Callable[[Any], Any],
    path: str | os.PathLike[str],
    *,
    max_steps: int,
    env_config: Mapping[str, Any] | None = None,
    horizon: int | None = None,
    fps: float | None = None,
    seed: int | None = None,
) -> RecordedEpisode:
    """Play one episode and film it.

    Parameters
    ----------
    env : str, class, callable or EnvSource
        What `resolve_env` takes.
    act : callable
        From one observation to one action of the environment's action space.
    path : path-like
        Ends in ``.gif`` or ``.mp4``. Appears when the film is complete, in place of what was there.
    max_steps : int
        The film ends after so many steps, whether or not the episode has.
    env_config : mapping, optional
    horizon : int, optional
        Truncates the episode.
    fps : float, optional
        Frames per second; by default what the environment's ``metadata["render_fps"]`` says, or 30. A GIF has at most
        50.
    seed : int, optional
        Of the environment.

    Returns
    -------
    RecordedEpisode

    Raises
    ------
    ValueError
        If ``path`` ends otherwise, or a number is not positive.
    ImportError
        If imageio, or imageio-ffmpeg for MP4, is not installed; the text says how to install it.
    EnvRenderError
        If the environment gives no picture.
    """
    path = Path(path)
    if path.suffix.lower() not in _SUFFIXES:
        raise ValueError(f"`path` must end in .gif or .mp4, which is the film's format, got {str(path)!r}.")
    if isinstance(max_steps, bool) or not isinstance(max_steps, int) or max_steps < 1:
        raise ValueError(f"`max_steps` must be an integer of at least 1, got {max_steps!r}.")
    if fps is not None and not 0 < fps < float("inf"):
        raise ValueError(f"`fps` must be a positive number, got {fps!r}.")
    is_mp4 = path.suffix.lower() == ".mp4"
    imageio = require("imageio.v2", purpose="Recording episodes", extra="video")
    if is_mp4:
        require("imageio_ffmpeg", purpose="Recording episodes as MP4", extra="video")

    with _no_screen_needed():
        source = resolve_env(env)
        raw, limit = _make_renderable(source, EnvContext(env_config))
        vector = SerialVectorEnv(
            lambda _: (raw, limit), 1, name=source.name, horizon=horizon, try_out=False, first=(raw, limit)
        )
        try:
            observations = vector.reset(seed)
            frame = _frame(vector.envs[0], source.name)
            fps = float(fps or (getattr(raw, "metadata", None) or {}).get("render_fps") or _DEFAULT_FPS)
            shape: Callable[[Any], Any] = _even if is_mp4 else np.asarray
            options: dict[str, Any] = {"duration": 1000.0 / min(fps, _MAX_GIF_FPS), "loop": 0}
            if is_mp4:
                options = {"fps": fps, "macro_block_size": 2}
            path.parent.mkdir(parents=True, exist_ok=True)
            # Beside its place, so that it gets there in one move; with its suffix, which names the format.
            unfinished = path.with_name(f".{path.stem}.{os.getpid()}.unfinished{path.suffix.lower()}")
            try:
                episode_return, num_steps = 0.0, 0
                with imageio.get_writer(unfinished, **options) as writer:
                    writer.append_data(shape(frame))
                    while num_steps < max_steps:
                        observation = observations[0]
                        action = act(observation.copy() if isinstance(observation, np.ndarray) else observation)
                        observations, rewards, terminateds, truncateds = vector.step([action])
                        vector.check_pending()
                        num_steps += 1
                        episode_return += float(rewards[0])
                        writer.append_data(shape(_frame(vector.envs[0], source.name)))
                        if terminateds[0] or truncateds[0]:
                            break
                os.replace(unfinished, path)
            finally:
                unfinished.unlink(missing_ok=True)
        finally:
            vector.close()
    return RecordedEpisode(path, episode_return, num_steps, num_steps + 1)


@contextlib.contextmanager
def _no_screen_needed() -> Iterator[None]:
    """Pictures are drawn in memory, but SDL, behind pygame, looks for a screen first and complains where there is none."""
    named = any(os.environ.get(name) for name in ("SDL_VIDEODRIVER", "DISPLAY", "WAYLAND_DISPLAY"))
    if named or sys.platform != "linux":
        yield
        return
    os.environ["SDL_VIDEODRIVER"] = "dummy"
    try:
        yield
    finally:
        os.environ.pop("SDL_VIDEODRIVER", None)


def _make_renderable(source: EnvSource, context: EnvContext) -> tuple[Any, int | None]:
    """An environment in the render mode "rgb_array", asked for in whichever way it understands."""
    if source.creator is None:
        return source.make(context, render_mode="rgb_array")
    try:
        env, limit = source.make(context, render_mode="rgb_array")
    except EnvError:
        # It may not take `render_mode`; if it fails for another reason, it fails again.
        env, limit = source.make(context)
    if source.is_vector_env(env):
        env.close()
        raise EnvRenderError(
            f"{source.name} makes a vector environment, of which no single episode can be recorded. Give a function "
            "that makes one environment."
        )
    base = getattr(env, "unwrapped", env)
    modes = (getattr(base, "metadata", None) or {}).get("render_modes") or ()
    if getattr(base, "render_mode", None) is None and "rgb_array" in modes:
        base.render_mode = "rgb_array"
    return env, limit


def _frame(env: Any, name: str) -> Any:
    """The picture of an environment, as uint8 of shape (height, width, 3)."""
    metadata = getattr(env, "metadata", None) or {}
    modes = metadata.get("render_modes") or metadata.get("render.modes") or []
    problem = "`render` returned nothing"
    try:
        picture = env.render()
        if picture is None and "render.modes" in metadata:  # the older gym asks at every call
            picture = env.render(mode="rgb_array")
    except ImportError as error:
        raise EnvRenderError(
            f"Environment {name} cannot be recorded, because a package for it is missing: {describe_cause(error)}"
        ) from error
    except Exception as error:
        raise EnvRenderError(
            f"Environment {name} cannot be recorded. Its `render` raised {describe_cause(error)}"
        ) from error
    if isinstance(picture, list) and picture:
        picture = picture[-1]
    if picture is not None:
        picture = np.asarray(picture)
        if picture.ndim == 2 and picture.dtype == np.uint8:
            picture = np.repeat(picture[:, :, None], 3, axis=2)
        if picture.ndim == 3 and picture.shape[2] in (3, 4) and picture.dtype == np.uint8 and picture.size:
            return picture[:, :, :3]
        problem = f"`render` returned an array of shape {picture.shape} and dtype {picture.dtype}"
    raise EnvRenderError(
        f"Environment {name} cannot be recorded: {problem}, but a uint8 array of shape (height, width, 3) is needed. "
        f"It was made with render_mode='rgb_array'; it knows the modes {list(modes)}."
    )


def _even(frame: Any) -> Any:
    """Height and width made even by repeating the last row or column, as MP4 needs them."""
    height, width = frame.shape[:2]
    return np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge") if height % 2 or width % 2 else frame
