from mltoolkit.util.joblib._window import QUICK_S, ConsumerWindow


def test_without_a_limit_nothing_is_held_back():
    window = ConsumerWindow(None, ordered=True)
    marks = [window.start(1) for _ in range(100)]
    for mark in marks:
        window.end(mark, 0.0)
    assert not window.is_full
    assert not window.is_limited
    assert window.batches_may_grow(100.0)


def test_ordered_batches_leave_when_all_their_results_are_taken():
    window = ConsumerWindow(2, ordered=True)
    first, second = window.start(3), window.start(2)
    assert window.is_full
    window.end(second, 0.0)
    window.end(first, 0.0)
    window.take(2, 1.0)
    assert window.is_full
    window.take(3, 1.0)
    assert not window.is_full
    window.start(1)
    assert window.is_full


def test_unordered_batches_leave_as_they_end():
    window = ConsumerWindow(2, ordered=False)
    first, second = window.start(3), window.start(1)
    window.take(0, 0.0)
    assert window.is_full
    window.end(second, 0.0)
    window.take(1, 0.0)  # of the second batch, which ended first
    assert not window.is_full
    window.start(1)
    window.end(first, 0.0)
    window.take(3, 0.0)
    assert window.is_full


def test_batches_grow_after_a_window_of_quickly_taken_ones():
    window = ConsumerWindow(2, ordered=True)
    for consumed, expected in enumerate((False, True, True), start=1):
        window.end(window.start(1), now=0.0)
        window.take(consumed, now=QUICK_S / 2)
        assert window.batches_may_grow(QUICK_S) is expected


def test_a_slow_consumer_stops_the_growth():
    window = ConsumerWindow(1, ordered=True)
    window.end(window.start(1), now=0.0)
    window.take(1, now=0.0)
    assert window.batches_may_grow(0.0)
    window.end(window.start(8), now=1.0)
    assert window.batches_may_grow(1.0)
    assert not window.batches_may_grow(1.0 + 2 * QUICK_S)  # it lies there
    window.take(9, now=5.0)
    assert not window.batches_may_grow(5.0)  # it lay there


def test_a_batch_that_is_still_running_says_nothing_about_the_consumer():
    window = ConsumerWindow(1, ordered=True)
    window.end(window.start(1), now=0.0)
    window.take(1, now=0.0)
    window.start(1)
    assert window.batches_may_grow(1000.0)
