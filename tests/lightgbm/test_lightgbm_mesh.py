"""Connections among ranks: what they carry, whom they admit, and how they end."""

from __future__ import annotations

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from mltoolkit._boosting.errors import LostPeersError
from mltoolkit.lightgbm._mesh import Address, Listener, Mesh

TOKEN = b"t" * 32


def meet(size, timeout=10.0):
    listeners = [Listener("127.0.0.1") for _ in range(size)]
    addresses = [listener.address for listener in listeners]
    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(lambda at: listeners[at].meet(at, addresses, TOKEN, timeout), range(size)))


def on_all(meshes, call):
    with ThreadPoolExecutor(len(meshes)) as pool:
        return list(pool.map(call, meshes))


@pytest.fixture
def meshes():
    made = meet(3)
    yield made
    for mesh in made:
        mesh.close()


@pytest.mark.parametrize("length", [0, 1, 40_000, 9_000_000])
def test_everybody_gets_what_each_gives(meshes, length):
    def data(at):
        return bytes([65 + at]) * (length // (at + 1))

    for gathered in on_all(meshes, lambda mesh: mesh.allgather(data(mesh.index))):
        assert gathered == [data(0), data(1), data(2)]


@pytest.mark.parametrize("length", [8, 3_000_000])
def test_each_pair_exchanges_its_own(meshes, length):
    def send(mesh):
        others = [at for at in range(3) if at != mesh.index]
        incoming = {at: bytearray(length) for at in others}
        mesh.exchange(
            {at: bytes([10 * mesh.index + at]) * length for at in others},
            {at: memoryview(buffer) for at, buffer in incoming.items()},
        )
        return {at: set(buffer) for at, buffer in incoming.items()}

    assert on_all(meshes, send) == [{1: {10}, 2: {20}}, {0: {1}, 2: {21}}, {0: {2}, 1: {12}}]


def test_some_of_the_ranks_can_meet_among_themselves(meshes):
    parts = [meshes[0].part([0, 2]), meshes[2].part([0, 2])]
    assert [part.index for part in parts] == [0, 1]
    assert on_all(parts, lambda part: part.allgather(str(part.index).encode())) == [[b"0", b"1"]] * 2


@pytest.mark.parametrize("length", [8, 3_000_000])
def test_a_rank_that_is_gone_is_noticed(meshes, length):
    meshes[1].close()
    for mesh in (meshes[0], meshes[2]):
        with pytest.raises(LostPeersError):
            for _ in range(3):
                mesh.allgather(b"x" * length)


def test_a_rank_that_waits_can_be_told_to_give_up(meshes):
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(meshes[0].allgather, b"x")
        meshes[0].abort()
        with pytest.raises(LostPeersError):
            waiting.result(10)


def test_a_silent_rank_is_lost_after_the_time_out():
    left, right = socket.socketpair()
    mesh = Mesh(0, {1: left}, timeout=0.05)
    with right, pytest.raises(LostPeersError, match="silent"):
        mesh.allgather(b"x")
    mesh.close()


def test_giving_up_while_others_have_not_come():
    listener = Listener("127.0.0.1")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(listener.meet, 0, [listener.address, Address("127.0.0.1", 1)], TOKEN, 30.0)
        while not waiting.running():
            pass
        listener.abort()
        with pytest.raises(LostPeersError):
            waiting.result(10)


def test_who_is_not_reached_is_lost():
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound, but it does not listen
        address = Address(*closed.getsockname())
        listener = Listener("127.0.0.1")
        with pytest.raises(LostPeersError, match="could not meet"):
            listener.meet(1, [address, listener.address], TOKEN, 10.0)


@pytest.mark.parametrize("hello", [b"", b"short", b"x" * 72, b"\xff" * 72, TOKEN * 3, b"GET / HTTP/1.1\r\n" * 10])
def test_strangers_are_turned_away(hello):
    listeners = [Listener("127.0.0.1") for _ in range(2)]
    addresses = [listener.address for listener in listeners]
    with socket.create_connection((addresses[0].host, addresses[0].port)) as stranger, ThreadPoolExecutor(2) as pool:
        stranger.sendall(hello)
        stranger.shutdown(socket.SHUT_WR)
        made = list(pool.map(lambda at: listeners[at].meet(at, addresses, TOKEN, 10.0), range(2)))
    assert [mesh.size for mesh in made] == [2, 2]
    for mesh in made:
        mesh.close()


def test_strangers_who_say_nothing_hold_up_nobody():
    listeners = [Listener("127.0.0.1") for _ in range(2)]
    addresses = [listener.address for listener in listeners]
    strangers = [socket.create_connection((addresses[0].host, addresses[0].port)) for _ in range(100)]
    began = time.monotonic()
    with ThreadPoolExecutor(2) as pool:
        for mesh in pool.map(lambda at: listeners[at].meet(at, addresses, TOKEN, 30.0), range(2)):
            mesh.close()
    assert time.monotonic() - began < 5
    for stranger in strangers:
        stranger.close()


def test_who_listens_in_place_of_a_rank_is_not_told_the_token():
    """Somebody has got the port of a rank that died, and sends an answer that somebody else might have got."""
    received = bytearray()
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as pool:

        def impersonate():
            peer, _ = server.accept()
            with peer:
                peer.sendall(b"c" * 32)
                while len(received) < 72:
                    received.extend(peer.recv(72))
                peer.sendall(bytes(received[-32:]))

        pool.submit(impersonate)
        listener = Listener("127.0.0.1")
        with pytest.raises(LostPeersError, match="somebody else than rank 0"):
            listener.meet(1, [Address(*server.getsockname()), listener.address], TOKEN, 10.0)
    assert TOKEN not in received


def test_a_rank_of_another_training_is_a_stranger():
    listeners = [Listener("127.0.0.1") for _ in range(2)]
    addresses = [listener.address for listener in listeners]
    with ThreadPoolExecutor(2) as pool:
        waiting = pool.submit(listeners[0].meet, 0, addresses, TOKEN, 10.0)
        with pytest.raises(LostPeersError):
            listeners[1].meet(1, addresses, b"u" * 32, 10.0)
        listeners[0].abort()
        with pytest.raises(LostPeersError, match="another rank is lost"):
            waiting.result(10)


def test_a_rank_that_does_not_come_is_waited_for_no_longer_than_allowed():
    listener = Listener("127.0.0.1")
    with pytest.raises(LostPeersError, match="rank 1 has not come"):
        listener.meet(0, [listener.address, Address("127.0.0.1", 1)], TOKEN, 0.05)


def test_listening_is_on_one_interface_and_ends_with_the_meeting():
    def ports():
        return {c.laddr for c in psutil.Process().net_connections("tcp") if c.status == psutil.CONN_LISTEN}

    before = ports()
    listener = Listener("127.0.0.1")
    assert {address.ip for address in ports() - before} == {"127.0.0.1"}
    listener.close()
    for mesh in meet(2):
        mesh.close()
    assert ports() == before


def test_ports_are_taken_from_the_first_on():
    taken = Listener("127.0.0.1")
    following = Listener("127.0.0.1", taken.address.port)
    assert taken.address.port < following.address.port < taken.address.port + 1000
    taken.close()
    following.close()


def test_two_meetings_at_a_time_do_not_disturb_each_other():
    made = []
    threads = [threading.Thread(target=lambda: made.append(meet(2))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(made) == 4
    for mesh in [mesh for meeting in made for mesh in meeting]:
        mesh.close()
