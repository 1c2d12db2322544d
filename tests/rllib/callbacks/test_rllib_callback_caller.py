from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from mltoolkit.rllib.algorithms.callbacks import DefaultCallbacks
from mltoolkit.rllib.callbacks.callbacks import CallbackCaller, RLlibCallback


class Config(SimpleNamespace):
    callbacks_class: Any = RLlibCallback


def test_the_old_name_is_the_same_class() -> None:
    assert DefaultCallbacks is RLlibCallback


def test_nobody_listens_by_default() -> None:
    caller = CallbackCaller(Config())
    assert not caller.follows_episodes
    assert not caller.has("on_train_result")
    caller.call("on_train_result", result={})


def test_a_hook_gets_the_arguments_that_it_names() -> None:
    seen: list[Any] = []

    class Old(RLlibCallback):
        def on_episode_end(self, *, worker: Any, base_env: Any, policies: Any, episode: Any, env_index: int) -> None:
            seen.append((worker, episode, env_index))

        def on_train_result(self, **kwargs: Any) -> None:
            seen.append(sorted(kwargs))

    caller = CallbackCaller(Config(callbacks_class=Old))
    assert caller.follows_episodes
    caller.call(
        "on_episode_end",
        worker="w",
        base_env="b",
        policies={},
        episode="e",
        env_index=1,
        env_runner="w",
        rl_module=None,
    )
    caller.call("on_train_result", algorithm="a", result={})
    assert seen == [("w", "e", 1), ["algorithm", "result"]]


def test_functions_and_several_classes_are_all_called() -> None:
    seen: list[str] = []

    class One(RLlibCallback):
        def on_sample_end(self, **kwargs: Any) -> None:
            seen.append("one")

    class Two(RLlibCallback):
        def on_sample_end(self, *, samples: Any) -> None:
            seen.append("two")

    config = Config(
        callbacks_class=[One, Two],
        callbacks_on_sample_end=[lambda **kw: seen.append("f"), lambda samples: seen.append("g")],
    )
    CallbackCaller(config).call("on_sample_end", samples=None, worker=None)
    assert seen == ["one", "two", "f", "g"]
