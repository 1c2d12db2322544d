"""The pool's decisions: who gets which chunk, what is taken back, what a lost process leaves."""

from __future__ import annotations

import pytest

from mltoolkit.util.multiprocessing._dispatch import _MAX_QUEUED, STUCK_S, Dispatcher, Slot
from mltoolkit.util.multiprocessing._results import Chunk

SHORT_S = 1e-6
LONG_S = 1.0


def make(num_slots=2, num_chunks=100, elapsed=None, queueing=True):
    """A dispatcher with pending chunks; its workers have been as fast as `elapsed` says."""
    dispatcher = Dispatcher(queueing)
    slots = [Slot(f"worker {i}") for i in range(num_slots)]
    dispatcher.slots = set(slots)
    if elapsed is not None:
        dispatcher.finish(slots[0], -1, 0.0, elapsed)
    dispatcher.pending.extend(Chunk(None, i, [i]) for i in range(num_chunks))
    return dispatcher, slots


def assign_all(dispatcher, now=0.0):
    assigned = []
    while (assignment := dispatcher.assign(now)) is not None:
        assigned.append(assignment)
    return assigned


def loads(slots):
    return sorted(len(slot.chunks) for slot in slots)


def indices(chunks):
    return [chunk.index for chunk in chunks]


@pytest.mark.parametrize("elapsed", [None, LONG_S])
def test_one_chunk_each_unless_they_are_known_to_be_short(elapsed):
    dispatcher, slots = make(elapsed=elapsed)
    assign_all(dispatcher)
    assert loads(slots) == [1, 1]


def test_short_chunks_are_queued_evenly():
    dispatcher, slots = make(elapsed=SHORT_S, num_chunks=1000)
    assigned = assign_all(dispatcher)
    assert loads(slots) == [_MAX_QUEUED, _MAX_QUEUED]
    assert [chunk.index for _, _, chunk in assigned] == list(range(2 * _MAX_QUEUED))


def test_queueing_can_be_ruled_out():
    dispatcher, slots = make(elapsed=SHORT_S, queueing=False)
    assign_all(dispatcher)
    assert loads(slots) == [1, 1]


def test_the_depth_follows_the_durations():
    dispatcher, [slot, _] = make()
    depths = []
    for elapsed in (SHORT_S, LONG_S, *[SHORT_S] * 100):
        dispatcher.finish(slot, -1, 0.0, elapsed)
        depths.append(dispatcher.depth)
    assert depths[0] == _MAX_QUEUED
    assert depths[1] == 1
    assert depths[-1] == _MAX_QUEUED


def test_a_finished_chunk_makes_room():
    dispatcher, _ = make()
    (slot, ticket, chunk), _ = assign_all(dispatcher)
    assert dispatcher.finish(slot, ticket, 1.0, LONG_S) is chunk
    assert dispatcher.finish(slot, ticket, 1.0) is None
    [(again, _, following)] = assign_all(dispatcher, 1.0)
    assert again is slot
    assert following.index == 2


def test_what_waits_behind_a_long_chunk_is_taken_back_and_goes_elsewhere():
    dispatcher, slots = make(elapsed=SHORT_S, num_chunks=8)
    assign_all(dispatcher)
    first, second = sorted(slots, key=lambda slot: next(iter(slot.chunks)))
    assert dispatcher.stuck(STUCK_S / 2) == []
    for ticket in list(second.chunks):
        dispatcher.finish(second, ticket, STUCK_S, SHORT_S)
    assert dispatcher.hungry()
    now = 2 * STUCK_S
    [(slot, tickets)] = dispatcher.stuck(now)
    assert slot is first
    assert tickets == list(first.chunks)
    assert len(tickets) == 4
    assert dispatcher.stuck(now) == []
    dispatcher.give_back(first, tickets[1:])
    first.taking_back = False
    assert indices(dispatcher.pending) == [2, 4, 6]
    assert {slot for slot, _, _ in assign_all(dispatcher, now)} == {second}


def test_what_has_been_answered_does_not_come_back():
    dispatcher, [slot] = make(num_slots=1, elapsed=SHORT_S, num_chunks=4)
    assign_all(dispatcher)
    [(_, tickets)] = dispatcher.stuck(1.0)
    dispatcher.finish(slot, tickets[1], 1.0, SHORT_S)
    dispatcher.give_back(slot, tickets[1:3])
    assert indices(slot.chunks.values()) == [0, 3]
    assert indices(dispatcher.pending) == [2]


def test_a_worker_that_lives_is_not_buried():
    dispatcher, [slot, _] = make()
    assign_all(dispatcher)
    assert dispatcher.bury(slot) == (False, None)
    assert slot in dispatcher.slots


def test_one_casualty_is_to_blame():
    dispatcher, _ = make(num_chunks=2)
    (slot, ticket, chunk), _ = assign_all(dispatcher)
    error = RuntimeError("gone")
    dispatcher.lose(slot, [ticket], error)
    assert dispatcher.bury(slot) == (True, chunk)
    assert slot.lost is error
    assert slot not in dispatcher.slots
    assert not dispatcher.pending
    assert dispatcher.bury(slot) == (False, None)


def test_several_casualties_run_again_alone():
    dispatcher, [slot] = make(num_slots=1, elapsed=SHORT_S, num_chunks=4)
    tickets = [ticket for _, ticket, _ in assign_all(dispatcher)]
    dispatcher.lose(slot, tickets[1:3], RuntimeError("gone"))
    assert dispatcher.bury(slot) == (False, None)
    assert dispatcher.assign(0.0) is None
    # An answer that was on its way counts.
    assert dispatcher.finish(slot, tickets[0], 0.0, SHORT_S).index == 0
    dispatcher.lose(slot, tickets[3:], RuntimeError("gone"))
    assert dispatcher.bury(slot) == (True, None)
    assert indices(dispatcher.pending) == [1, 2, 3]
    fresh = Slot("fresh")
    dispatcher.slots.add(fresh)
    for index in (1, 2, 3):
        [(_, ticket, chunk)] = assign_all(dispatcher)
        assert chunk.index == index
        dispatcher.finish(fresh, ticket, 0.0, SHORT_S)


def test_nothing_is_sent_along_with_a_chunk_that_runs_alone():
    dispatcher, [slot] = make(num_slots=1, elapsed=SHORT_S, num_chunks=2)
    dispatcher.pending[1].alone = True
    [(_, ticket, _)] = assign_all(dispatcher)
    assert dispatcher.assign(0.0) is None
    dispatcher.finish(slot, ticket, 0.0, SHORT_S)
    dispatcher.pending.append(Chunk(None, 2, [2]))
    [(_, _, chunk)] = assign_all(dispatcher)
    assert chunk.alone
