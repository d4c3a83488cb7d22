"""What a bundle is made of: the one file that makes it exist. Not for its files' contents."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from tastemaker.errors import BundleError, CompatibilityError, IntegrityError
from tastemaker.index.config import IndexConfig, IndexKind, MeasuredIndex
from tastemaker.strict import Kept

SCHEMA_VERSION = 1
READABLE_SCHEMAS = frozenset({1})
"""This release's, and the previous release's once there is one."""

ITEM_TOWER = "item_tower.safetensors"
QUERY_TOWER = "query_tower.safetensors"

_SHA256 = r"^[0-9a-f]{64}$"
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*(\.[a-z0-9_-]+)+")


def code_revision() -> str:
    """Release of the code, and the commit where it runs from a git checkout."""
    try:
        release = version("tastemaker")
    except PackageNotFoundError:
        release = "unknown"
    git = Path(__file__).resolve().parents[3] / ".git"
    try:
        head = (git / "HEAD").read_text().strip()
        commit = (git / head.removeprefix("ref: ")).read_text().strip() if head.startswith("ref: ") else head
    except OSError:
        return release
    return f"{release}+g{commit[:12]}"


class TimeRange(Kept):
    """Events that a model was fitted on, both ends included; UTC milliseconds."""

    start_ms: int = Field(description="time of the oldest event")
    end_ms: int = Field(description="time of the newest event")


class DatasetInfo(Kept):
    """Where the models come from."""

    fingerprint: str = Field(description="SHA-256 of the events' and items' content")
    retrievers: TimeRange | None = Field(None, description="what the released retrievers were fitted on")
    ranker: TimeRange | None = Field(None, description="what the ranker's positives were taken from")


class IndexInfo(Kept):
    """What an index was built with."""

    tower: str = Field(description="file whose model made the vectors")
    tower_sha256: str = Field(pattern=_SHA256, description="that file's hash")
    kind: IndexKind = Field(description="flat, hnsw, ivf-flat or ivf-pq")
    num_items: int = Field(ge=1, description="vectors in it")
    dim: int = Field(ge=1, description="length of a vector")
    config: IndexConfig | None = Field(
        None, description="structure, and the efforts it is searched at; the release before wrote none"
    )
    measured: MeasuredIndex | None = Field(
        None, description="what a search found and cost, where it was measured"
    )


class FileInfo(Kept):
    """One file, found by its content."""

    sha256: str = Field(pattern=_SHA256, description="hash of the content and name of the blob")
    size: int = Field(ge=0, description="bytes")
    training_id: str | None = Field(None, description="the training that towers and indexes come from")
    num_rows: int | None = Field(None, ge=0, description="rows of a table")
    index: IndexInfo | None = Field(None, description="set for an index")


class BundleInfo(Kept):
    """What the one who releases a bundle says about it."""

    dataset: DatasetInfo = Field(description="where the models come from")
    recipe: str = Field(description="name of the recipe")
    training_id: str = Field(description="names the training; towers and index of one bundle share it")
    code_revision: str = Field(default_factory=code_revision, description="the code that trained it")
    feature_schema: dict[str, Any] = Field(
        default_factory=dict, description="vocabularies, hash rules, buckets"
    )
    metrics: dict[str, float] = Field(default_factory=dict, description="offline metrics, for people")


class Manifest(BundleInfo):
    """The whole of a bundle by name, size and hash."""

    schema_version: int = Field(description="of this file")
    catalogue: str = Field(description="whose bundle it is")
    created: str = Field(description="UTC, ISO 8601")
    files: dict[str, FileInfo] = Field(description="every file by its name")

    def to_bytes(self) -> bytes:
        """The manifest as stored."""
        text = json.dumps(
            self.model_dump(mode="json"), indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False
        )
        return text.encode()

    @classmethod
    def from_bytes(cls, content: bytes, origin: str) -> "Manifest":
        """The manifest in `content`, its names, and its parts' belonging together, checked.

        Raises:
            IntegrityError: Not a manifest, or with a name that could leave its folder.
            CompatibilityError: Another release's schema, or a tower and an index of different trainings.
        """
        try:
            schema = json.loads(content)["schema_version"]
        except (ValueError, KeyError, TypeError) as error:
            raise IntegrityError(f"{origin} is not a manifest", mend="publish the bundle again") from error
        if schema not in READABLE_SCHEMAS:
            limit = f"one of {sorted(READABLE_SCHEMAS)}"
            raise CompatibilityError(
                f"schema of {origin}", value=schema, limit=limit, mend="upgrade tastemaker"
            )
        try:
            manifest = cls.model_validate_json(content)
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(str(part) for part in first["loc"])
            raise IntegrityError(
                f"{origin}: {key}", value=str(first["input"])[:100], limit=first["msg"]
            ) from error
        for name in manifest.files:
            check_name(name)
        check_parts(manifest.files)
        return manifest


def check_name(name: str) -> None:
    """Lets pass a plain file name: lower case, with a suffix, of no folder.

    Raises:
        IntegrityError: The name is something else, such as a path.
    """
    if len(name) > 100 or not _NAME.fullmatch(name):
        limit = "a plain name such as 'items.parquet' (a-z, 0-9, '_', '-', '.')"
        raise IntegrityError(
            "name of a bundle's file", value=name, limit=limit, mend="publish the bundle again"
        )


def check_parts(files: Mapping[str, FileInfo]) -> None:
    """Lets pass files that belong together.

    Raises:
        CompatibilityError: Towers or indexes of different trainings, or an index that another tower made, or
            one of another number of items than the catalogue's table.
    """
    towers = {n: f.training_id for n, f in files.items() if is_tower(n)}
    for name, file in files.items():
        if file.index is not None:
            _check_index(name, file, file.index, files)
    if len(set(towers.values())) > 1:
        _refuse("the towers are of different trainings", towers)


def is_tower(name: str) -> bool:
    """Whether this file must be of the same training as the index."""
    return name.endswith("_tower.safetensors")


def _check_index(name: str, file: FileInfo, index: IndexInfo, files: Mapping[str, FileInfo]) -> None:
    tower = files.get(index.tower)
    if tower is None or tower.sha256 != index.tower_sha256:
        found = tower.sha256[:12] if tower else "absent"
        _refuse(f"{name} was built with {index.tower} {index.tower_sha256[:12]}", found)
    if is_tower(index.tower):
        for other, its in files.items():
            if is_tower(other) and its.training_id != file.training_id:
                _refuse(f"{name} is of training {file.training_id}, {other} of another", its.training_id)
    items = files.get("items.parquet")
    if items is not None and items.num_rows != index.num_items:
        _refuse(f"{name} holds {index.num_items} items, items.parquet another number", items.num_rows)


def _refuse(what: str, value: object) -> None:
    raise CompatibilityError(
        what, value=value, mend="publish towers, items and index of one training together"
    )


@dataclass(frozen=True, slots=True)
class BundleRef:
    """Names one released bundle: where its manifest lies in the store, and the hash of it."""

    uri: str
    sha256: str

    @property
    def bundle_id(self) -> str:
        """Short name: the first 12 of the manifest's SHA-256."""
        return self.sha256[:12]


def bad_bundle(what: str, error: Exception) -> BundleError:
    """The error for content that cannot be put into a bundle."""
    return BundleError(what, value=str(error), mend="give plain numbers, text and tables")
