"""The bar of `learn`: what it says, when training ends, and where nothing is drawn."""

from __future__ import annotations

import doctest
import io
import sys

import pytest

from mltoolkit.rllib.utils import progress as progress_module
from mltoolkit.rllib.utils.progress import TrainingProgress, _TerminalView


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


class Recorder:
    def __init__(self):
        self.drawn = []
        self.closed = False

    def draw(self, fraction, texts, left):
        self.drawn.append((fraction, texts, left))

    def close(self):
        self.closed = True


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def view(monkeypatch):
    recorder = Recorder()
    monkeypatch.setattr(progress_module, "_make_view", lambda enabled: recorder)
    return recorder


def result(iteration, steps, mean=20.0, **more):
    return {
        "training_iteration": iteration,
        "num_env_steps_sampled_lifetime": steps,
        "num_env_steps_sampled_this_iter": 1000,
        "time_this_iter_s": 0.5,
        "episode_reward_mean": mean,
        "env_runners": {"episode_return_mean": mean, "num_episodes_lifetime": 3},
        **more,
    }


def test_examples():
    assert doctest.testmod(progress_module).failed == 0


def test_steps_speed_return_and_time_left(view, clock):
    with TrainingProgress(total_timesteps=10_000, clock=clock) as progress:
        for iteration in range(1, 5):
            clock.now += 2.0
            progress.update(result(iteration, 1000 * iteration, 10.0 + iteration))
    assert view.drawn[0] == (0.0, ["starting"], "")
    assert view.drawn[-2] == (
        0.4,
        ["iteration 4", "4,000/10,000 steps", "2,000 steps/s", "return 14.0"],
        "0:00:12 left",
    )
    assert view.drawn[-1][2] == "in 0:00:08"
    assert view.closed


def test_a_restored_algorithm_goes_on_where_it_was(view, clock):
    with TrainingProgress(total_timesteps=100_000, clock=clock) as progress:
        for iteration in (51, 52):
            clock.now += 1.0
            progress.update(result(iteration, 1000 * iteration))
    assert view.drawn[-2][0] == 0.52
    assert view.drawn[-2][2] == "0:00:48 left"


def test_the_time_to_a_return_goes_by_its_rise(view, clock):
    with TrainingProgress(stop={"episode_reward_mean": 475}, clock=clock) as progress:
        for iteration, mean in enumerate((float("nan"), 75.0, 175.0), 1):
            clock.now += 10.0
            progress.update(result(iteration, 1000 * iteration, mean))
            if iteration == 1:
                assert view.drawn[-1][1][-1] == "return -/475"
                assert view.drawn[-1][2] == ""
    fraction, texts, left = view.drawn[-2]
    assert fraction == 0.25 and texts[-1] == "return 175.0/475" and left == "0:00:30 left"


def test_a_return_that_falls_promises_nothing(view, clock):
    with TrainingProgress(stop={"env_runners/episode_return_mean": 475}, clock=clock) as progress:
        for iteration, mean in enumerate((75.0, 55.0), 1):
            clock.now += 10.0
            progress.update(result(iteration, 1000 * iteration, mean))
    assert view.drawn[-2][0] == 0.0 and view.drawn[-2][2] == ""


def test_the_first_of_several_limits_counts(view, clock):
    stop = {"episode_reward_mean": 475, "training_iteration": 4}
    with TrainingProgress(stop=stop, total_timesteps=100_000, clock=clock) as progress:
        for iteration in (1, 2, 3):
            clock.now += 1.0
            progress.update(result(iteration, 1000 * iteration, 20.0))
            assert not progress.is_reached(result(iteration, 1000 * iteration, 20.0))
        assert view.drawn[-1][0] == 0.75 and view.drawn[-1][2] == "0:00:01 left"
        assert progress.is_reached(result(4, 4000))
        assert progress.is_reached(result(1, 100_000))
        assert progress.is_reached(result(1, 1, 475.0))


def test_it_is_drawn_ten_times_a_second_at_most(view, clock):
    with TrainingProgress(total_timesteps=100_000, clock=clock) as progress:
        for iteration in range(100):
            clock.now += 0.01
            progress.update(result(iteration, 1000))
    assert len(view.drawn) <= 12


def test_a_return_that_is_not_known_yet_ends_nothing():
    progress = TrainingProgress(stop={"episode_reward_mean": 0}, enabled=False)
    assert not progress.is_reached(result(1, 1000, float("nan")))


def test_a_metric_that_will_never_come_is_refused():
    progress = TrainingProgress(stop={"episode_reward_maen": 475}, enabled=False)
    with pytest.raises(
        ValueError, match=r"'episode_reward_maen', which is not in the results\. Did you mean 'episode_reward_mean'"
    ):
        progress.is_reached(result(1, 1000))
    progress = TrainingProgress(stop={"qqq": 475}, enabled=False)
    with pytest.raises(ValueError, match="'qqq', which is not in the results. It has env_runners, episode_reward_mean"):
        progress.is_reached(result(1, 1000))


def test_metrics_that_come_later_are_waited_for():
    progress = TrainingProgress(stop={"custom_metrics/height_mean": 1}, enabled=False)
    assert not progress.is_reached(result(1, 1000, env_runners={"num_episodes_lifetime": 0}))
    evaluation = TrainingProgress(stop={"evaluation/env_runners/episode_return_mean": 5}, enabled=False)
    assert not evaluation.is_reached(result(1, 1000))
    assert evaluation.is_reached(result(2, 2000, evaluation={"env_runners": {"episode_return_mean": 6.0}}))
    with pytest.raises(ValueError, match="nothing is evaluated"):
        evaluation.is_reached(result(1, 1000, config={"evaluation_interval": None}))


@pytest.mark.parametrize("wrong", [0, -5, 1.5, True, "many"])
def test_total_timesteps_must_be_a_number(wrong):
    with pytest.raises(ValueError, match="`total_timesteps` must be a whole number"):
        TrainingProgress(total_timesteps=wrong, enabled=False)


def test_stop_must_be_a_dict_of_numbers():
    with pytest.raises(TypeError, match=r"`stop` must be a dict such as \{'episode_reward_mean': 475\}"):
        TrainingProgress(stop=475, enabled=False)
    with pytest.raises(TypeError, match="must be a number, got 'high'"):
        TrainingProgress(stop={"episode_reward_mean": "high"}, enabled=False)


def test_nothing_is_drawn_where_nobody_sees_it(monkeypatch):
    stderr = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stderr)
    with TrainingProgress(total_timesteps=10) as progress:
        progress.update(result(1, 1000))
    assert stderr.getvalue() == ""


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("width", [120, 80, 40])
def test_one_line_that_fits_the_terminal(monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "xterm-256color")
    stderr = Terminal()
    monkeypatch.setattr(sys, "stderr", stderr)
    with TrainingProgress(total_timesteps=100_000) as progress:
        assert isinstance(progress._view, _TerminalView)
        progress.update(result(12, 46_000, 213.4))
    from rich.text import Text

    lines = [Text.from_ansi(part).plain for part in stderr.getvalue().replace("\r", "\n").splitlines() if part.strip()]
    assert max(map(len, lines)) <= width
    assert any("return 213.4" in line for line in lines)
    if width == 120:
        assert any("iteration 12  46,000/100,000 steps  2,000 steps/s  return 213.4" in line for line in lines)
    assert stderr.getvalue().count("\n") == 1  # what stays is one line


def test_a_notebook_shows_one_output_that_is_replaced(monkeypatch):
    from types import SimpleNamespace

    shown = []

    class Handle:
        def update(self, bundle, raw):
            shown.append(("update", bundle))

    def display(bundle, raw, display_id):
        shown.append(("display", bundle))
        return Handle()

    kernel = SimpleNamespace(get_ipython=lambda: SimpleNamespace(kernel=object()))
    monkeypatch.setitem(sys.modules, "IPython", kernel)
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(display=display))
    with TrainingProgress(total_timesteps=2000) as progress:
        progress.update(result(1, 1000))
    assert [kind for kind, _ in shown][:1] == ["display"] and {kind for kind, _ in shown[1:]} == {"update"}
    bundle = shown[-1][1]
    assert "width: 50.0%" in bundle["text/html"] and bundle["text/plain"].startswith(
        "50 %  iteration 1  1,000/2,000 steps"
    )
