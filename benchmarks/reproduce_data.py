"""MovieLens as the reproductions read it: rows in file order, ids numbered from 0, cores."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout
from pyarrow import csv
from report import ROOT

from tastemaker.data.downloads import download_folder, fetch, find_download
from tastemaker.home import Home
from tastemaker.models.log import Log

HOME = ROOT / "benchmarks" / "out" / "home"
WAIT_SECONDS = 600.0
"""For another run's download of a few MB."""


@dataclass(frozen=True)
class Ratings:
    """Rows in the order of the file; `user_ids` and `item_ids` are those of the file, in order of their numbers."""

    user_N: np.ndarray
    item_N: np.ndarray
    rating_N: np.ndarray
    timestamp_s_N: np.ndarray
    user_ids: list[str]
    item_ids: list[str]

    def __len__(self) -> int:
        return len(self.user_N)

    @property
    def num_users(self) -> int:
        return len(self.user_ids)

    @property
    def num_items(self) -> int:
        return len(self.item_ids)

    def where(self, kept_N: np.ndarray) -> "Ratings":
        """Some rows; users and items that have none left are gone, the others numbered anew in the same order."""
        user_rows, user_N = np.unique(self.user_N[kept_N], return_inverse=True)
        item_rows, item_N = np.unique(self.item_N[kept_N], return_inverse=True)
        return replace(
            self, user_N=user_N, item_N=item_N, rating_N=self.rating_N[kept_N],
            timestamp_s_N=self.timestamp_s_N[kept_N], user_ids=[self.user_ids[row] for row in user_rows],
            item_ids=[self.item_ids[row] for row in item_rows],
        )  # fmt: skip

    def core(self, least: int) -> "Ratings":
        """What is left when users and items of fewer rows are taken out until there are none."""
        found = self
        while True:
            enough_N = np.bincount(found.user_N)[found.user_N] >= least
            enough_N &= np.bincount(found.item_N)[found.item_N] >= least
            if enough_N.all():
                return found
            found = found.where(enough_N)

    def log(self, rows: np.ndarray | slice = slice(None)) -> Log:
        """Some rows as what models learn from, with all users and items."""
        return Log.of(
            self.user_N[rows], self.item_N[rows], num_users=self.num_users, num_items=self.num_items,
            value_N=self.rating_N[rows], timestamp_ms_N=1000 * self.timestamp_s_N[rows],
        )  # fmt: skip


def folder(name: str) -> Path:
    """Where a data set lies; it is downloaded where it is not there, once however many runs begin at the same moment.

    Raises:
        filelock.Timeout: Another run's download takes longer than `WAIT_SECONDS`.
    """
    home = Home.make(HOME)
    found = download_folder(home, name)
    with _turn(home / "run" / "reproductions.lock"):
        fetch(find_download(name), home, found)
    return found


@contextmanager
def _turn(path: Path) -> Iterator[None]:
    """Behind the run that is at it: `fetch` itself refuses where another is under way."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"another run fetches data: waiting for it, at most {WAIT_SECONDS:.0f} s", file=sys.stderr)
        lock.acquire(timeout=WAIT_SECONDS)
    try:
        yield
    finally:
        lock.release()


def ratings(name: str) -> Ratings:
    """ml-1m or ml-100k, whole. Users and items are numbered by the order of their ids as numbers."""
    options = csv.ParseOptions(delimiter="\t", quote_char=False)
    table = csv.read_csv(folder(name) / f"{name}.inter", parse_options=options)
    table = table.rename_columns([column.partition(":")[0] for column in table.column_names])
    ids, rows = {}, {}
    for column in ("user_id", "item_id"):
        values, rows[column] = np.unique(table.column(column).to_numpy(), return_inverse=True)
        ids[column] = [str(value) for value in values]
    return Ratings(
        rows["user_id"], rows["item_id"], table.column("rating").to_numpy().astype(np.float32),
        table.column("timestamp").to_numpy().astype(np.int64), ids["user_id"], ids["item_id"],
    )  # fmt: skip
