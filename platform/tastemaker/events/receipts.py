"""What an erasure leaves behind: a receipt, which names the user by the hash of the id alone."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tastemaker.errors import DataError
from tastemaker.home import Home, write_json
from tastemaker.types import catalogue_name


@dataclass(frozen=True, slots=True)
class Receipt:
    """What an erasure removed, by kind.

    `bundles` are the versions whose data reach beyond the user's first event: those that may have learned of it.
    """

    receipt: str
    catalogue: str
    user_sha256: str
    done: str
    removed: dict[str, int]
    bundles: list[int]

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)


def write_receipt(home: Home, receipt: Receipt) -> None:
    """Keeps a receipt under the home's `erasures/`."""
    file = _file(home, receipt.catalogue, receipt.receipt)
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_json(file, receipt.as_dict())


def read_receipt(home: Home, catalogue: str, name: str) -> Receipt | None:
    """A receipt; None while its erasure is not done, or where there never was one.

    Raises:
        DataError: It cannot be read.
    """
    if not name.replace("-", "").isalnum():  # no name of ours, and no path
        return None
    try:
        return Receipt(**json.loads(_file(home, catalogue, name).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise DataError(
            f"receipt {name} cannot be read", value=str(error), mend="look at the file"
        ) from error


def _file(home: Home, catalogue: str, name: str) -> Path:
    return home / "erasures" / catalogue_name(catalogue) / f"{name}.json"
