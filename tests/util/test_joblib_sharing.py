"""How calls are pickled: what is shared, when it is put again, and what travels beside the bytes."""

import pickle

import pytest

np = pytest.importorskip("numpy")

from mltoolkit.util.joblib import _sharing  # noqa: E402
from mltoolkit.util.joblib._sharing import ArraySharer, fingerprint  # noqa: E402

LIMIT = 10_000


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        self.now += 1.0
        return self.now


@pytest.fixture
def puts(monkeypatch):
    """What was put, in order; a reference is the position in this list."""
    stored = []

    def put(array):
        stored.append(array.copy())
        return len(stored) - 1

    monkeypatch.setattr(_sharing.mltoolkit, "put", put)
    return stored


@pytest.fixture
def sharer(puts):
    return ArraySharer(LIMIT, Clock())


def load(message, stored):
    buffers = []
    for ref in message.buffers:
        array = stored[ref].copy()
        array.flags.writeable = False
        buffers.append(array)
    return _sharing.loads(message.blob, message.carried, buffers)


def test_a_large_array_is_put_once(sharer, puts):
    array = np.arange(5000.0)
    first = sharer.dumps([(array, 1)], captured_at=0)
    second = sharer.dumps([(array, 2), (array, 3)], captured_at=0)
    assert len(puts) == 1
    assert len(first.blob) < 1000
    ((loaded, one),) = load(first, puts)
    np.testing.assert_array_equal(loaded, array)
    assert one == 1
    assert not loaded.flags.writeable
    pair = load(second, puts)
    assert pair[0][0] is pair[1][0]


def test_a_small_array_travels_inline_and_stays_writable(sharer, puts):
    loaded = load(sharer.dumps(np.arange(10.0), 0), puts)
    assert not puts
    loaded[0] = 7.0


def test_none_shares_nothing(puts):
    loaded = load(ArraySharer(None).dumps(np.zeros(10**6), 0), puts)
    assert not puts
    loaded[0] = 7.0


@pytest.mark.parametrize(
    "array",
    [
        np.asfortranarray(np.arange(12000.0).reshape(120, 100)),
        np.arange(24000.0).reshape(120, 200)[:, ::2],
        np.arange(12000).astype("datetime64[s]"),
        np.zeros(3000, dtype=[("a", "i4"), ("b", "f8")]),
        np.broadcast_to(np.arange(100.0), (120, 100)),
    ],
    ids=["fortran", "strided", "datetime", "records", "broadcast"],
)
def test_arrays_of_any_layout_are_shared(sharer, puts, array):
    messages = [sharer.dumps({"x": [array]}, captured_at) for captured_at in (0, 0, 100)]
    assert len(puts) == 1
    for message in messages:
        loaded = load(message, puts)["x"][0]
        np.testing.assert_array_equal(loaded, array)
        assert loaded.dtype == array.dtype


def test_memory_maps_are_shared_as_arrays(sharer, puts, tmp_path):
    path = tmp_path / "array.bin"
    np.arange(5000.0).tofile(path)
    array = np.memmap(path, dtype=np.float64, mode="r")
    strided = array[::2]
    sharer.dumps((array, strided), 0)
    loaded = load(sharer.dumps((array, strided), 100), puts)
    path.unlink()
    assert len(puts) == 2
    for result, expected in zip(loaded, (array, strided), strict=True):
        assert type(result) is np.ndarray
        np.testing.assert_array_equal(result, expected)


def test_object_arrays_are_pickled_by_value(sharer, puts):
    array = np.array([f"word {i}" for i in range(5000)], dtype=object)
    np.testing.assert_array_equal(load(sharer.dumps(array, 0), puts), array)
    assert not puts


def test_data_frames_and_sparse_matrices_are_shared_by_their_arrays(sharer, puts):
    pd = pytest.importorskip("pandas")
    sparse = pytest.importorskip("scipy.sparse")
    frame = pd.DataFrame(np.arange(20000.0).reshape(2000, 10), columns=list("abcdefghij"))
    matrix = sparse.random(300, 300, density=0.2, format="csr", random_state=0)
    for captured_at in (0, 0, 100):
        loaded_frame, loaded_matrix = load(sharer.dumps((frame, matrix), captured_at), puts)
        pd.testing.assert_frame_equal(loaded_frame, frame)
        assert (loaded_matrix != matrix).nnz == 0
    assert 1 <= len(puts) <= 4


def test_an_array_changed_in_place_is_put_again(sharer, puts):
    array = np.zeros(5000)
    sharer.dumps(array, captured_at=0)
    array[4321] = 1.0
    loaded = load(sharer.dumps(array, captured_at=100), puts)
    assert len(puts) == 2
    assert loaded[4321] == 1.0


def test_a_strided_array_changed_in_place_is_put_again(sharer, puts):
    base = np.zeros((200, 100))
    array = base[:, ::2]
    sharer.dumps(array, captured_at=0)
    base[7, 4] = 1.0
    loaded = load(sharer.dumps(array, captured_at=100), puts)
    assert loaded[7, 2] == 1.0


def test_batches_taken_together_are_checked_together(sharer, puts, monkeypatch):
    array = np.zeros(5000)
    sharer.dumps(array, captured_at=0)
    monkeypatch.setattr(_sharing, "fingerprint", lambda view: pytest.fail("checked again"))
    sharer.dumps(array, captured_at=0)


def test_memory_of_a_shared_array_is_not_reused(sharer, puts):
    for value in range(20):
        array = np.full(5000, float(value))  # the previous one would be freed here and its address taken
        assert load(sharer.dumps(array, captured_at=0), puts)[0] == value
    assert len(puts) == 20


def test_clear_lets_go(sharer, puts):
    sharer.dumps(np.zeros(5000), 0)
    assert len(sharer) == 1
    sharer.clear()
    assert len(sharer) == 0


@pytest.mark.parametrize("n_bytes", [0, 1, 7, 4096 * 8 - 1, 4096 * 8, 4096 * 8 * 3 + 5])
def test_fingerprint_sees_each_byte(n_bytes):
    view = np.random.default_rng(0).integers(0, 256, n_bytes, dtype=np.uint8)
    before = fingerprint(view)
    for position in {0, n_bytes // 2, n_bytes - 1} if n_bytes else ():
        view[position] ^= 1
        assert fingerprint(view) != before
        view[position] ^= 1
    assert fingerprint(view) == before


def test_fingerprint_sees_exchanged_words_and_rows():
    words = np.random.default_rng(0).integers(0, 2**63, 4096 * 4, dtype=np.uint64)
    before = fingerprint(words.view(np.uint8))
    swapped = words.copy()
    swapped[[3, 9]] = swapped[[9, 3]]
    rows = words.reshape(4, 4096)[[1, 0, 2, 3]].reshape(-1)
    assert len({before, fingerprint(swapped.view(np.uint8)), fingerprint(rows.view(np.uint8))}) == 3


def test_results_are_loaded_writable():
    from mltoolkit.util.joblib._worker import load_results

    message = _sharing.dump([np.arange(100_000.0), 5])
    for buffer in message.buffers:
        buffer.flags.writeable = False  # as the object store hands them out
    array, five = load_results(message)
    array[0] = 9.0
    assert five == 5


def test_what_cannot_be_pickled_raises(sharer):
    with pytest.raises((pickle.PicklingError, TypeError)):
        sharer.dumps(pytest.importorskip("threading").Lock(), 0)
