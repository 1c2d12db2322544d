"""Cycles of actors that wait for each other end in an error instead of a hang."""

from __future__ import annotations

import pytest

import mltoolkit as ray


@ray.remote
class Peer:
    def meet(self, other):
        self.other = other

    def ask(self, depth):
        return "end" if depth == 0 else ray.get(self.other.ask.remote(depth - 1))


@pytest.fixture
def pair(runtime):
    first, second = Peer.remote(), Peer.remote()
    ray.get([first.meet.remote(second), second.meet.remote(first)])
    return first, second


def test_cycle_of_actors_is_an_error_that_shows_it(pair):
    with pytest.raises(
        ray.exceptions.DeadlockError, match=r"Peer waits for Peer\.ask\(\).*cycle|cycle.*Peer waits for"
    ):
        ray.get(pair[0].ask.remote(3), timeout=20)
    assert ray.get(pair[0].ask.remote(1), timeout=20) == "end", "the actors live on"


def test_actor_that_waits_for_itself(runtime):
    peer = Peer.remote()
    ray.get(peer.meet.remote(peer))
    with pytest.raises(ray.exceptions.DeadlockError):
        ray.get(peer.ask.remote(1), timeout=20)


def test_chain_without_a_cycle_is_none(pair):
    assert ray.get([p.ask.remote(0) for p in pair] * 3, timeout=20) == ["end"] * 6
    assert ray.get(pair[0].ask.remote(1), timeout=20) == "end"
