from __future__ import annotations

import math

from mltoolkit.rllib.algorithms._results import EpisodeWindow, episode_metrics, learner_info


def _episodes(returns: list[float], **custom: float) -> dict:
    return {
        "returns": returns,
        "lengths": [int(r) for r in returns],
        "custom_metrics": [custom] if custom else [],
        "hist_data": {"angle": [custom["a"]]} if "a" in custom else {},
        "num_faulty": 0,
    }


def test_without_an_episode_all_is_nan() -> None:
    metrics = EpisodeWindow(100).metrics()
    assert math.isnan(metrics["episode_reward_mean"])
    assert math.isnan(metrics["episode_return_max"])
    assert math.isnan(metrics["episode_len_mean"])
    assert metrics["hist_stats"] == {"episode_reward": [], "episode_lengths": []}


def test_means_are_over_the_newest_episodes_under_both_names() -> None:
    window = EpisodeWindow(3)
    window.add(_episodes([1.0, 2.0, 3.0]))
    window.begin_iteration()
    window.add(_episodes([10.0], a=0.5))
    metrics = window.metrics()
    assert metrics["episode_reward_mean"] == metrics["episode_return_mean"] == 5.0
    assert (metrics["episode_reward_min"], metrics["episode_reward_max"]) == (2.0, 10.0)
    assert metrics["hist_stats"]["episode_lengths"] == [2, 3, 10]
    assert metrics["custom_metrics"] == {"a_min": 0.5, "a_mean": 0.5, "a_max": 0.5}
    assert metrics["hist_stats"]["angle"] == [0.5]
    assert window.num_episodes == 4


def test_a_window_goes_on_from_its_state() -> None:
    window, other = EpisodeWindow(3), EpisodeWindow(3)
    window.add(_episodes([1.0, 2.0, 3.0], a=1.0))
    other.set_state(window.get_state())
    for w in (window, other):
        w.begin_iteration()
        w.add(_episodes([9.0], a=2.0))
    assert window.metrics() == other.metrics()
    assert other.num_episodes == 4


def test_learner_results_under_the_names_of_the_older_stack() -> None:
    info = learner_info({"default_policy": {"mean_kl_loss": 0.1, "entropy": 0.6}, "__all_modules__": {"n": 1}})
    assert info["default_policy"]["learner_stats"] == {"kl": 0.1, "entropy": 0.6}
    assert list(info) == ["default_policy"]


def test_metrics_of_lists() -> None:
    assert episode_metrics([1.0, 3.0], [5, 7])["episode_len_mean"] == 6.0


def test_all_episodes_of_an_iteration_count_however_many() -> None:
    window = EpisodeWindow(2)
    window.add(_episodes([9.0]))
    window.begin_iteration()
    window.add(_episodes([1.0, 2.0]))
    window.add(_episodes([3.0]))
    assert window.metrics()["episode_reward_mean"] == 2.0
    window.begin_iteration()
    assert window.metrics()["episode_reward_mean"] == 2.5
