"""Connections among the ranks of one training: each with each, without a rank in the middle.

LightGBM's own sockets listen on all network interfaces, on ports that were free a moment ago, and read from a connection
that was closed for ever. These listen where the other ranks are and nowhere else, are bound before anybody is told of
them, admit nobody who does not know the token, and fail as soon as another rank is gone.
"""

from __future__ import annotations

import contextlib
import hmac
import secrets
import select
import selectors
import socket
import struct
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mltoolkit._boosting.errors import LostPeersError

__all__ = ["Address", "Listener", "Mesh"]

_SMALL = 32 * 1024  # what fits into the buffers of a socket whatever the other side does
_BUFFER = 4 * 1024 * 1024
_NONCE_BYTES = _PROOF_BYTES = 32
_PORTS_TO_TRY = 1000
_LENGTH = struct.Struct("<q")
#: Rank, challenge to the one who listens, and the answer to theirs.
_ANSWER = struct.Struct(f"<q{_NONCE_BYTES}s{_PROOF_BYTES}s")
_HELLO_S = 10.0  # how long somebody who has connected may take to say who they are
_MOST_CALLERS = 64
_LEAST_S = 0.001


@dataclass(frozen=True)
class Address:
    """Where a rank listens.

    Attributes
    ----------
    host : str
    port : int
    """

    host: str
    port: int


class _Caller:
    """Somebody who has connected, and is to show that they know the token."""

    def __init__(self, peer: socket.socket) -> None:
        self.peer = peer
        self.until = time.monotonic() + _HELLO_S
        self._challenge = secrets.token_bytes(_NONCE_BYTES)
        self._received = b""
        peer.setblocking(False)
        peer.send(self._challenge)

    def read(self, index: int, token: bytes) -> int | None:
        """Take what has come: the caller's rank, -1 if there is more to come, None for a stranger."""
        try:
            piece = self.peer.recv(_ANSWER.size - len(self._received))
            if not piece:
                return None
            self._received += piece
            if len(self._received) < _ANSWER.size:
                return -1
            rank, nonce, proof = _ANSWER.unpack(self._received)
            if rank < 0 or not hmac.compare_digest(proof, _proof(token, rank, index, self._challenge, nonce)):
                return None
            self.peer.send(_proof(token, index, rank, nonce, self._challenge))
        except BlockingIOError:
            return -1
        except OSError:
            return None
        return int(rank)


def _proof(token: bytes, own: int, other: int, asked: bytes, asking: bytes) -> bytes:
    """What only a rank that knows the token can answer to the other one's `asked`, and to nobody else."""
    return hmac.digest(token, _LENGTH.pack(own) + _LENGTH.pack(other) + asked + asking, "sha256")


class Listener:
    """Waits for the other ranks.

    Parameters
    ----------
    host : str
        Address of the interface on which the others reach this process.
    first_port : int, default=0
        The first free port from there on; 0 for any.
    """

    def __init__(self, host: str, first_port: int = 0) -> None:
        self._socket = _bind(host, first_port)
        self._socket.listen(128)
        self.address = Address(host, self._socket.getsockname()[1])
        self._aborted = threading.Event()
        self._sockets: list[socket.socket] = []

    def meet(self, index: int, addresses: Sequence[Address], token: bytes, timeout: float) -> Mesh:
        """Connect to the ranks before this one, wait for those after it, and stop listening.

        Parameters
        ----------
        index : int
            Place among the ranks.
        addresses : sequence of Address
            Where each of them listens.
        token : bytes
            Known to them and nobody else. It is never sent: both sides of a connection show that they know it.
        timeout : float
            Seconds to wait for another rank, now and later.

        Raises
        ------
        LostPeersError
            If one cannot be reached, or is somebody else.
        """
        peers: dict[int, socket.socket] = {}
        deadline = time.monotonic() + timeout
        try:
            for other in range(index):
                peers[other] = self._connect(index, other, addresses[other], token, deadline)
            self._admit(index, len(addresses), token, deadline, peers)
        except OSError as error:
            for peer in peers.values():
                peer.close()
            raise LostPeersError(f"Rank {index} could not meet the others: {error}") from error
        finally:
            self._socket.close()
        return Mesh(index, peers, timeout)

    def _connect(self, index: int, other: int, address: Address, token: bytes, deadline: float) -> socket.socket:
        peer = socket.create_connection((address.host, address.port), max(_LEAST_S, deadline - time.monotonic()))
        self._sockets.append(peer)
        try:
            challenge = bytearray(_NONCE_BYTES)
            _receive(peer, memoryview(challenge))
            nonce = secrets.token_bytes(_NONCE_BYTES)
            peer.sendall(_ANSWER.pack(index, nonce, _proof(token, index, other, bytes(challenge), nonce)))
            proof = bytearray(_PROOF_BYTES)
            _receive(peer, memoryview(proof))
            if not hmac.compare_digest(proof, _proof(token, other, index, nonce, bytes(challenge))):
                raise ConnectionRefusedError(f"at {address.host}:{address.port} is somebody else than rank {other}")
        except OSError:
            peer.close()
            raise
        return peer

    def _admit(self, index: int, size: int, token: bytes, deadline: float, peers: dict[int, socket.socket]) -> None:
        """Let the ranks after this one in; strangers who knock meanwhile hold up nobody."""
        callers: dict[socket.socket, _Caller] = {}
        self._socket.setblocking(False)
        with selectors.DefaultSelector() as selector:
            selector.register(self._socket, selectors.EVENT_READ)

            def turn_away(peer: socket.socket) -> None:
                selector.unregister(peer)
                del callers[peer]
                peer.close()

            try:
                while len(peers) < size - 1:
                    now = time.monotonic()
                    if now >= deadline:
                        missing = [at for at in range(size) if at != index and at not in peers]
                        raise TimeoutError(f"rank {missing[0]} has not come")
                    for peer in [peer for peer, caller in callers.items() if caller.until <= now]:
                        turn_away(peer)
                    until = min([deadline, *(caller.until for caller in callers.values())])
                    for key, _ in selector.select(until - now):
                        if key.fileobj is self._socket:
                            self._answer_the_door(selector, callers)
                            if len(callers) > _MOST_CALLERS:
                                turn_away(next(iter(callers)))
                            continue
                        caller = callers.get(key.fileobj)  # type: ignore[call-overload]
                        if caller is None:
                            continue
                        rank = caller.read(index, token)
                        if rank is None:
                            turn_away(caller.peer)
                        elif rank >= 0:
                            selector.unregister(caller.peer)
                            del callers[caller.peer]
                            if not index < rank < size or rank in peers:
                                caller.peer.close()
                                raise ConnectionAbortedError(f"rank {rank} has come twice")
                            peers[rank] = caller.peer
            finally:
                for caller in callers.values():
                    caller.peer.close()

    def _answer_the_door(self, selector: selectors.BaseSelector, callers: dict[socket.socket, _Caller]) -> None:
        try:
            peer, _ = self._socket.accept()
        except OSError as error:
            if not self._aborted.is_set() and not isinstance(error, (BlockingIOError, ConnectionAbortedError)):
                raise
            peer = None  # gone again, or nobody is waited for any more
        if self._aborted.is_set():
            if peer is not None:
                peer.close()
            raise ConnectionAbortedError("another rank is lost")
        if peer is None:
            return
        try:
            callers[peer] = _Caller(peer)
        except OSError:
            peer.close()
            return
        selector.register(peer, selectors.EVENT_READ)

    def abort(self) -> None:
        """From another thread: stop waiting."""
        self._aborted.set()
        for one in [self._socket, *self._sockets]:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()


class Mesh:
    """Connections of one rank to all others.

    Parameters
    ----------
    index : int
        Place of this rank.
    peers : dict of int to socket
        By place.
    timeout : float
        Seconds without a byte from a rank that is waited for, after which it counts as lost.
    """

    def __init__(self, index: int, peers: Mapping[int, socket.socket], timeout: float) -> None:
        self.index = index
        self.size = len(peers) + 1
        self.timeout = timeout
        self._peers = dict(sorted(peers.items()))
        for peer in self._peers.values():
            peer.settimeout(None)
            if peer.family != socket.AF_UNIX:
                peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
                peer.setsockopt(socket.SOL_SOCKET, option, _BUFFER)
            limit = struct.pack("ll", int(timeout), int(timeout % 1 * 1e6))
            for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
                peer.setsockopt(socket.SOL_SOCKET, option, limit)

    def exchange(self, outgoing: Mapping[int, Any], incoming: Mapping[int, memoryview]) -> None:
        """Send something to each of the others and receive something from each of them, at the same time.

        Parameters
        ----------
        outgoing : dict of int to bytes-like
            For each rank.
        incoming : dict of int to memoryview
            What is received from each rank fills it.

        Raises
        ------
        LostPeersError
            If the connection to one of them is closed or silent.
        """
        at = -1
        try:
            if max(map(len, outgoing.values()), default=0) <= _SMALL:
                for at, peer in self._peers.items():
                    peer.sendall(outgoing[at])
                for at, peer in self._peers.items():
                    if len(incoming[at]):
                        _receive(peer, incoming[at])
            else:
                self._exchange_large(outgoing, incoming)
        except BlockingIOError as error:
            raise LostPeersError(f"Rank {at} was silent for {self.timeout:g} s.") from error
        except OSError as error:
            raise LostPeersError(f"Lost the connection to another rank: {error}") from error

    def _exchange_large(self, outgoing: Mapping[int, Any], incoming: Mapping[int, memoryview]) -> None:
        """Send and receive as either becomes possible, since both sides would wait if both only sent."""
        to_send = {at: memoryview(data).cast("B") for at, data in outgoing.items() if len(data)}
        to_receive = {at: view for at, view in incoming.items() if len(view)}
        poll = select.poll()
        numbers = {peer.fileno(): at for at, peer in self._peers.items()}
        files = {at: number for number, at in numbers.items()}

        def watch(at: int) -> None:
            wanted = (select.POLLOUT if at in to_send else 0) | (select.POLLIN if at in to_receive else 0)
            if wanted:
                poll.register(files[at], wanted)
            else:
                poll.unregister(files[at])

        for at in {*to_send, *to_receive}:
            watch(at)
        while to_send or to_receive:
            events = poll.poll(self.timeout * 1000)
            if not events:
                raise BlockingIOError
            for number, event in events:
                at = numbers[number]
                peer = self._peers[at]
                done = False
                if at in to_receive and event & ~select.POLLOUT:
                    view = to_receive[at]
                    count = peer.recv_into(view, len(view), socket.MSG_DONTWAIT)
                    if not count:
                        raise ConnectionResetError(f"rank {at} closed it")
                    to_receive[at] = view[count:]
                    if count == len(view):
                        del to_receive[at]
                        done = True
                if at in to_send and event & ~select.POLLIN:
                    view = to_send[at]
                    with contextlib.suppress(BlockingIOError):
                        count = peer.send(view, socket.MSG_DONTWAIT)
                        to_send[at] = view[count:]
                        if count == len(view):
                            del to_send[at]
                            done = True
                if done:
                    watch(at)

    def allgather(self, data: bytes) -> list[bytes | bytearray]:
        """Give something to all ranks, each of any length, and return what each of them gave, by place."""
        others = list(self._peers)
        lengths = {at: bytearray(_LENGTH.size) for at in others}
        size = _LENGTH.pack(len(data))
        self.exchange(dict.fromkeys(others, size), {at: memoryview(length) for at, length in lengths.items()})
        parts = {at: bytearray(_LENGTH.unpack(length)[0]) for at, length in lengths.items()}
        if max([len(data), *map(len, parts.values())]) <= _SMALL:
            self.exchange(dict.fromkeys(others, data), {at: memoryview(part) for at, part in parts.items()})
        else:
            try:
                self._exchange_large(dict.fromkeys(others, data), {at: memoryview(part) for at, part in parts.items()})
            except OSError as error:
                raise LostPeersError(f"Lost the connection to another rank: {error}") from error
        return [data if at == self.index else parts[at] for at in range(self.size)]

    def part(self, indices: Sequence[int]) -> Mesh:
        """Return a mesh of some of the ranks, this one among them, over the same connections."""
        peers = {new: self._peers[old] for new, old in enumerate(indices) if old != self.index}
        return Mesh(list(indices).index(self.index), peers, self.timeout)

    def abort(self) -> None:
        """From another thread: let everything that waits fail."""
        for peer in self._peers.values():
            with contextlib.suppress(OSError):
                peer.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connections."""
        for peer in self._peers.values():
            peer.close()


def _receive(peer: socket.socket, view: memoryview) -> None:
    while view:
        count = peer.recv_into(view)
        if not count:
            raise ConnectionResetError("it was closed")
        view = view[count:]


def _bind(host: str, first_port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    candidates = range(first_port, min(first_port + _PORTS_TO_TRY, 65536)) if first_port else (0,)
    for port in candidates:
        one = socket.socket(family, socket.SOCK_STREAM)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            one.bind((host, port))
        except OSError:
            one.close()
            if not first_port:
                raise
            continue
        return one
    raise OSError(f"None of the ports {candidates[0]} to {candidates[-1]} of {host} is free.")
