from mltoolkit.util.joblib._sizing import HARMLESS_S, MAX_GROWTH, TARGET_S, BatchSizer


def test_first_batch_is_one_call():
    assert BatchSizer().size() == 1


def test_short_calls_grow_step_by_step_to_the_target():
    sizer = BatchSizer()
    sizes = []
    for _ in range(4):
        sizer.record(1, 0.005)
        sizes.append(sizer.size())
    assert sizes == [MAX_GROWTH, int(TARGET_S / 0.005), int(TARGET_S / 0.005), int(TARGET_S / 0.005)]


def test_tiny_calls_grow_at_once_to_a_batch_that_is_still_short():
    sizer = BatchSizer()
    sizer.record(1, 0.0001)
    assert sizer.size() == int(HARMLESS_S / 0.0001)
    sizer.record(200, 0.02)
    assert sizer.size() == min(int(TARGET_S / 0.0001), MAX_GROWTH * 200)


def test_long_calls_stay_alone():
    sizer = BatchSizer()
    sizer.record(1, 10 * TARGET_S)
    assert sizer.size() == 1


def test_slower_calls_shrink_batches_at_once():
    sizer = BatchSizer()
    for _ in range(4):
        sizer.record(10, 0.01)
        before = sizer.size()
    sizer.record(10, 10.0)
    assert sizer.size() == 1 < before


def test_size_follows_the_time_of_a_call_not_of_a_batch():
    one, many = BatchSizer(), BatchSizer()
    one.record(1, 0.02)
    many.record(50, 1.0)
    assert one.size() == many.size()


def test_without_growth_it_starts_again_from_one():
    sizer = BatchSizer()
    sizer.record(1, 0.005)
    assert sizer.size() == MAX_GROWTH
    assert sizer.size(may_grow=False) == 1
    assert sizer.size() == MAX_GROWTH


def test_calls_that_take_no_time_and_empty_reports_are_harmless():
    sizer = BatchSizer()
    sizer.record(0, 1.0)
    assert sizer.size() == 1
    sizer.record(5, 0.0)
    assert sizer.size() > MAX_GROWTH
