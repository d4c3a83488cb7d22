import itertools
import threading

import pytest

from tastemaker.errors import DataError
from tastemaker_training.rows.prefetching import prefetched


def prefetch_threads():
    return [thread for thread in threading.enumerate() if thread.name == "prefetch"]


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_prefetching_gives_what_its_source_gives_and_leaves_no_thread(depth):
    assert list(prefetched(iter(range(50)), depth)) == list(range(50))
    assert not prefetch_threads()


def test_prefetching_makes_no_more_than_its_depth_ahead_and_ends_when_closed():
    made, full = [], threading.Event()

    def source():
        for number in itertools.count():
            made.append(number)
            if number == 3:
                full.set()
            yield number

    ahead = prefetched(source(), 3)
    assert next(ahead) == 0
    assert full.wait(30)
    assert made == [0, 1, 2, 3]  # one was taken, three are ready
    assert len(prefetch_threads()) == 1
    ahead.close()
    assert not prefetch_threads()


@pytest.mark.parametrize("depth", [0, 2])
def test_an_error_is_raised_where_it_happened(depth):
    def source():
        yield 1
        raise DataError("row 2")

    ahead = prefetched(source(), depth)
    assert next(ahead) == 1
    with pytest.raises(DataError, match="row 2"):
        next(ahead)
    assert not prefetch_threads()
