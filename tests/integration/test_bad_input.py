"""What a user gets for bad input: one clear line on stderr, the right exit code, no traceback, nothing half-written."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tastemaker.home import Home

USAGE, FAILURE = 2, 1


def tastemaker(home: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("TASTEMAKER_")}
    return subprocess.run(
        [sys.executable, "-m", "tastemaker.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=clean | {"TASTEMAKER_HOME": str(home), "OMP_NUM_THREADS": "1"} | environment,
    )


def refused(result: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    assert result.returncode == code, result.stderr
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: ")
    for word in words:
        assert word in lines[0]


def table(path: Path, *rows: str, header: str = "userId,movieId,rating,timestamp") -> Path:
    folder = path / "ml"
    folder.mkdir()
    (folder / "ratings.csv").write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    (folder / "movies.csv").write_text(
        "movieId,title,genres\n1,Toy Story (1995),Animation\n2,Heat (1995),Crime\n"
    )
    return folder


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("no-such-command",), ("no-such-command",)),
        (("data", "import", "--no-such-option"), ("no-such-option",)),
        (("--config", "missing.yaml", "config", "show"), ("missing.yaml",)),
        (("--catalogue", "No Spaces", "config", "show"), ("No Spaces", "a-z")),
    ],
)
def test_misuse_is_exit_code_two(tmp_path: Path, arguments: tuple[str, ...], words: tuple[str, ...]) -> None:
    refused(tastemaker(tmp_path / "home", *arguments), USAGE, *words)


def test_an_unknown_config_key_names_file_key_and_the_known_ones(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("gateway: {prot: 1}\n")
    refused(
        tastemaker(tmp_path / "home", "--config", str(file), "config", "show"),
        USAGE, str(file), "gateway.prot", "port", "remove or rename it",
    )  # fmt: skip


def test_a_wrong_value_in_the_environment_names_the_variable(tmp_path: Path) -> None:
    result = tastemaker(tmp_path / "home", "config", "show", TASTEMAKER_GATEWAY__PORT="99999")
    refused(result, USAGE, "TASTEMAKER_GATEWAY__PORT", "99999", "65535")


@pytest.mark.parametrize(
    ("rows", "header", "words"),
    [
        ((), "userId,movieId,rating,timestamp", ("empty",)),
        (("1,1,3",), "userId,movieId,rating", ("timestamp",)),
        (("1,1,3,now",), "userId,movieId,rating,timestamp", ("timestamp",)),
    ],
)
def test_an_unusable_table_is_one_line_and_leaves_nothing(
    tmp_path: Path, rows: tuple[str, ...], header: str, words: tuple[str, ...]
) -> None:
    home = tmp_path / "home"
    result = tastemaker(home, "data", "import", str(table(tmp_path, *rows, header=header)))
    assert result.returncode in (USAGE, FAILURE)
    refused(result, result.returncode, *words)
    assert not list((home / "events").glob("*/imported"))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "nowhere"
    result = tastemaker(tmp_path / "home", "data", "import", str(missing))
    refused(result, result.returncode, str(missing))
    assert result.returncode in (USAGE, FAILURE)


def test_bad_rows_are_rejected_with_their_reason_and_good_ones_stay(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    folder = table(
        tmp_path,
        "1,1,4.0,978300760",
        "1,2,nan,978300761",
        "2,1,3.0,-5",
        "2,2,3.0,99999999999",
        "3,1,5.0,978300762",
        "3,1,5.0,978300762",
        "é,2,5.0,978300763",
    )
    home = tmp_path / "home"
    result = tastemaker(home, "data", "import", str(folder))
    assert result.returncode == 0, result.stderr
    (imported,) = (home / "events").glob("*/imported")
    kept = pq.read_table(imported / "interactions.parquet")
    rejects = pq.read_table(imported / "rejects.parquet")
    assert sorted(zip(kept["user_id"].to_pylist(), kept["item_id"].to_pylist(), strict=True)) == [
        ("1", "1"),
        ("3", "1"),
        ("é", "2"),
    ]
    assert rejects.num_rows == 4
    assert all(rejects["reason"].to_pylist())


def test_training_without_data_says_what_to_do(tmp_path: Path) -> None:
    result = tastemaker(tmp_path / "home", "train", "movielens")
    refused(result, FAILURE, "import")


def test_an_unknown_recipe_names_the_known_ones(tmp_path: Path) -> None:
    refused(tastemaker(tmp_path / "home", "train", "no-such-recipe"), USAGE, "no-such-recipe", "movielens")


def test_promoting_a_version_that_does_not_exist_is_a_failure(
    tmp_path: Path, make_home: Callable[[Path], Home]
) -> None:
    make_home(tmp_path / "home")
    refused(tastemaker(tmp_path / "home", "promote", "7", "--to", "champion"), FAILURE, "7")


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = tastemaker(tmp_path / "home", "serve", TASTEMAKER_GATEWAY__PORT=str(port))
    refused(result, FAILURE, str(port))


def test_a_folder_that_holds_other_things_is_no_home(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("keep me")
    refused(tastemaker(tmp_path, "init"), USAGE, str(tmp_path))
    assert [p.name for p in tmp_path.iterdir()] == ["letter.txt"]


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    result = tastemaker(tmp_path / "home", "--debug", "data", "import", str(tmp_path / "nowhere"))
    assert "Traceback" in result.stderr
    assert result.returncode in (USAGE, FAILURE)
