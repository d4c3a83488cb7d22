"""Small files of events and items, as people have them."""

from pathlib import Path
from typing import Any

from tastemaker.data.importers import Imported

NOW_MS = 1_700_000_000_000


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode(encoding))
    return path


def csv(tmp_path: Path, text: str) -> Path:
    return write(tmp_path / "events.csv", text)


def reasons(imported: Imported) -> list[tuple[Any, Any]]:
    return list(zip(imported.rejects["row"].to_pylist(), imported.rejects["reason"].to_pylist(), strict=True))


def latest(folder: Path) -> Path:
    write(folder / "ratings.csv", "userId,movieId,rating,timestamp\n1,31,2.5,1260759144\n7,2,4,1260759179\n")
    rows = [
        '31,"Dangerous, Minds (1995)",Drama',
        "2,Jumanji,Adventure|Fantasy",
        "9,Café (1995),(no genres listed)",
    ]
    write(folder / "movies.csv", "\n".join(["movieId,title,genres", *rows]) + "\n")
    return folder
