"""`mltoolkit rllib train` and `evaluate`, as a user types them."""

from __future__ import annotations

import csv
import json
import shlex
import sys

import pytest

from mltoolkit import cli as command_line
from mltoolkit.rllib import cli

SMALL = {
    "num_env_runners": 0,
    "train_batch_size": 64,
    "minibatch_size": 32,
    "num_epochs": 1,
    "model": {"fcnet_hiddens": [8]},
}


@pytest.fixture
def call(capsys):
    """Run the command; check its exit code; return what it printed to stdout and stderr."""

    def run(*words, code=0):
        capsys.readouterr()
        try:
            cli.main(words)
            got = 0
        except SystemExit as end:
            got = end.code
        out, err = capsys.readouterr()
        assert got == code, out + err
        return out, err

    return run


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    from mltoolkit.rllib.algorithms.ppo import PPOConfig

    config = PPOConfig().environment("CartPole-v1").debugging(seed=0).update_from_dict(SMALL)
    with config.build_algo() as algorithm:
        algorithm.train()
        return str(algorithm.save(tmp_path_factory.mktemp("checkpoints")))


# -- evaluate ----------------------------------------------------------------------------------------------------------


def test_every_episode_is_printed_and_summed_up(call, checkpoint):
    out, _ = call("evaluate", checkpoint, "--run", "PPO", "--env", "CartPole-v1", "--episodes", "3")
    lines = out.splitlines()
    rewards = [float(line.removeprefix(f"Episode #{i}: reward: ")) for i, line in enumerate(lines[:3])]
    mean = sum(rewards) / 3
    assert lines[3].startswith(f"3 episodes, {sum(rewards):.0f} steps: mean reward {mean:.2f} (standard deviation")
    assert f"min {min(rewards):.2f}, max {max(rewards):.2f}), mean length {mean:.1f}" in lines[3]
    assert len(lines) == 4


def test_the_older_name_takes_the_older_programs_options(call, checkpoint):
    config = '{"env": "CartPole-v1", "model": {"fcnet_hiddens": [8]}, "num_workers": 2}'
    out, _ = call("rollout", checkpoint, "--config", config, "--run", "PPO", "--steps", "100", "--no-render")
    assert out.startswith("Episode #0: reward: ") and ", 100 steps: mean reward" in out


def test_the_seed_fixes_the_episodes(call, checkpoint):
    first, second, third = (
        call("evaluate", checkpoint, "--episodes", "3", "--seed", seed)[0] for seed in ("1", "1", "2")
    )
    assert first == second != third


def test_the_likeliest_actions(call, checkpoint):
    best = {call("evaluate", checkpoint, "--episodes", "2", "--no-explore")[0] for _ in range(2)}
    assert len(best) == 1
    assert best != {call("evaluate", checkpoint, "--episodes", "2", "--explore")[0]}


def test_another_environment_with_the_same_spaces(call, checkpoint):
    out, _ = call("evaluate", checkpoint, "--env", "CartPole-v0", "--episodes", "1")
    assert out.startswith("Episode #0")


def test_steps_that_end_no_episode(call, checkpoint):
    out, _ = call("evaluate", checkpoint, "--steps", "3")
    assert out == "No episode ended within 3 steps.\n"


def test_what_was_reached_as_a_file(call, checkpoint, tmp_path):
    out, _ = call("evaluate", checkpoint, "--episodes", "2", "--out", str(tmp_path / "a.json"))
    content = json.loads((tmp_path / "a.json").read_text())
    assert [f"Episode #{i}: reward: {one['reward']}" for i, one in enumerate(content["episodes"])] == out.splitlines()[
        :2
    ]
    assert content["summary"]["mean"] == sum(one["reward"] for one in content["episodes"]) / 2
    call("evaluate", checkpoint, "--episodes", "2", "--out", str(tmp_path / "a.csv"))
    with open(tmp_path / "a.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["reward"]) for row in rows] == [one["reward"] for one in content["episodes"]]


def test_a_film_of_one_more_episode(call, checkpoint, tmp_path):
    pytest.importorskip("pygame")
    out, _ = call("evaluate", checkpoint, "--episodes", "1", "--video", str(tmp_path / "film.gif"))
    assert out.splitlines()[-1] == f"Video: {tmp_path / 'film.gif'}"
    assert (tmp_path / "film.gif").read_bytes()[:3] == b"GIF"


@pytest.mark.parametrize(
    ("words", "message", "code"),
    [
        (("no-such-folder",), "There is no checkpoint at no-such-folder", 1),
        (("{folder}",), "holds no checkpoint of an algorithm", 1),
        (("{checkpoint}", "--run", "DQN"), "There is no algorithm 'DQN'. Known: PPO", 1),
        (("{checkpoint}", "--env", "Pendulum-v1"), "The checkpoint's network is not this one's", 1),
        (("{checkpoint}", "--env", "CartPol-v1"), "Did you mean 'CartPole-v1'", 1),
        (("{checkpoint}", "--config", '{"lrr": 1}'), "Did you mean `lr`", 1),
        (("{checkpoint}", "--config", "{lr: 1}"), "argument --config: must be JSON such as", 2),
        (("{checkpoint}", "--config", "[1]"), "argument --config: must be a JSON object", 2),
        (("{checkpoint}", "--steps", "-1"), "must be a whole number of at least 0, got '-1'", 2),
        (("{checkpoint}", "--episodes", "many"), "got 'many'", 2),
        (("{checkpoint}", "--video", "film.avi"), "--video must be a file .mp4 or .gif, got 'film.avi'", 1),
        (("{checkpoint}", "--out", "/no/such/place.json"), "there is no folder '/no/such'", 1),
        ((), "the following arguments are required: CHECKPOINT", 2),
        (("{checkpoint}", "--epsodes", "3"), "unrecognized arguments: --epsodes 3", 2),
    ],
)
def test_mistakes_are_one_line(call, checkpoint, tmp_path, words, message, code):
    places = {"{checkpoint}": checkpoint, "{folder}": str(tmp_path)}
    out, err = call("evaluate", *(places.get(word, word) for word in words), code=code)
    assert out == "" and message in err
    assert err.count("\n") == 1 and err.startswith("mltoolkit rllib")


def test_a_checkpoint_of_another_algorithm(call, checkpoint, tmp_path):
    import shutil

    other = tmp_path / "other"
    shutil.copytree(checkpoint, other)
    manifest = json.loads((other / "rllib_checkpoint.json").read_text())
    (other / "rllib_checkpoint.json").write_text(json.dumps({**manifest, "algorithm": "DQN"}))
    _, err = call("evaluate", str(other), "--run", "PPO", code=1)
    assert err == f"mltoolkit rllib evaluate: {other} is a checkpoint of DQN, not of PPO.\n"


def test_a_torn_checkpoint(call, checkpoint, tmp_path):
    import shutil

    torn = tmp_path / "torn"
    shutil.copytree(checkpoint, torn)
    (torn / "module_state.pt").write_bytes(b"half")
    _, err = call("evaluate", str(torn), code=1)
    assert "is torn: module_state.pt" in err and err.count("\n") == 1


def test_ctrl_c_sums_up_what_was_run(call, checkpoint, monkeypatch):
    from mltoolkit.rllib.env.single_agent_env_runner import SingleAgentEnvRunner

    evaluate = SingleAgentEnvRunner.evaluate
    calls = []

    def interrupted(self, *args, **kwargs):
        if calls:
            raise KeyboardInterrupt
        calls.append(1)
        return evaluate(self, *args, **kwargs)

    monkeypatch.setattr(SingleAgentEnvRunner, "evaluate", interrupted)
    out, _ = call("evaluate", checkpoint, "--episodes", "100", code=130)
    assert out.splitlines()[1].startswith("1 episode, ")


# -- train -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def runs(monkeypatch):
    """What `tune.run` was called with; nothing is run."""
    from types import SimpleNamespace

    import mltoolkit
    from mltoolkit import tune

    calls = []

    def run(algorithm, **arguments):
        calls.append((algorithm, arguments))
        return SimpleNamespace(trials=[], experiment_path="")

    monkeypatch.setattr(tune, "run", run)
    monkeypatch.setattr(mltoolkit, "is_initialized", lambda: False)
    monkeypatch.setattr(mltoolkit, "init", lambda **options: calls.append(("init", options)))
    monkeypatch.setattr(mltoolkit, "cluster_resources", lambda: {"CPU": 8.0})
    return calls


def test_options_reach_tune(call, runs, tmp_path):
    call(
        *("train", "--run", "PPO", "--env", "CartPole-v1", "--stop", '{"episode_reward_mean": 450}'),
        *("--config", '{"lr": {"grid_search": [0.1, 0.2]}, "model": {"fcnet_hiddens": [8]}}', "--seed", "3"),
        *("--checkpoint-freq", "5", "--local-dir", str(tmp_path), "--experiment-name", "mine", "--num-samples", "2"),
        *("--resume", "--max-failures", "1", "--keep-checkpoints-num", "3", "-v", "0", "--num-cpus", "4"),
    )
    assert runs[0] == ("init", {"num_cpus": 4.0})
    assert runs[1] == (
        "PPO",
        {
            "config": {
                "env": "CartPole-v1",
                "lr": {"grid_search": [0.1, 0.2]},
                "model": {"fcnet_hiddens": [8]},
                "seed": 3,
            },
            "name": "mine",
            "stop": {"episode_reward_mean": 450},
            "num_samples": 2,
            "storage_path": str(tmp_path),
            "checkpoint_freq": 5,
            "checkpoint_at_end": True,
            "keep_checkpoints_num": 3,
            "max_failures": 1,
            "resume": True,
            "verbose": 0,
            "raise_on_failed_trial": False,
        },
    )


def test_a_preset_and_changes_to_it(call, runs):
    from mltoolkit.rllib.algorithms.ppo.presets import get_preset

    call("train", "--preset", "CartPole-v1", "--config", '{"gamma": 0.5, "model": {"fcnet_hiddens": [4]}}')
    preset = get_preset("CartPole-v1")
    assert runs[1][1]["config"] == preset | {"gamma": 0.5, "model": preset["model"] | {"fcnet_hiddens": [4]}}


def test_the_configuration_may_be_a_file(call, runs, tmp_path):
    (tmp_path / "config.json").write_text('{"env": "CartPole-v1", "lr": 0.5}')
    call("train", "--config", str(tmp_path / "config.json"), "--no-checkpoint-at-end")
    assert runs[1][1]["config"]["lr"] == 0.5
    assert runs[1][1]["checkpoint_at_end"] is False


def test_runners_are_as_many_as_the_cpus_have_room_for(call, runs, monkeypatch):
    import mltoolkit

    monkeypatch.setattr(mltoolkit, "cluster_resources", lambda: {"CPU": 2.0})
    _, err = call("train", "--env", "CartPole-v1")
    assert runs[1][1]["config"]["num_env_runners"] == 1
    assert err == "There are 2 CPUs: num_env_runners is 1 instead of 2.\n"
    _, err = call("train", "--env", "CartPole-v1", "--config", '{"num_workers": 5}')
    assert runs[-1][1]["config"] == {"env": "CartPole-v1", "num_workers": 5} and err == ""


def test_a_file_of_experiments(call, runs, tmp_path):
    path = tmp_path / "experiments.yaml"
    path.write_text(
        "first:\n  env: CartPole-v1\n  run: PPO\n  stop: {training_iteration: 3}\n  checkpoint_freq: 2\n"
        "  config: {lr: 0.5}\n"
        "second:\n  run: PPO\n  config: {env: Acrobot-v1}\n"
    )
    for words in (("file", str(path)), ("-f", str(path))):
        del runs[:]
        call("train", *words, "--storage-path", "here")
        assert [(name, given["name"], given["config"]["env"]) for name, given in runs[1:]] == [
            ("PPO", "first", "CartPole-v1"),
            ("PPO", "second", "Acrobot-v1"),
        ]
        assert runs[1][1]["stop"] == {"training_iteration": 3} and runs[1][1]["checkpoint_freq"] == 2
        assert runs[1][1]["storage_path"] == "here" and runs[1][1]["checkpoint_at_end"] is True


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("- 1", "must hold experiments by name"),
        ("a: {b", "is no YAML"),
        ("a: {env: CartPole-v1}", "experiment 'a' must say which algorithm to run"),
        ("a: {run: PPO}", "experiment 'a' must have an environment"),
        (
            "a: {run: PPO, env: CartPole-v1, num_sample: 3}",
            "has 'num_sample', which is unknown. Did you mean 'num_samples'",
        ),
        ("a: {run: PPO, env: CartPole-v1, config: {lrr: 3}}", "Did you mean `lr`"),
    ],
)
def test_mistakes_in_a_file_are_one_line(call, runs, tmp_path, content, message):
    (tmp_path / "x.yaml").write_text(content)
    _, err = call("train", "file", str(tmp_path / "x.yaml"), code=1)
    assert message in err and err.count("\n") == 1 and not runs


@pytest.mark.parametrize(
    ("words", "message", "code"),
    [
        ((), "no environment was given: add --env NAME", 1),
        (("--env", "CartPol-v1"), "Did you mean 'CartPole-v1'", 1),
        (("--env", "CartPole-v1", "--run", "POP"), "There is no algorithm 'POP'", 1),
        (("--env", "CartPole-v1", "--config", '{"num_workes": 1}'), "Did you mean `num_workers`", 1),
        (("--env", "CartPole-v1", "--stop", "450"), "argument --stop: must be a JSON object", 2),
        (("--env", "CartPole-v1", "--stop", "{450}"), "argument --stop: must be JSON such as", 2),
        (("--env", "CartPole-v1", "--num-samples", "0"), "must be a whole number of at least 1", 2),
        (("--env", "CartPole-v1", "--resume"), "--resume needs --experiment-name", 1),
        (("--preset", "CartPole"), "There is no preset 'CartPole'", 1),
        (("file", "no-such.yaml"), "cannot read no-such.yaml", 1),
        (("file",), "`train` takes options, or `file FILE`; got 'file'", 1),
        (("-f", "x.yaml", "--env", "CartPole-v1"), "--env cannot be used with a file", 1),
    ],
)
def test_mistakes_in_training_are_one_line(call, runs, words, message, code):
    _, err = call("train", *words, code=code)
    assert message in err and err.count("\n") == 1 and not runs


def test_a_wrong_stop_is_one_line(call, tmp_path, runtime):
    words = ("train", "--env", "CartPole-v1", "--storage-path", str(tmp_path), "--stop", '{"episode_reward_mean": "x"}')
    _, err = call(*words, code=1)
    assert "must be a number, got 'x'" in err.splitlines()[-1]


def test_train_and_then_evaluate_as_it_says(call, tmp_path, runtime):
    words = ("--run", "PPO", "--env", "CartPole-v1", "--stop", '{"training_iteration": 1}', "-v", "0")
    out, _ = call(
        "train", *words, "--config", json.dumps(SMALL), "--local-dir", str(tmp_path), "--experiment-name", "e"
    )
    lines = out.splitlines()
    assert lines[0] == "Last checkpoint:" and lines[2] == "Try it:"
    command = shlex.split(lines[3])
    assert command[:3] == ["mltoolkit", "rllib", "evaluate"] and command[3] in lines[1]
    out, _ = call(*command[2:])
    assert out.startswith("Episode #0: reward: ") and "10 episodes, " in out


def test_environments_of_the_users_own_are_named_again(call, tmp_path, runtime, monkeypatch):
    module = "environments_of_the_cli_test"
    (tmp_path / f"{module}.py").write_text("from gymnasium.envs.classic_control.cartpole import CartPoleEnv as Mine\n")
    monkeypatch.chdir(tmp_path)
    words = (
        "--env",
        f"{module}.Mine",
        "--stop",
        '{"training_iteration": 1}',
        "-v",
        "0",
        "--storage-path",
        str(tmp_path),
    )
    out, _ = call("train", *words, "--config", json.dumps({**SMALL, "horizon": 20}))
    command = shlex.split(out.splitlines()[-1])
    assert command[-4:] == ["--env", f"{module}.Mine", "--episodes", "10"]
    out, _ = call(*command[2:])
    assert "10 episodes, " in out
    monkeypatch.delitem(sys.modules, module)
    _, err = call(*command[2:-4], code=1)
    assert f"'{module}.Mine' is no environment" in err and "by --env" in err and err.count("\n") == 1


def test_a_trial_that_fails_is_told_in_one_line(call, tmp_path, runtime):
    config = {**SMALL, "env_config": {"no_such_option": 1}}
    words = ("--env", "CartPole-v1", "--stop", '{"training_iteration": 1}', "-v", "0", "--storage-path", str(tmp_path))
    _, err = call("train", *words, "--config", json.dumps(config), code=1)
    assert "1 of 1 trials failed" in err.splitlines()[-1] and "no_such_option" in err.splitlines()[-1]


def test_the_main_command_knows_it(capsys):
    with pytest.raises(SystemExit) as end:
        command_line.main(["rllib", "evaluate"])
    assert end.value.code == 2 and "mltoolkit rllib evaluate: " in capsys.readouterr().err
    with pytest.raises(SystemExit):
        command_line.main(["--help"])
    assert "rllib" in capsys.readouterr().out
