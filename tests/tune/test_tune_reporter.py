import io
import math
import os
import re
import sys
import time
import traceback
import types

import pytest
from rich.console import Console

from mltoolkit.exceptions import RayTaskError
from mltoolkit.tune import progress_reporter
from mltoolkit.tune._screen import terminal
from mltoolkit.tune._screen.columns import DEFAULT_COLUMNS, Table, TableSettings
from mltoolkit.tune._screen.errors import traceback_of
from mltoolkit.tune._screen.numbers import format_values
from mltoolkit.tune._screen.state import SweepState
from mltoolkit.tune._screen.view import best_text
from mltoolkit.tune.callback import CallbackList
from mltoolkit.tune.experiment.trial import Trial
from mltoolkit.tune.progress_reporter import (
    CLIReporter,
    JupyterNotebookReporter,
    ProgressReporter,
    default_reporter,
)


def make_trial(index, status="RUNNING", params=None, **metrics):
    params = {"lr": 0.1 * (index + 1)} if params is None else params
    trial = Trial(
        f"abc_{index:05d}",
        "train",
        dict(params),
        index=index,
        evaluated_params=params,
        experiment_path="/results/exp",
        location=f"127.0.0.1:{4000 + index}",
    )
    trial.status = status
    if metrics:
        trial.update_last_result(metrics)
    return trial


def failed(index, error):
    trial = make_trial(index, "ERROR")
    trial.num_failures = 1
    trial.error = error
    return trial


def raised(message, kind=ValueError):
    try:
        raise kind(message)
    except kind as error:
        return error


class Tty(io.StringIO):
    def isatty(self):
        return True


def cli(width=120, height=40, terminal=False, **options):
    """A reporter that writes to `reporter.out`."""
    reporter = CLIReporter(max_report_frequency=0, **options)
    reporter.out = Tty() if terminal else io.StringIO()
    reporter._console = Console(
        file=reporter.out, width=width, height=height, force_terminal=terminal, color_system=None, legacy_windows=False
    )
    return reporter


def output(reporter):
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", reporter.out.getvalue())
    reporter.out.seek(0)
    reporter.out.truncate()
    return text


# The state behind all views.


def state_of(trials, metric="loss", mode="min", max_rows=20, sort_by_metric=False):
    state = SweepState(metric, mode, None, max_rows=max_rows, sort_by_metric=sort_by_metric)
    state.update(trials)
    return state


def test_counts_and_best_follow_the_trials():
    trials = [make_trial(0, loss=3.0), make_trial(1, "PENDING"), make_trial(2, loss=float("nan"))]
    state = state_of(trials)
    assert dict(state.counts) == {"RUNNING": 2, "PENDING": 1}
    assert (state.best, state.best_value) == (trials[0], 3.0)

    trials[0].status = "TERMINATED"
    trials[1].status = "RUNNING"
    trials[1].update_last_result({"loss": 2.0})
    trials.append(make_trial(3, loss=2.5))
    state.update(trials)
    assert dict(state.counts) == {"RUNNING": 3, "TERMINATED": 1}
    assert state.finished == 1
    assert state.best is trials[1]

    trials[1].update_last_result({"loss": 9.0})  # the last result counts, as in `get_best_result`
    state.update(trials)
    assert state.best is trials[3]


def test_the_best_may_be_nested_and_a_maximum():
    trials = [make_trial(i, eval={"acc": acc}) for i, acc in enumerate((0.1, 0.9, 0.5))]
    state = state_of(trials, "eval/acc", "max")
    assert state.best is trials[1]
    assert state_of(trials, "eval/nothing", "max").best is None


def test_finished_trials_are_looked_at_once():
    looked_at = []

    class Watched(Trial):
        def is_finished(self):
            looked_at.append(self.trial_id)
            return super().is_finished()

    trials = [Watched(f"t{i}", "train", {}, status="TERMINATED", last_result={"loss": i}) for i in range(50)]
    state = state_of(trials)
    assert len(looked_at) == 50
    trials.append(Watched("new", "train", {}, status="RUNNING"))
    state.update(trials)
    state.update(trials)
    assert looked_at[50:] == ["new", "new"]
    assert state.counts["TERMINATED"] == 50


def test_another_list_of_trials_starts_the_counts_anew():
    state = state_of([make_trial(i, "TERMINATED") for i in range(3)])
    state.update([make_trial(7, "TERMINATED")])
    assert dict(state.counts) == {"TERMINATED": 1}


def test_running_trials_come_first_and_pending_ones_leave_room():
    trials = [make_trial(i, "TERMINATED", loss=i) for i in range(20)]
    trials += [make_trial(20 + i, "PENDING") for i in range(20)]
    trials += [make_trial(40 + i, "RUNNING") for i in range(3)]
    state = state_of(trials, max_rows=10)
    rows = state.rows(10)
    assert [trial.status for trial in rows] == ["RUNNING"] * 3 + ["PENDING"] * 2 + ["TERMINATED"] * 5
    assert [trial.index for trial in rows[5:]] == [19, 18, 17, 16, 15]
    assert state.not_shown(rows) == "33 more trials (18 PENDING, 15 TERMINATED)"
    assert [t.status for t in state_of(trials[20:], max_rows=10).rows(10)] == ["RUNNING"] * 3 + ["PENDING"] * 7


def test_finished_trials_can_be_sorted_by_the_metric():
    losses = [5.0, 1.0, 4.0, float("nan"), 2.0, 3.0]
    trials = [make_trial(i, "TERMINATED", loss=loss) for i, loss in enumerate(losses)]
    state = state_of(trials, max_rows=4, sort_by_metric=True)
    assert [trial.index for trial in state.rows(4)] == [1, 4, 5, 2]
    assert [trial.index for trial in state_of(trials, mode="max", max_rows=2).final_rows(2)] == [0, 2]


def test_ten_thousand_trials_cost_little_per_report():
    trials = [make_trial(i, "TERMINATED", loss=i) for i in range(10_000)]
    reporter = cli(metric="loss", mode="min", terminal=True)
    reporter.report(trials, False)
    trials += [make_trial(10_000 + i, loss=i) for i in range(4)]
    costs = []
    for _ in range(10):
        start = time.process_time()
        reporter.report(trials, False)
        costs.append(time.process_time() - start)
    assert min(costs) < 0.01  # at two reports in a second, 2 % of the time; measured: 0.002
    reporter.close()


def test_elements_of_lists_are_shown_with_the_name_of_the_list():
    reporter = cli(metric="loss", mode="min")
    reporter.setup(start_time=time.time())
    params = {"lr": 0.1, "model/layers/0": 20, "model/layers/1": 40}
    reporter.report([make_trial(0, "TERMINATED", params, loss=0.5, training_iteration=1)], True)
    text = output(reporter)
    (title,) = [line for line in text.splitlines() if line.startswith("trial ")]
    assert title.split()[3:7] == ["lr", "layers/0", "layers/1", "loss"]
    assert "with lr=0.1, layers/0=20, layers/1=40" in text


# In a file or a pipe.


def test_a_pipe_gets_a_start_line_improvements_and_a_final_table():
    reporter = cli(metric="loss", mode="min", total_samples=2)
    reporter.setup(start_time=time.time())
    trials = [make_trial(0), make_trial(1)]
    reporter.report(trials, False, "2/4 CPUs in use")
    assert output(reporter).splitlines() == ["Sweep of 2 trials, loss to be minimised, results in /results/exp"]
    trials[0].update_last_result({"loss": 0.5, "training_iteration": 1, "time_total_s": 1.5})
    reporter._view._last_line = -1e9
    reporter.report(trials, False, "2/4 CPUs in use")
    (line,) = output(reporter).splitlines()
    assert line == "0:00:00  0/2 trials (2 RUNNING)  best: loss=0.5 at iteration 1, train_abc_00000 with lr=0.1"

    for trial, loss in zip(trials, (0.5, 0.25), strict=True):
        trial.update_last_result({"loss": loss, "training_iteration": 2, "time_total_s": 2.0})
        trial.status = "TERMINATED"
    reporter.report(trials, True)
    lines = output(reporter).splitlines()
    assert lines[1].split() == ["trial", "status", "loc", "lr", "loss", "iter", "total", "time", "(s)"]
    assert lines[2].split() == ["train_abc_00001", "TERMINATED", "127.0.0.1:4001", "0.2", "0.25", "2", "2.00"]
    assert lines[3].split() == ["train_abc_00000", "TERMINATED", "127.0.0.1:4000", "0.1", "0.50", "2", "2.00"]
    assert lines[5:] == [
        "2/2 trials in 0:00:00 (2 TERMINATED)",
        "Best trial: loss=0.25 at iteration 2, train_abc_00001 with lr=0.2",
        "Results: /results/exp",
    ]


def test_a_pipe_is_not_flooded(monkeypatch):
    clock = types.SimpleNamespace(now=1000.0)
    monkeypatch.setattr(time, "monotonic", lambda: clock.now)
    monkeypatch.setattr(time, "time", lambda: clock.now)
    reporter = cli(metric="loss", mode="min", total_samples=10_000)
    reporter.setup(start_time=clock.now)
    trials = []
    for i in range(2000):  # one trial each second, each better than the one before
        clock.now += 1
        trials.append(make_trial(i, "TERMINATED", loss=-i))
        if reporter.should_report(trials):
            reporter.report(trials, False)
    reporter.report(trials, True)
    lines = output(reporter).splitlines()
    assert 30 < len(lines) < 130
    assert lines[-2].startswith("Best trial: loss=-1999, train_abc_01999")
    assert "... 1980 more trials (1980 TERMINATED)" in lines


def test_a_pipe_shows_life_when_nothing_improves(monkeypatch):
    clock = types.SimpleNamespace(now=1000.0)
    monkeypatch.setattr(time, "monotonic", lambda: clock.now)
    monkeypatch.setattr(time, "time", lambda: clock.now)
    reporter = cli()
    reporter.setup(start_time=clock.now)
    trials = [make_trial(0)]
    for _ in range(130):
        reporter.report(trials, False)
        clock.now += 1
    lines = output(reporter).splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["0:00:55", "0:01:55"]


def test_intermediate_tables_can_be_asked_for_in_a_pipe():
    reporter = cli(print_intermediate_tables=True)
    trials = [make_trial(0, loss=1.0)]
    reporter.report(trials, False, "2/4 CPUs in use")
    reporter.report(trials, False, "2/4 CPUs in use")
    text = output(reporter)
    assert text.count("train_abc_00000  RUNNING") == 2
    assert text.count("2/4 CPUs in use") == 2


def test_a_pipe_begins_with_the_sweep_and_not_with_its_scheduler():
    reporter = cli(print_intermediate_tables=True)
    about = "Using AsyncHyperBand\nBracket: Iter 16.000: None"
    reporter.report([], False, about)
    assert output(reporter) == ""
    trials = [make_trial(0)]
    reporter.report(trials, False, about)
    text = output(reporter)
    assert text.startswith("Sweep, results in /results/exp\n")
    assert "Bracket" not in text
    assert "train_abc_00000  RUNNING" in text
    trials[0].update_last_result({"loss": 1.0})
    reporter.report(trials, False, about)
    assert "Bracket: Iter 16.000: None\n" in output(reporter)


# Errors.


def test_a_traceback_is_shown_once_and_repeats_are_folded():
    reporter = cli(width=160)
    trials = [failed(i, raised(f"bad value {i}")) for i in range(4)]
    reporter.report(trials[:1], False)
    text = output(reporter)
    assert "Trial train_abc_00000 failed: ValueError: bad value 0\n" in text
    assert text.count("Traceback") == 1
    assert "raise kind(message)" in text
    reporter.report(trials, False)
    assert output(reporter) == ""
    reporter.report(trials, True)
    text = output(reporter)
    assert "Traceback" not in text
    assert (
        "train_abc_00000 failed: ValueError: bad value 0 (3 more trials failed the same way: "
        "train_abc_00001, train_abc_00002, train_abc_00003)\n" in text
    )


def test_errors_of_other_processes_show_the_traceback_made_there():
    remote = 'Traceback (most recent call last):\n  File "train.py", line 7, in train\n    1 / 0\nZeroDivisionError: division by zero'
    reporter = cli()
    trials = [failed(i, RayTaskError("train", remote, ZeroDivisionError(), 1, "host")) for i in range(2)]
    trials.append(failed(2, RayTaskError("train", remote.replace("line 7", "line 8"), ZeroDivisionError(), 1, "host")))
    reporter.report(trials, False)
    text = output(reporter)
    assert "Trial train_abc_00000 failed: ZeroDivisionError: division by zero\n" in text
    assert '    File "train.py", line 7, in train\n' in text
    assert "train_abc_00001" not in text
    assert "Trial train_abc_00002 failed" in text


def test_a_traceback_begins_at_the_users_code():
    head = "Traceback (most recent call last):\n"
    own = '  File "/site-packages/mltoolkit/tune/execution/actor.py", line 1, in advance\n    trial.train()\n    ^^^^\n'
    user = '  File "/home/me/train.py", line 7, in train\n    1 / 0\n'
    last = '  File "/site-packages/mltoolkit/tune/report.py", line 2, in report\n    raise KeyError\n'
    then = "\nDuring handling of the above exception, another exception occurred:\n\n"

    def shown(text):
        return traceback_of(RayTaskError("train", text)) + "\n"

    assert shown(head + own + own + user + "Error: x\n") == head + user + "Error: x\n"
    assert shown(head + own + user + last + "Error: x\n") == head + user + last + "Error: x\n"
    assert shown(head + own + "Error: x\n") == head + own + "Error: x\n"
    first = head + user + "Error: x\n" + then
    assert shown(first + head + own + user + "Error: y\n") == first + head + user + "Error: y\n"


def test_a_failure_without_a_recorded_error_is_shown():
    reporter = cli()
    reporter.report([failed(0, None)], True)
    assert "train_abc_00000 failed: error not recorded" in output(reporter)


@pytest.mark.parametrize("remote", [False, True])
def test_a_failure_takes_one_line_of_the_summary(remote):
    error = raised("a long message " * 20 + "\nof two lines")
    if remote:
        text = "".join(traceback.format_exception(error))
        error = RayTaskError("train", text, error, 1, "host")
    reporter = cli(width=100)
    trials = [failed(i, error) for i in range(3)]
    reporter.report(trials[:1], False)
    assert "of two lines" in output(reporter)
    reporter.report(trials, True)
    (line,) = [line for line in output(reporter).splitlines() if "failed" in line]
    assert line.startswith("train_abc_00000 failed: ValueError: a long message a")
    assert line.endswith("… (2 more trials failed the same way)")
    assert len(line) == 100


def test_kinds_of_errors_are_limited():
    reporter = cli(max_error_rows=2)
    trials = [failed(i, type(f"Error{letter}", (Exception,), {})("no")) for i, letter in enumerate("ABCD")]
    reporter.report(trials, False)
    assert re.findall(r"Trial \S+ failed: (\w+)", output(reporter)) == ["ErrorA", "ErrorB"]
    reporter.report(trials, True)
    assert "... 2 more kinds of errors" in output(reporter)


def test_folders_under_the_home_directory_begin_with_a_tilde(monkeypatch):
    monkeypatch.setattr("os.path.expanduser", lambda path: "/results")
    reporter = cli()
    reporter.report([make_trial(0, loss=1.0)], False)
    reporter.report([make_trial(0, loss=1.0)], True)
    text = output(reporter)
    assert text.startswith(f"Sweep, results in {os.path.join('~', 'exp')}\n")
    assert text.endswith(f"Results: {os.path.join('~', 'exp')}\n")
    monkeypatch.setattr("os.path.expanduser", lambda path: "/resu")
    assert state_of([make_trial(0)]).folder == "/results/exp"


# In a terminal.


def test_a_terminal_gets_one_table_that_is_replaced(monkeypatch):
    reporter = cli(terminal=True, metric="loss", mode="min", total_samples=3)
    trials = [make_trial(0, loss=0.5), make_trial(1)]
    reporter.report(trials, False, "1/2 CPUs in use")
    text = output(reporter)
    assert "2 RUNNING" in text
    assert "0/3 trials" in text
    assert "best  loss=0.5, train_abc_00000 with lr=0.1" in text
    assert "1/2 CPUs in use" in text
    assert re.search(r"train_abc_00000\s+RUNNING\s+127.0.0.1:4000\s+0.1\s+0.5", text)

    trials[0].status = "TERMINATED"
    reporter.report(trials, False)
    raw = reporter.out.getvalue()
    assert "\x1b[1A" in raw  # the cursor goes up: over the first table
    assert "1 RUNNING  1 TERMINATED" in output(reporter)
    reporter.report(trials, True)
    reporter.out.seek(reporter.out.getvalue().rindex("\x1b[2K"))  # where the last live table was wiped
    text = reporter.out.read()
    assert text.count("train_abc_00000") == 2  # its row, and as the best trial
    assert "Results: /results/exp" in text


def test_what_is_printed_meanwhile_stands_above_the_table(monkeypatch):
    reporter = cli(terminal=True)
    out = reporter.out
    monkeypatch.setattr(sys, "stdout", out)
    reporter._console = Console(force_terminal=True, color_system=None, width=100, height=30)
    reporter.report([make_trial(0, loss=1.0)], False)
    out.truncate(0)
    sys.stdout.write("(train pid=7) epoch 3\n")
    raw = out.getvalue()
    assert raw.index("(train pid=7) epoch 3\n") > raw.rindex("\x1b[2K")  # after the old table was wiped
    assert "train_abc_00000" in raw[raw.index("epoch 3") :]  # and the table again below
    reporter.close()
    assert sys.stdout is out


def test_the_terminal_is_left_in_order_after_an_interrupt(monkeypatch):
    reporter = cli(terminal=True)
    before = sys.stdout
    reporter.report([make_trial(0)], False)
    assert "\x1b[?25l" in reporter.out.getvalue()  # the cursor is hidden
    assert sys.stdout is not before
    reporter.close()
    assert reporter.out.getvalue().rstrip("\n\r").rindex("\x1b[?25h") > 0  # and shown
    assert sys.stdout is before
    reporter.close()


def test_the_red_of_a_failure_stays_out_of_the_live_table():
    reporter = cli(terminal=True)
    reporter._console = Console(file=reporter.out, width=100, height=30, force_terminal=True, color_system="standard")
    trials = [make_trial(0, loss=1.0), make_trial(1)]
    reporter.report(trials, False)
    output(reporter)
    trials[1].status, trials[1].error = "ERROR", ValueError("no")
    reporter.report(trials, False)
    raw = reporter.out.getvalue()
    reporter.close()
    failure = next(line for line in raw.splitlines() if "failed" in line)
    assert "\x1b[1;31mTrial train_abc_00001 failed: ValueError: no\x1b[0m" in failure
    drawn = [line for line in raw.splitlines() if "train_abc_00000  RUNNING" in line]
    assert len(drawn) == 2  # under the failure as it was, and then anew
    assert all("\x1b[32mtrain_abc_00000" in line for line in drawn)


@pytest.mark.parametrize("width", [40, 80, 120, 200])
def test_a_table_fits_the_width_by_leaving_columns_out(width):
    params = {f"parameter_{i}": 0.123456 for i in range(12)}
    reporter = cli(terminal=True, width=width, height=20, metric="loss", mode="min")
    trials = [make_trial(i, params=params, loss=0.123456, acc=0.5, training_iteration=3) for i in range(30)]
    reporter.report(trials, False)
    lines = output(reporter).splitlines()
    assert max(map(len, lines)) <= width
    assert len(lines) <= 20
    table = "\n".join(lines)
    assert all(title in table for title in ("trial", "status", "loss"))
    assert ("parameter_0" in table) == (width >= 80)
    assert "more trials (" in table
    reporter.close()


def test_wide_characters_keep_the_columns_in_line():
    reporter = cli()
    trials = [make_trial(0, params={"act": "日本"}, loss=1.0), make_trial(1, params={"act": "relu"}, loss=2.0)]
    reporter.report(trials, True)
    first, second = [line for line in output(reporter).splitlines() if line.startswith("train_abc")]
    assert first.index("1") and len(first) + 2 == len(second)


def test_no_colour_and_columns_of_the_environment_are_honoured(monkeypatch):
    monkeypatch.setenv("COLUMNS", "77")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    console = progress_reporter._console()
    assert console.width == 77
    assert console.no_color
    monkeypatch.delenv("COLUMNS")
    assert progress_reporter._console().width == 160


def test_forced_colours_make_no_terminal_of_a_file(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    reporter = CLIReporter()
    reporter.report([make_trial(0)], False)
    assert not isinstance(reporter._view, terminal.TerminalView)


# Columns.


def titles(reporter, trials):
    reporter.report(trials, True)
    return next(line for line in output(reporter).splitlines() if line.startswith("trial")).split()


def test_the_usual_columns_and_some_metrics_are_found():
    reporter = cli(infer_limit=2, width=300)
    trial = make_trial(
        0,
        params={"model/lr": 0.1, "model/size": 3},
        mean_accuracy=0.5,
        one=1.0,
        note="text",
        two=2,
        three=3,
        training_iteration=4,
        pid=9,
        config={},
    )
    assert titles(reporter, [trial]) == ["trial", "status", "loc", "lr", "size", "acc", "one", "two", "iter"]


def test_a_configuration_that_was_perturbed_is_shown_as_it_is_now():
    trial = make_trial(0, "TERMINATED", {"lr": 0.1, "model/width": 8}, loss=1.0)
    trial.config = {"lr": 0.02, "model": {"width": 16}}
    state = state_of([trial])
    table = Table([trial], state, TableSettings(None, None, 3, 20))
    cells = {column.title: column.cells for column in table.columns}
    assert cells["lr"] == ["0.02"] and cells["width"] == ["16"]
    assert "lr=0.02, width=16" in best_text(state)


def test_columns_can_be_given_and_renamed():
    reporter = cli(
        metric_columns={"loss": "validation", "eval/f1": "F1"}, parameter_columns={"net/width": "width", "lr": "rate"}
    )
    trial = make_trial(0, params={"lr": 0.1}, loss=0.5, eval={"f1": 0.75})
    trial.config["net"] = {"width": 8}
    reporter.add_metric_column("training_iteration", "iter")
    reporter.add_parameter_column("seed")
    trial.config["seed"] = 3
    trial.update_last_result({**trial.last_result, "training_iteration": 6})
    reporter.report([trial], True)
    lines = output(reporter).splitlines()
    assert lines[2].split() == ["trial", "status", "loc", "width", "rate", "seed", "validation", "F1", "iter"]
    assert lines[3].split()[3:] == ["8", "0.1", "3", "0.5", "0.75", "6"]


def test_a_list_of_columns_has_no_place_for_titles():
    reporter = CLIReporter(metric_columns=["loss"])
    reporter.add_metric_column("acc")
    with pytest.raises(ValueError, match="'acc' already"):
        reporter.add_metric_column("acc")
    with pytest.raises(ValueError, match="The title 'F1' has no place"):
        reporter.add_metric_column("f1", "F1")
    assert reporter._metric_columns == ["loss", "acc"]


def test_adding_a_column_keeps_the_usual_ones():
    reporter = CLIReporter()
    reporter.add_metric_column("f1", "F1")
    assert reporter._metric_columns == {**DEFAULT_COLUMNS, "f1": "F1"}
    assert "f1" not in DEFAULT_COLUMNS


def test_none_is_shown_and_what_is_missing_is_not():
    trials = [make_trial(0, params={"act": None, "depth": 3}, loss=None), make_trial(1, params={"act": "relu"})]
    trials[1].update_last_result({"loss": 0.5})
    reporter = cli(metric="loss", mode="min")
    reporter.report(trials, True)
    text = output(reporter)
    heads, first, second = [
        line.split() for line in text.splitlines() if line.startswith("train_abc") or "act" in line
    ][:3]
    rows = sorted([first, second])
    assert heads == ["trial", "status", "loc", "act", "depth", "loss"]
    assert rows[0][3:] == ["None", "3", "None"]
    assert rows[1][3:] == ["relu", "0.5"]
    trials[0].update_last_result({"loss": 0.25})
    reporter = cli(metric="loss", mode="min")
    reporter.report(trials, True)
    assert "train_abc_00000 with act=None, depth=3" in output(reporter)


@pytest.mark.parametrize(
    ("values", "cells"),
    [
        ([1, 0.9814814814], ["1.000000", "0.981481"]),
        ([0.0672728123, 0.293373123, 0.00944408123], ["0.067273", "0.293373", "0.009444"]),
        ([0.1, 0.01, 0.001], ["0.100", "0.010", "0.001"]),
        ([1.0, 20.0], ["1", "20"]),
        ([1, 20], ["1", "20"]),
        ([12.3456789, 1234.5], ["12.346", "1234.500"]),
        ([3.17147e-05, 0.25], ["3.17147e-05", "2.50000e-01"]),
        ([1e-7, 3e-7], ["1e-07", "3e-07"]),
        ([2.5e20, 0.5], ["2.5e+20", "5.0e-01"]),
        ([0.5, math.nan, math.inf, None, True], ["0.5", "nan", "inf", "None", "True"]),
        ([0.0, -0.25], ["0.00", "-0.25"]),
        ([0.0], ["0"]),
        ([math.nan], ["nan"]),
        ([0.5, 10**400], ["0.5", str(10**400)]),
        (["auto", 0.5, 0.25], ["auto", "0.5", "0.25"]),
        ([], []),
    ],
)
def test_the_numbers_of_a_column_have_one_precision(values, cells):
    assert format_values(values) == cells


def test_long_values_are_shortened():
    reporter = cli(max_column_length=8)
    reporter.report([make_trial(0, params={"sizes": [128, 256, 512]})], True)
    assert "[128, 2…" in output(reporter)


# Notebooks.


@pytest.fixture
def displays(monkeypatch):
    """What was displayed, when the process were a kernel."""
    shown = []

    class Handle:
        def update(self, bundle, raw=False):
            assert raw
            shown.append(("update", bundle))

    def display(bundle, raw=False, display_id=False):
        assert raw and display_id
        shown.append(("display", bundle))
        return Handle()

    fake = types.SimpleNamespace(
        display=display,
        clear_output=lambda wait: shown.append(("clear", wait)),
        get_ipython=lambda: types.SimpleNamespace(kernel=object()),
    )
    monkeypatch.setitem(sys.modules, "IPython", fake)
    monkeypatch.setitem(sys.modules, "IPython.display", fake)
    return shown


def test_a_notebook_gets_one_display_that_is_updated(displays):
    reporter = default_reporter(1, metric="loss", mode="min", total_samples=4)
    assert isinstance(reporter, JupyterNotebookReporter)
    trials = [make_trial(0, loss=0.5, training_iteration=1), failed(1, raised("<b>&"))]
    reporter.report(trials, False, "1/2 CPUs")
    trials[0].status = "TERMINATED"
    reporter.report(trials, False)
    reporter.report(trials, True)
    assert [kind for kind, _ in displays] == ["display", "update", "update"]

    first, last = displays[0][1], displays[2][1]
    assert "1/4 trials" in first["text/html"]
    assert "1/2 CPUs" in first["text/html"]
    assert '<td class="name">train_abc_00000</td>' in first["text/html"]
    assert "ValueError: &lt;b&gt;&amp;" in first["text/html"]
    assert "<b>&" not in first["text/html"]
    assert "width: 25.00%" in first["text/html"]
    assert "Best trial: loss=0.5 at iteration 1, train_abc_00000 with lr=0.1" in last["text/html"]
    assert "Results: /results/exp" in last["text/html"]
    assert re.search(r"train_abc_00000\s+TERMINATED", last["text/plain"])
    assert last["text/plain"].endswith("Results: /results/exp")


def test_a_notebook_reporter_clears_the_cell_only_if_told(displays):
    JupyterNotebookReporter().report([make_trial(0)], False)
    JupyterNotebookReporter(overwrite=False).report([make_trial(0)], False)
    assert [kind for kind, _ in displays] == ["clear", "display", "display"]


def test_outside_of_a_notebook_its_reporter_writes_text(monkeypatch):
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    reporter = JupyterNotebookReporter()
    with pytest.warns(UserWarning, match="not in a notebook"):
        reporter.report([make_trial(0)], True)
    assert "train_abc_00000" in out.getvalue()


# Verbosity, set-up, throttling.


def test_verbosity_0_shows_nothing(capsys):
    reporter = default_reporter(0, metric="loss", mode="min", reporter=cli())
    assert not reporter.should_report([make_trial(0)], done=True)
    reporter.report([make_trial(0)], True)
    reporter.close()
    assert reporter.callbacks() == []
    assert capsys.readouterr() == ("", "")


def events(verbose):
    reporter = default_reporter(verbose, reporter=cli(width=200), total_samples=3)
    callbacks = CallbackList(reporter.callbacks())
    trials = [make_trial(0), failed(1, raised("no"))]
    info = {"iteration": 0, "trials": trials}
    callbacks.on_trial_start(**info, trial=trials[0])
    result = {"loss": 0.5, "training_iteration": 1, "time_total_s": 2.0, "config": {"lr": 1}, "nested": {"a": 1}}
    trials[0].update_last_result(result)
    callbacks.on_trial_result(**info, trial=trials[0], result=result)
    callbacks.on_trial_complete(**info, trial=trials[0])
    callbacks.on_trial_recover(**info, trial=trials[1])
    reporter.report(trials, False)
    trials.append(failed(2, trials[1].error))
    callbacks.on_trial_error(**info, trial=trials[2])
    callbacks.on_experiment_end(trials=trials)
    return [line for line in output(reporter).splitlines() if "  File" not in line and "    " not in line]


def test_verbosity_1_shows_no_single_trials():
    lines = events(1)
    assert lines[:2] == ["Sweep of 3 trials, results in /results/exp", "Trial train_abc_00001 failed: ValueError: no"]
    assert not any("started" in line or "finished" in line for line in lines)


def test_verbosity_2_shows_events_of_trials():
    lines = events(2)
    assert lines[:3] == [
        "train_abc_00000 started on 127.0.0.1:4000: lr=0.1",
        "train_abc_00000 finished after 1 iteration, 2.0 s: loss=0.5, nested/a=1",
        "train_abc_00001 failed after 0 iterations (failure 1), and starts again",
    ]
    assert "Trial train_abc_00001 failed: ValueError: no" in lines
    assert lines[-1] == "train_abc_00002 failed after 0 iterations: ValueError: no (the same way as train_abc_00001)"


def test_verbosity_3_shows_results():
    lines = events(3)
    assert lines[1:6] == [
        "train_abc_00000 reported at iteration 1:",
        "  loss: 0.5",
        "  nested:",
        "  time_total_s: 2.0",
        "train_abc_00000 finished after 1 iteration, 2.0 s: loss=0.5, nested/a=1",
    ]


def test_events_of_very_many_trials_are_counted(monkeypatch):
    clock = types.SimpleNamespace(now=1000.0)
    monkeypatch.setattr(time, "monotonic", lambda: clock.now)
    reporter = default_reporter(2, reporter=cli())
    callbacks = CallbackList(reporter.callbacks())
    for i in range(10_000):
        callbacks.on_trial_start(iteration=0, trials=[], trial=make_trial(i))
        clock.now += 0.001
    callbacks.on_experiment_end(trials=[])
    lines = output(reporter).splitlines()
    assert len(lines) < 130
    started = sum("started" in line for line in lines)
    counted = sum(int(line.split()[1]) for line in lines if line.startswith("..."))
    assert started + counted == 10_000


def test_reports_are_throttled_and_the_last_one_is_not(monkeypatch):
    clock = types.SimpleNamespace(now=1000.0)
    monkeypatch.setattr(time, "monotonic", lambda: clock.now)
    reporter = CLIReporter(max_report_frequency=2)
    decisions = []
    for _ in range(5):
        decisions.append(reporter.should_report([]))
        clock.now += 1
    assert decisions == [True, False, True, False, True]
    clock.now = 1004.5
    assert reporter.should_report([], done=True)


def test_slow_reports_come_less_often(monkeypatch):
    clock = types.SimpleNamespace(now=1000.0)
    monkeypatch.setattr(time, "monotonic", lambda: clock.now)
    reporter = CLIReporter(max_report_frequency=0.5)
    reporter._report_cost_s = 0.02
    assert reporter.should_report([])
    clock.now += 1.9
    assert not reporter.should_report([])
    clock.now += 0.2
    assert reporter.should_report([])


def test_a_reporter_of_the_users_is_set_up_and_kept():
    class Own(ProgressReporter):
        def setup(self, **info):
            self.info = info

        def should_report(self, trials, done=False):
            return True

        def report(self, trials, done, *sys_info):
            pass

    own = Own()
    assert default_reporter(1, metric="loss", mode="max", total_samples=7, reporter=own) is own
    assert own.info.pop("start_time") == pytest.approx(time.time(), abs=60)
    assert own.info == {"total_samples": 7, "metric": "loss", "mode": "max"}
    assert own.callbacks() == []


def test_a_subclass_that_decides_when_to_report_works():
    class OnTermination(CLIReporter):
        terminated = 0

        def should_report(self, trials, done=False):
            before, self.terminated = self.terminated, sum(trial.status == "TERMINATED" for trial in trials)
            return self.terminated > before

    trials = [make_trial(0)]
    reporter = OnTermination()
    assert not reporter.should_report(trials)
    trials[0].status = "TERMINATED"
    assert reporter.should_report(trials)


def test_the_metric_is_found_when_there_is_only_one():
    reporter = cli(mode="max")
    trials = [make_trial(0, "TERMINATED", score=1.0), make_trial(1, score=2.0)]
    reporter.report(trials, False)
    trials[1].status = "TERMINATED"
    reporter.report(trials, True)
    assert "Best trial: score=2, train_abc_00001" in output(reporter)


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match="`mode` must be 'min' or 'max', got 'minimum'"):
        CLIReporter(mode="minimum")
    with pytest.raises(ValueError, match="`max_progress_rows` must not be negative, got -1"):
        CLIReporter(max_progress_rows=-1)
    with pytest.raises(ValueError, match="`verbose` must be 0, 1, 2 or 3, got 4"):
        default_reporter(4)
    with pytest.raises(TypeError, match=r"write `CLIReporter\(\)`"):
        default_reporter(1, reporter=CLIReporter)
    with pytest.raises(ValueError, match="made with `metric='loss'`, the sweep has 'acc'"):
        CLIReporter(metric="loss").setup(metric="acc", mode="min")
    with pytest.warns(UserWarning, match="`sort_by_metric` needs `metric` and `mode`"):
        CLIReporter(sort_by_metric=True).setup()
