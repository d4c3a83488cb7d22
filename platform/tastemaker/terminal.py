"""What a person at a terminal sees: tables, progress with rate and time left, plain lines where there is no terminal."""

import json
import math
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager, nullcontext, redirect_stdout
from typing import Any, Literal, TypeVar

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

_PLAIN_WIDTH = 160
_LONG = 40
_READABLE = 8
console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else _PLAIN_WIDTH)
errors = Console(stderr=True, highlight=False, soft_wrap=True)

_PLAIN_LINE_EVERY_SECONDS = 10.0
T = TypeVar("T")


@contextmanager
def progress(description: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """A progress bar on stderr; yields a function that advances it by some steps."""
    if errors.is_terminal:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )  # fmt: skip

        columns = (
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(),
        )  # fmt: skip
        with Progress(*columns, console=errors, transient=True) as bar:
            task = bar.add_task(description, total=total)

            yield lambda steps: bar.advance(task, steps)
    else:
        yield _plain_progress(description, total)


def _plain_progress(description: str, total: int | None) -> Callable[[int], None]:
    started = last = time.monotonic()
    done = 0

    def advance(steps: int) -> None:
        nonlocal done, last
        done += steps
        now = time.monotonic()
        if now - last >= _PLAIN_LINE_EVERY_SECONDS:
            last = now
            of = f"/{total}" if total else ""
            errors.print(f"{description}: {done}{of}, {done / (now - started):.1f}/s", markup=False)

    return advance


def track(items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """The items, with a progress bar."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    with progress(description, total) as advance:
        for item in items:
            yield item
            advance(1)


def print_table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], to: Console = console
) -> None:
    """A table on stdout unless told; the first column is text, the others are numbers or sentences. Nothing in it is markup.

    Nothing is cut off: text goes on in further lines, and words with digits stay whole, though the table be wider than the terminal.
    """
    cells = [[str(cell) for cell in row] for row in rows]
    table = Table(title=Text(title, style="table.title"), title_justify="left", header_style="bold")
    for i, column in enumerate(columns):
        texts = [row[i] for row in cells]
        is_long = max(map(len, texts), default=0) > _LONG
        justify: Literal["left", "right"] = "left" if i == 0 or is_long else "right"
        width = _least_width([column, *texts])
        table.add_column(Text(column), justify=justify, min_width=width, overflow="fold")
    for row in cells:
        table.add_row(*map(Text, row))
    to.print(table)


def _least_width(texts: Iterable[str]) -> int:
    """Of a column: its longest number, and so much of other words as can be read."""
    words = [word for text in texts for word in text.split()]
    return max((_kept_whole(word) for word in words), default=1)


def _kept_whole(word: str) -> int:
    """How many cells of a word stand in one line.

    >>> _kept_whole("1,234,567"), _kept_whole("experiment")
    (9, 8)
    """
    is_number = any(map(str.isdigit, word)) and len(word) <= _LONG
    return cell_len(word) if is_number else min(cell_len(word), _READABLE)


def time_of(at_ms: int) -> str:
    """A time to the second, UTC.

    >>> time_of(1_795_703_442_999)
    '2026-11-26 14:30:42'
    """
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(at_ms / 1000))


@contextmanager
def stdout_kept(for_json: bool) -> Iterator[None]:
    """Where stdout is to hold one JSON value, sends what anything else prints meanwhile to stderr.

    Ray prints on stdout that a worker died, from a thread of its own and whatever it is told.
    """
    with redirect_stdout(sys.stderr) if for_json else nullcontext():
        yield


def print_json(value: Any) -> None:
    """JSON on stdout, for machines; null for a number that is not finite, which JSON has no word for."""
    json.dump(_finite(value), sys.stdout, indent=2, ensure_ascii=False, allow_nan=False)
    sys.stdout.write("\n")


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def wait_for_interrupt() -> None:
    """Returns never; Ctrl-C or SIGTERM raises KeyboardInterrupt.

    Ray's libraries have signals restart system calls: an endless wait would never come back to Python's handler.
    """
    never = threading.Event()
    while not never.wait(0.2):
        pass
