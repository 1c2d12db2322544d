"""What executors print arrives on the driver, marked with who printed it; nothing else is printed."""

from __future__ import annotations

import re

import pytest
from helpers import run_script

import mltoolkit as ray

QUIET = {"RAY_DEDUP_LOGS": "0"}


def test_prints_carry_name_and_pid(tmp_path):
    done = run_script(
        """
        import os, sys
        import mltoolkit as ray

        ray.init(num_cpus=2)

        @ray.remote
        def speak(word):
            print("task says", word)
            print("to stderr", word, file=sys.stderr)
            return os.getpid()

        @ray.remote
        class Speaker:
            def speak(self, word):
                print("actor says", word)
                return os.getpid()

        speaker = Speaker.remote()
        print("PIDS", ray.get(speak.remote("one")), ray.get(speaker.speak.remote("two")))
        ray.shutdown()
        """,
        tmp_path,
        env=QUIET,
    )
    task_pid, actor_pid = re.search(r"PIDS (\d+) (\d+)", done.stdout).groups()
    plain = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout + done.stderr)
    assert f"(speak pid={task_pid}) task says one" in plain
    assert f"(speak pid={task_pid}) to stderr one" in plain
    assert f"(Speaker pid={actor_pid}) actor says two" in plain
    assert "task says one" in done.stdout


def test_logging_and_output_of_subprocesses_arrive(tmp_path):
    done = run_script(
        """
        import logging, os, subprocess, sys
        import mltoolkit as ray

        ray.init(num_cpus=1)

        @ray.remote
        def work():
            logging.getLogger("user").warning("a warning of the user")
            sys.stdout.flush()
            subprocess.run(["echo", "from a child"], check=True)
            os.write(1, b"straight to the descriptor\\n")

        ray.get(work.remote())
        ray.shutdown()
        """,
        tmp_path,
        env=QUIET,
    )
    both = done.stdout + done.stderr
    for text in ("a warning of the user", "from a child", "straight to the descriptor"):
        assert text in both


def test_everything_printed_before_the_end_arrives_in_order(tmp_path):
    done = run_script(
        """
        import mltoolkit as ray

        ray.init(num_cpus=1)

        @ray.remote
        def count():
            for i in range(500):
                print("line", i)
            print("no newline at the end", end="")

        ray.get(count.remote())
        """,
        tmp_path,
        env=QUIET,
    )
    assert [int(n) for n in re.findall(r"line (\d+)", done.stdout)] == list(range(500))
    assert "no newline at the end" in done.stdout


def test_repr_of_an_actor_is_its_name_in_the_output(tmp_path):
    done = run_script(
        """
        import mltoolkit as ray

        ray.init(num_cpus=1)

        @ray.remote
        class A:
            def __repr__(self):
                return "Custom(7)"

            def speak(self):
                print("hello")

        a = A.remote()
        ray.get(a.speak.remote())
        """,
        tmp_path,
        env=QUIET,
    )
    assert re.search(r"\(Custom\(7\) pid=\d+\)", re.sub(r"\x1b\[[0-9;]*m", "", done.stdout))


def test_log_to_driver_false_is_silent(tmp_path):
    done = run_script(
        """
        import mltoolkit as ray

        ray.init(num_cpus=1, log_to_driver=False)

        @ray.remote
        def speak():
            print("unheard")
            return "heard"

        print(ray.get(speak.remote()))
        """,
        tmp_path,
    )
    assert "unheard" not in done.stdout + done.stderr
    assert "heard" in done.stdout


@pytest.mark.skipif(ray.__name__ != "mltoolkit", reason="Ray prints more")
@pytest.mark.parametrize("init", ["ray.init(num_cpus=2)", ""], ids=["init", "by-itself"])
def test_a_program_that_succeeds_prints_nothing_of_ours(tmp_path, init):
    done = run_script(
        f"""
        import mltoolkit as ray
        {init}

        @ray.remote
        def f(x):
            return x

        @ray.remote
        class A:
            def ping(self):
                return 1

        a = A.remote()
        refs = [f.remote(i) for i in range(20)] + [a.ping.remote()]
        print(sum(ray.get(refs)))
        """,
        tmp_path,
    )
    assert done.stdout == "191\n"
    assert done.stderr == ""


@pytest.mark.skipif(ray.__name__ != "mltoolkit", reason="Ray prints an error")
def test_failed_task_nobody_asked_for_prints_no_traceback_of_ours(tmp_path):
    done = run_script(
        """
        import mltoolkit as ray
        ray.init(num_cpus=1)

        @ray.remote
        def fail():
            raise ValueError("user")

        ref = fail.remote()
        ray.wait([ref])
        try:
            ray.get(ref)
        except ValueError:
            print("caught")
        """,
        tmp_path,
    )
    assert done.stdout == "caught\n"
    assert "distributed" not in done.stderr
