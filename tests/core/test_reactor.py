"""The I/O thread: nothing that other threads hand it is left lying."""

from __future__ import annotations

import os
import select
import threading

from mltoolkit.core import reactor as reactor_module
from mltoolkit.core.reactor import Reactor


def test_a_wake_while_another_is_taken_in_is_not_lost(monkeypatch):
    loop = Reactor("test-reactor")
    try:
        real_read = os.read
        woken_again = []

        def read_after_another_wake(fd, count):
            # Another thread has something new just before the pipe is emptied, and its byte goes with the others.
            if not woken_again:
                woken_again.append(True)
                loop.wake()
            return real_read(fd, count)

        loop.wake()
        monkeypatch.setattr(reactor_module.os, "read", read_after_another_wake)
        loop._on_wake()
        monkeypatch.undo()
        loop.wake()
        assert select.select([loop._wake_read], [], [], 1.0)[0], "the loop sleeps on although it was woken"
    finally:
        loop.start()
        loop.stop()


def test_every_call_of_many_threads_runs():
    loop = Reactor("test-reactor")
    loop.start()
    try:
        done = threading.Semaphore(0)

        def hand_over():
            for _ in range(2000):
                loop.call_soon(done.release)

        threads = [threading.Thread(target=hand_over) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for _ in range(8000):
            assert done.acquire(timeout=10)
    finally:
        loop.stop()
