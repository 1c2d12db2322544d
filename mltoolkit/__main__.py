"""``python -m mltoolkit script.py [args]``: run a program written for Ray on mltoolkit, unchanged."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from mltoolkit import compat
from mltoolkit._script import CannotRunError, run_module, run_script

__all__ = ["main"]


def main(argv: Sequence[str] | None = None, prog: str = "python -m mltoolkit") -> None:
    """Run a script or module in which ``import ray`` means mltoolkit.

    Parameters
    ----------
    argv : sequence of str, default=None
        The command line without the command's name; ``None`` means that of the process.
    prog : str, default='python -m mltoolkit'
        How the command was called, for messages.

    Raises
    ------
    SystemExit
        As the program ends, or with the code that ``python`` gives when there is nothing to run.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    # Cut by hand: whatever follows the program's name is the program's, options that look like ours included.
    end = 2 if words[:1] == ["-m"] else 1
    parser = _parser(prog)
    options = parser.parse_args(words[:end])
    if options.module is None and options.script is None:
        parser.error("nothing to run: give a script, or a module with -m")
    compat.install()
    try:
        if options.module is not None:
            run_module(options.module, words[end:])
        else:
            run_script(options.script, words[end:])
    except CannotRunError as error:
        sys.stderr.write(f"{prog}: {error}\n")
        sys.exit(error.exit_code)


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog,
        usage=f"{prog} SCRIPT [args ...]\n       {prog} -m MODULE [args ...]",
        description="Run a program written for Ray on mltoolkit, unchanged: `import ray`, `xgboost_ray`, "
        "`lightgbm_ray` and `ray_lightning` resolve to mltoolkit, in the program and in its tasks and actors.",
        allow_abbrev=False,
    )
    parser.add_argument("-m", dest="module", metavar="MODULE", help="run a module or package by its dotted name")
    parser.add_argument("script", metavar="SCRIPT", nargs="?", help="the Python file to run")
    return parser


if __name__ == "__main__":
    main()
