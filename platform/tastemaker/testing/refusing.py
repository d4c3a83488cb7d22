"""How a contract says that something has to be refused; contracts are shipped, and pytest is not."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from tastemaker.errors import TastemakerError


@contextmanager
def refused(kind: type[TastemakerError], match: str) -> Iterator[None]:
    """Asserts that the block raises an error of a kind, whose text has what a regular expression matches.

    >>> from tastemaker.errors import DataError
    >>> with refused(DataError, match="no rows"):
    ...     raise DataError("no rows", mend="give some")
    """
    said: str | None = None
    try:
        yield
    except kind as error:
        said = str(error)
    assert said is not None, f"it was not refused, with {kind.__name__} about {match}"
    assert re.search(match, said), f"it was refused for another reason: {said}"
