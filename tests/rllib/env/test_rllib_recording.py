"""Films of episodes."""

import gc
import os
import sys

import numpy as np
import pytest

from mltoolkit.rllib.env.errors import EnvRenderError
from mltoolkit.rllib.env.recording import record_episode

gymnasium = pytest.importorskip("gymnasium")
imageio = pytest.importorskip("imageio.v2")


class Painter(gymnasium.Env):
    """Shows the number of the step as a colour."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012
    observation_space = gymnasium.spaces.Box(0, 1, (1,))
    action_space = gymnasium.spaces.Discrete(2)
    shape = (33, 47, 3)
    dtype = np.uint8

    def reset(self, *, seed=None, options=None):
        self.t = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.t += 1
        return np.ones(1, np.float32), 0.5, self.t == 4, False, {}

    def render(self):
        return np.full(self.shape, 50 * self.t, self.dtype) if self.render_mode == "rgb_array" else None


def always(action):
    return lambda observation: action


# Reading films is what leaves pipes to the garbage collector; writing them does not, as the next test shows.
@pytest.mark.filterwarnings("ignore:Exception ignored in. <_io:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("suffix", [".gif", ".mp4", ".GIF"])
def test_films_of_both_kinds(tmp_path, suffix):
    if suffix == ".mp4":
        pytest.importorskip("imageio_ffmpeg")
    path = tmp_path / "films" / f"episode{suffix}"
    recorded = record_episode(Painter, always(0), path, max_steps=100)
    assert recorded.path == path and recorded.episode_return == 2.0
    assert recorded.num_steps == 4 and recorded.num_frames == 5
    frames = imageio.mimread(path)
    assert len(frames) == 5 and frames[0].shape[:2] == ((34, 48) if suffix == ".mp4" else (33, 47))
    levels = [int(np.asarray(frame)[..., :3].mean()) for frame in frames]
    assert np.allclose(levels, [0, 50, 100, 150, 200], atol=12)
    assert list(path.parent.iterdir()) == [path]


def test_writing_leaves_nothing_open(tmp_path):
    pytest.importorskip("imageio_ffmpeg")
    path = record_episode(Painter, always(0), tmp_path / "a.mp4", max_steps=1).path
    gc.collect()
    assert path.stat().st_size > 0


def test_an_environment_of_gymnasium(tmp_path):
    pytest.importorskip("pygame")
    seen = []
    recorded = record_episode(
        "CartPole-v1", lambda obs: seen.append(obs) or 1, tmp_path / "a.gif", max_steps=3, seed=1, fps=60
    )
    assert recorded.num_steps == 3 and len({tuple(obs) for obs in seen}) == 3
    assert imageio.mimread(recorded.path)[0].shape[:2] == (400, 600)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there is always a screen")
@pytest.mark.parametrize(
    ("screen", "driver"), [({}, "dummy"), ({"DISPLAY": ":0"}, None), ({"SDL_VIDEODRIVER": "x11"}, "x11")]
)
def test_a_film_needs_no_screen(tmp_path, monkeypatch, screen, driver):
    for name in ("SDL_VIDEODRIVER", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in screen.items():
        monkeypatch.setenv(name, value)
    before, seen = dict(os.environ), set()

    class Looking(Painter):
        def render(self):
            seen.add(os.environ.get("SDL_VIDEODRIVER"))
            return super().render()

    record_episode(Looking, always(0), tmp_path / "a.gif", max_steps=2)
    assert seen == {driver}
    assert dict(os.environ) == before


def test_the_film_takes_the_place_of_the_last_one_when_complete(tmp_path):
    path = tmp_path / "a.gif"
    path.write_text("the last film")

    def broken(observation):
        raise KeyError("policy")

    with pytest.raises(KeyError, match="policy"):
        record_episode(Painter, broken, path, max_steps=5)
    assert path.read_text() == "the last film" and list(tmp_path.iterdir()) == [path]
    record_episode(Painter, always(0), path, max_steps=2, horizon=1)
    assert len(imageio.mimread(path)) == 2


def _painter(**changes):
    return type("Painter", (Painter,), changes)


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ("Blackjack-v1-blind", "`render` returned nothing"),
        (_painter(shape=(5,)), r"shape \(5,\)"),
        (_painter(dtype=np.float32), "float32"),
        (_painter(render=lambda self: 1 / 0), "ZeroDivisionError"),
        (_painter(render=lambda self: __import__("no_such_package")), "package for it is missing"),
        (lambda config: gymnasium.vector.SyncVectorEnv([Painter]), "vector environment"),
    ],
)
def test_environments_that_cannot_be_shown(tmp_path, env, words):
    env = _painter(metadata={"render_modes": ["ansi"]}) if isinstance(env, str) else env
    with pytest.raises(EnvRenderError, match=words):
        record_episode(env, always(0), tmp_path / "a.gif", max_steps=2)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "words"),
    [({"path": "a.avi"}, ".gif or .mp4"), ({"max_steps": 0}, "`max_steps`"), ({"fps": -1}, "`fps`")],
)
def test_wrong_arguments(options, words):
    with pytest.raises(ValueError, match=words):
        record_episode(Painter, always(0), **{"path": "a.gif", "max_steps": 1, **options})


@pytest.mark.parametrize(("suffix", "package"), [(".gif", "imageio"), (".mp4", "imageio_ffmpeg")])
def test_missing_packages_are_named_with_the_extra(monkeypatch, suffix, package):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, "imageio.v2", raising=False)
    with pytest.raises(ImportError, match=r"mltoolkit\[video\]"):
        record_episode(Painter, always(0), f"a{suffix}", max_steps=1)


def test_an_environment_of_the_older_gym_api(tmp_path):
    class Old:
        metadata = {"render.modes": ["rgb_array"]}  # noqa: RUF012
        observation_space, action_space = Painter.observation_space, Painter.action_space

        def reset(self):
            return [0.0]

        def step(self, action):
            return [1.0], 1.0, False, {}

        def render(self, mode="human"):
            return np.zeros((4, 4, 3), np.uint8) if mode == "rgb_array" else None

    assert record_episode(lambda config: Old(), always(1), tmp_path / "a.gif", max_steps=3).num_frames == 4
