"""Versions of a catalogue as the registry tells of them, and what its aliases name at one look. How they are read is `client`'s matter."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from tastemaker.bundle.manifest import BundleRef


@dataclass(frozen=True, slots=True)
class Version:
    """One released bundle as the registry knows it."""

    number: int
    uri: str
    sha256: str
    created: str
    run_id: str | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)

    @property
    def ref(self) -> BundleRef:
        """What `Bundle.open` takes."""
        return BundleRef(self.uri, self.sha256)


@dataclass(frozen=True, slots=True)
class Named:
    """What the aliases name: None for a version that is no bundle.

    `created_ms` is when the catalogue's registered model was made, in ms since 1970; 0 where there is none. One that is deleted and made anew,
    or comes with another store, counts from 1 again: only with that time does a number tell a version.
    """

    created_ms: int
    aliases: Mapping[str, Version | None]

    def known(self, created_ms: int) -> dict[int, Version]:
        """The versions by number, where they are of a model that was made at `created_ms`; else none."""
        versions = self.aliases.values() if created_ms == self.created_ms else ()
        return {version.number: version for version in versions if version is not None}


def version_of(found: Any) -> Version:
    """What MLflow says of a version that was made of a bundle."""
    tags = found.tags
    return Version(
        number=int(found.version),
        uri=tags["tastemaker.uri"],
        sha256=tags["tastemaker.sha256"],
        created=datetime.fromtimestamp(found.creation_timestamp / 1000, UTC).isoformat(),
        run_id=found.run_id or None,
        metrics=json.loads(tags["tastemaker.metrics"]),
    )
