"""Making batches ahead of the step that needs them."""

import queue
import threading
from collections.abc import Generator, Iterator
from typing import Any, TypeVar

T = TypeVar("T")


def prefetched(source: Iterator[T], depth: int) -> Generator[T]:
    """What `source` gives, of which a thread has up to `depth` ready; an error of `source` is raised in its place.

    The thread ends with the iterator: when it is used up, closed or dropped.
    """
    if depth == 0:
        yield from source
        return
    ready: queue.SimpleQueue[tuple[bool, Any]] = queue.SimpleQueue()
    free, closed = threading.Semaphore(depth), threading.Event()

    def fill() -> None:
        try:
            while free.acquire() and not closed.is_set():
                ready.put((True, next(source)))
        except StopIteration:
            ready.put((False, None))
        except BaseException as error:  # noqa: BLE001 (the consumer raises it)
            ready.put((False, error))

    thread = threading.Thread(target=fill, name="prefetch", daemon=True)
    thread.start()
    try:
        while (found := ready.get())[0]:
            free.release()
            yield found[1]
        if found[1] is not None:
            raise found[1]
    finally:
        closed.set()
        free.release()
        thread.join()
