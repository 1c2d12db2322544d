"""The `mltoolkit` command, as a user types it."""

from __future__ import annotations

import dataclasses
import os
import re
import signal
import socket
import subprocess
import sys
import time

import psutil
import pytest
from helpers import alive, script_env, wait_until

import mltoolkit
from mltoolkit import _processes, cli
from mltoolkit._processes import CommandError, Record


@pytest.fixture
def run_dir(tmp_path, monkeypatch):
    """A folder for records of its own; whatever is started there is ended with the test."""
    folder = tmp_path / "run"
    monkeypatch.setenv("MLTOOLKIT_RUN_DIR", str(folder))
    yield folder
    for record in _processes.records():
        _processes.stop(record, timeout=5)


def command(*words):
    return [sys.executable, "-m", "mltoolkit.cli", *words]


def mltk(*words, code=0, timeout=90):
    """Run the command; check its exit code; return what it printed."""
    done = subprocess.run(
        command(*words), capture_output=True, text=True, timeout=timeout, env=script_env({"COLUMNS": "200"})
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


def start_head(*words):
    out = mltk("start", "--head", "--port", "0", *words)
    return re.search(r"at (tcp://\S+)", out)[1]


def listeners(process):
    family = [process, *process.children(recursive=True)]
    return {c.laddr.ip for p in family for c in p.net_connections("inet") if c.status == psutil.CONN_LISTEN}


def test_version():
    assert mltk("--version").strip() == f"mltoolkit {mltoolkit.__version__}"


@pytest.mark.parametrize("words", [(), ("start",), ("no-such-command",), ("start", "--head", "--address", "tcp://a:1")])
def test_wrong_use_shows_the_usage(words):
    assert "usage: mltoolkit" in mltk(*words, code=2)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("start", "--head", "--num-cpus", "2"), "--num-cpus cannot be used with --head"),
        (("start", "--address", "tcp://127.0.0.1:1", "--port", "1"), "--port cannot be used with --address"),
        (("start", "--head", "--port", "70000"), "between 0 and 65535, got 70000"),
        (("start", "--address", "127.0.0.1"), "must look like tcp://HOST:PORT"),
        (("start", "--address", "tcp://127.0.0.1:1"), "no scheduler answers at tcp://127.0.0.1:1"),
        (("status",), "no cluster was started here"),
        (("status", "--address", "nonsense"), "must look like tcp://HOST:PORT, got 'nonsense'"),
        (("status", "--address", "tcp://127.0.0.1:1"), "no scheduler answers at tcp://127.0.0.1:1"),
        (("quickstart", "--csv", "no-such-file.csv"), "cannot read the data"),
    ],
)
def test_mistakes_are_one_line(words, message, run_dir, monkeypatch, capsys):
    monkeypatch.setattr(cli, "_ANSWER_TIMEOUT_S", 0.2)
    with pytest.raises(SystemExit) as caught:
        cli.main(words)
    assert caught.value.code == 1
    out, err = capsys.readouterr()
    assert message in err
    assert len((out + err).splitlines()) == 1
    assert not list(run_dir.glob("*")) if run_dir.exists() else True


def test_a_mistake_ends_the_command(run_dir):
    out = mltk("status", code=1)
    assert "no cluster was started here" in out
    assert len(out.splitlines()) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resources": "{"}, "must be JSON"),
        ({"resources": "[1]"}, "must be a JSON object"),
        ({"resources": '{"GPU": 1}'}, "use --num-gpus"),
        ({"resources": '{"a b": 1}'}, "no space, comma or '='"),
        ({"resources": '{"disk": "much"}'}, "must be a number >= 0, got 'much'"),
        ({"num_cpus": -1.0}, "must be a number >= 0, got -1.0"),
    ],
)
def test_resources_that_make_no_sense(options, message):
    given = {"num_cpus": None, "num_gpus": None, "resources": None, **options}
    with pytest.raises(CommandError, match=re.escape(message)):
        cli._node_resources(cli.argparse.Namespace(**given))


def test_port_in_use(run_dir):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        out = mltk("start", "--head", "--port", str(port), code=1)
    assert f"cannot listen on 127.0.0.1:{port}" in out
    assert _processes.records() == []


class TestCluster:
    def test_from_start_to_stop(self, run_dir, fresh):
        address = start_head()
        mltk("start", "--address", address, "--num-cpus", "3", "--resources", '{"disk": 2}')
        node, head = _processes.records()
        assert (head.role, node.role, node.address) == ("head", "node", address)
        assert oct(run_dir.stat().st_mode)[-4:] == "0700"
        for record in (head, node):
            assert listeners(record.process()) == {"127.0.0.1"}

        shown = mltk("status")
        assert re.search(r"CPU\W+3\W+3\b", shown), shown
        assert re.search(r"disk\W+2\W+2\b", shown), shown
        assert "alive" in shown

        mltoolkit.init(address=address)

        @mltoolkit.remote(resources={"disk": 1})
        def where():
            return os.getppid()

        assert mltoolkit.get(where.remote(), timeout=60) != os.getpid()
        mltoolkit.shutdown()

        pids = [p.pid for r in (head, node) for p in (r.process(), *r.process().children(recursive=True))]
        out = mltk("stop")
        assert f"Stopped the node with pid {node.pid}" in out
        assert f"Stopped the scheduler with pid {head.pid}" in out
        wait_until(lambda: not [pid for pid in pids if alive(pid)], 10, "all processes of the cluster end")
        assert list(run_dir.iterdir()) == []
        assert "Nothing to stop" in mltk("stop")

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    @pytest.mark.parametrize("moment", ["launching", "serving"])
    def test_in_the_foreground_until_told_to_end(self, run_dir, moment, number):
        process = subprocess.Popen(
            command("start", "--head", "--port", "0", "--block"),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=script_env(),
        )
        try:
            if moment == "serving":
                assert "Started a Dask scheduler at tcp://127.0.0.1:" in process.stdout.readline()
            [record] = wait_until(_processes.records)
            process.send_signal(number)
            assert process.wait(60) == 128 + number
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
        wait_until(lambda: not alive(record.pid), 10, "the scheduler ends with its command")
        assert list(run_dir.iterdir()) == []


class TestRecords:
    @pytest.fixture
    def bystander(self, run_dir):
        """A process that `mltoolkit start` did not launch."""
        process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        yield psutil.Process(process.pid)
        process.kill()
        process.wait()
        process.stdin.close()

    def test_a_number_in_use_again_is_left_alone(self, bystander, run_dir):
        record = Record("head", bystander.pid, _processes.start_mark(bystander), "tcp://a:1", "log")
        assert record.process() == bystander
        stale = dataclasses.replace(record, started=_processes.start_mark(psutil.Process()))
        stale.save()
        assert stale.process() is None
        assert "Nothing to stop" in mltk("stop")
        assert alive(bystander.pid)
        assert _processes.records() == []

    def test_address_is_that_of_the_last_scheduler_that_runs(self, bystander, run_dir):
        assert _processes.find_address() is None
        here = (bystander.pid, _processes.start_mark(bystander))
        Record("node", *here, "tcp://theirs:1", "log").save()
        assert _processes.find_address() == "tcp://theirs:1"
        Record("head", *here, "tcp://ours:1", "log").save()
        Record("head", 1, "before", "tcp://gone:1", "log").save()
        assert _processes.find_address() == "tcp://ours:1"

    def test_stop_uses_force_in_the_end(self, run_dir):
        stubborn = "import signal, sys; signal.signal(15, signal.SIG_IGN); print('ready', flush=True); sys.stdin.read()"
        process = subprocess.Popen(
            [sys.executable, "-c", stubborn], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        try:
            assert process.stdout.readline() == "ready\n"
            found = psutil.Process(process.pid)
            record = Record("node", found.pid, _processes.start_mark(found), "tcp://a:1", "log")
            record.save()
            before = time.monotonic()
            assert _processes.stop(record, timeout=0.3)
            assert 0.3 <= time.monotonic() - before < 10
            assert not alive(process.pid)
        finally:
            process.kill()
            process.wait()
            process.stdin.close()
            process.stdout.close()

    def test_process_that_fails_shows_its_log_and_leaves_nothing(self, run_dir):
        with pytest.raises(CommandError, match=r"exit code 7.*\n.*these were my last words"):
            _processes.launch(
                "head",
                [sys.executable, "-c", "print('these were my last words'); raise SystemExit(7)"],
                ready=lambda log: None,
                timeout=30,
            )
        assert list(run_dir.iterdir()) == []

    def test_process_that_never_serves_is_ended(self, run_dir):
        with pytest.raises(CommandError, match=r"was not ready after 0\.2 s"):
            _processes.launch(
                "head",
                [sys.executable, "-c", "import signal; signal.pause()"],
                ready=lambda log: None,
                timeout=0.2,
            )
        assert list(run_dir.iterdir()) == []

    def test_folder_that_others_can_enter_is_refused(self, run_dir):
        run_dir.mkdir(mode=0o700)
        run_dir.chmod(0o755)
        with pytest.raises(CommandError, match="mode 0700, got mode 0755"):
            _processes.run_dir()
        run_dir.chmod(0o700)

    def test_foreign_files_are_no_records(self, run_dir):
        (_processes.run_dir() / "other.json").write_text('{"pid": 1}')
        (_processes.run_dir() / "broken.json").write_text("{")
        assert _processes.records() == []


class TestQuickstart:
    def test_tells_what_it_did(self):
        out = mltk("quickstart")
        assert "scikit-learn's wine data, 178 wines with 13 measurements" in out
        assert "the best of 80 decision trees, each scored on 5 folds: 400 fits" in out
        assert re.search(r"one process\W+\d+\.\d\d s", out)
        assert re.search(r"search again\W+\d+\.\d\d s\W+\d+\.\d\dx", out)
        assert "(the same as in one process)" in out

    @pytest.mark.parametrize("separator", [";", ","])
    def test_reads_a_table(self, tmp_path, separator):
        from mltoolkit._quickstart import load_wine_csv

        path = tmp_path / "wine.csv"
        path.write_text(f'"acidity"{separator}"quality"\n7.4{separator}5\n7.8{separator}6\n\n')
        X, y = load_wine_csv(str(path))
        assert X.tolist() == [[7.4], [7.8]]
        assert y.tolist() == [5, 6]

    @pytest.mark.parametrize("text", ["", "a,b\n", "a,b\nx,1\n", "a,b\n1,2\n3\n", "a\n1\n"])
    def test_table_that_is_none(self, tmp_path, text):
        from mltoolkit._quickstart import load_wine_csv

        path = tmp_path / "wine.csv"
        path.write_text(text)
        with pytest.raises(CommandError, match=r"wine\.csv"):
            load_wine_csv(str(path))


def test_run_passes_everything_on(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("import sys, ray\nprint(ray.__name__, sys.argv[1:])\nsys.exit(4)\n")
    assert mltk("run", str(script), "--head", "--help", code=4) == "mltoolkit ['--head', '--help']\n"
