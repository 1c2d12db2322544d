"""``mltoolkit rllib``: train an algorithm, and watch what it has learned."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from mltoolkit._processes import CommandError

__all__ = ["main"]

_JSON = "JSON"


def main(argv: Sequence[str] | None = None, prog: str = "mltoolkit rllib") -> None:
    """Run the command.

    Parameters
    ----------
    argv : sequence of str, default=None
        The command line without the command's name; ``None`` means that of the process.
    prog : str, default='mltoolkit rllib'
        How the command was called, for messages.

    Raises
    ------
    SystemExit
        With code 0, or 1 where the command failed, 2 where it was called wrongly, 130 where it was interrupted.
    """
    options = _parser(prog).parse_args(list(sys.argv[1:] if argv is None else argv))
    command: Callable[[argparse.Namespace], None] = options.command
    # Environments of the user's are modules in the current folder, as for `python -m`.
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        command(options)
    except CommandError as error:
        sys.stderr.write(f"{prog} {options.name}: {error}\n")
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


class _Parser(argparse.ArgumentParser):
    """Says in one line what is wrong."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see `{self.prog} --help`)\n")


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = _Parser(
        prog=prog, description="Train reinforcement-learning algorithms, and run what they learned.", allow_abbrev=False
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=_Parser)
    _add_train(commands)
    _add_evaluate(commands, "evaluate", "run episodes with the policy of a checkpoint")
    _add_evaluate(commands, "rollout", "the older name of `evaluate`")
    return parser


def _add_train(commands: Any) -> None:
    train = commands.add_parser(
        "train",
        help="train an algorithm on an environment",
        description="Train an algorithm, as a sweep of Tune: settings may be searched, such as "
        """'{"lr": {"grid_search": [1e-3, 1e-4]}}'.""",
        allow_abbrev=False,
    )
    train.add_argument("words", nargs="*", metavar="file FILE", help="a YAML file of experiments, as with -f")
    train.add_argument("-f", "--config-file", metavar="FILE", help="a YAML file of experiments, by name")
    train.add_argument("--run", "--algo", metavar="NAME", help="the algorithm (default: PPO)")
    train.add_argument("--env", metavar="NAME", help="the environment: a gymnasium id or `module:id`")
    train.add_argument("--preset", metavar="NAME", help="settings that learn an environment fast, such as CartPole-v1")
    train.add_argument("--config", type=_json_object, default={}, metavar=_JSON, help="settings, or a file of them")
    train.add_argument(
        "--stop", type=_json_object, metavar=_JSON, help="""when to end, such as '{"episode_reward_mean": 450}'"""
    )
    train.add_argument("--framework", metavar="NAME", help="`torch`")
    train.add_argument("--seed", type=int, help="of environments, sampling, weights and minibatches")
    train.add_argument("--num-samples", type=_positive, metavar="N", help="trials per point of the grid (default: 1)")
    train.add_argument("--experiment-name", metavar="NAME", help="of the folder of results")
    train.add_argument("--storage-path", "--local-dir", metavar="DIR", help="the folder above it")
    train.add_argument("--resume", action="store_true", help="go on with the experiment of this name")
    train.add_argument("--restore", metavar="CHECKPOINT", help="begin from a checkpoint")
    train.add_argument("--max-failures", type=int, metavar="N", help="times that a failed trial is tried again")

    checkpoints = train.add_argument_group("checkpoints")
    checkpoints.add_argument("--checkpoint-freq", type=_not_negative, metavar="N", help="every N iterations")
    checkpoints.add_argument(
        "--checkpoint-at-end", action=argparse.BooleanOptionalAction, help="when a trial ends (default: on)"
    )
    checkpoints.add_argument("--keep-checkpoints-num", type=_positive, metavar="N", help="of each trial")
    checkpoints.add_argument("--checkpoint-score-attr", metavar="METRIC", help="keep the best ones by this metric")

    runtime = train.add_argument_group("runtime")
    runtime.add_argument("--address", "--ray-address", metavar="ADDRESS", help="of a cluster that runs already")
    runtime.add_argument("--num-cpus", "--ray-num-cpus", type=float, metavar="N", help="to use here (default: all)")
    runtime.add_argument("--num-gpus", "--ray-num-gpus", type=float, metavar="N", help="to use here (default: all)")
    runtime.add_argument("-v", "--verbose", type=int, choices=(0, 1, 2, 3), help="how much is shown (default: 1)")
    train.set_defaults(command=_train, name="train")


def _add_evaluate(commands: Any, name: str, summary: str) -> None:
    evaluate = commands.add_parser(
        name,
        help=summary,
        description="Run episodes one after the other with the policy of a checkpoint, and print the reward of each.",
        allow_abbrev=False,
    )
    evaluate.add_argument("checkpoint", metavar="CHECKPOINT", help="what `save` returned, or a folder of checkpoints")
    evaluate.add_argument("--run", "--algo", metavar="NAME", help="the algorithm, to be checked against the checkpoint")
    evaluate.add_argument("--env", metavar="NAME", help="another environment than that of training")
    evaluate.add_argument("--config", type=_json_object, default={}, metavar=_JSON, help="settings to change")
    evaluate.add_argument("--steps", type=_not_negative, metavar="N", help="environment steps to take, all together")
    evaluate.add_argument("--episodes", type=_not_negative, metavar="N", help="episodes to run (default: 10)")
    evaluate.add_argument(
        "--explore",
        action=argparse.BooleanOptionalAction,
        help="draw actions, or take the likeliest (default: as the checkpoint's evaluation settings say)",
    )
    evaluate.add_argument("--seed", type=int, default=0, help="of environments and actions (default: 0)")
    evaluate.add_argument("--render", action=argparse.BooleanOptionalAction, help="show the environment in a window")
    evaluate.add_argument("--video", metavar="FILE", help="record one more episode, as .mp4 or .gif")
    evaluate.add_argument("--out", metavar="FILE", help="write reward and length of each episode, as .json or .csv")
    evaluate.set_defaults(command=_evaluate, name=name)


def _train(options: argparse.Namespace) -> None:
    from mltoolkit.rllib._train_command import train

    train(options)


def _evaluate(options: argparse.Namespace) -> None:
    from mltoolkit.rllib._evaluate_command import evaluate

    evaluate(options)


def _json_object(text: str) -> dict[str, Any]:
    """A JSON object, given as text or as the name of a file."""
    source = text
    if not text.lstrip().startswith(("{", "[", '"')) and os.path.isfile(text):
        with open(text, encoding="utf-8") as file:
            source = file.read()
    try:
        value = json.loads(source)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"must be JSON such as '{{\"lr\": 0.001}}', got {text!r}: {error}") from error
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"must be a JSON object of names and values, got {text!r}")
    return value


def _positive(text: str) -> int:
    return _whole(text, 1)


def _not_negative(text: str) -> int:
    return _whole(text, 0)


def _whole(text: str, least: int) -> int:
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if value < least:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least {least}, got {text!r}")
    return value
