"""Manifests that no version names, blobs that no manifest names, and what writing left: what a bundle store need not keep."""

from collections.abc import Iterator, Sequence, Set

from tastemaker.bundle.sweeping import Lying, Sweeping
from tastemaker.registry.versions import Version
from tastemaker.retention.gone import Gone


def doomed_manifests(sweeping: Sweeping, catalogue: str, left: Sequence[Version]) -> list[Gone]:
    """Old manifests of a catalogue that no version of it names.

    Args:
        sweeping: Of the store.
        catalogue: Whose; what other catalogues have is not looked at.
        left: The versions that stay.
    """
    named = {version.uri for version in left}
    wanted = [uri for uri in sweeping.manifests() if uri.split("/")[1] == catalogue and uri not in named]
    found = [lying for uri in wanted if (lying := sweeping.manifest(uri)) is not None]
    return [Gone("manifest", one.name, "no version names it", one.num_bytes) for one in found]


def doomed_blobs(sweeping: Sweeping, without: Set[str]) -> Iterator[Gone]:
    """Old blobs that no manifest of any catalogue names, and what writing left long ago.

    Args:
        sweeping: Of the store.
        without: URIs of manifests that go, and so do not count.

    Raises:
        IntegrityError: A manifest does not say what it names.
    """
    for one in sweeping.unnamed(sweeping.named(without)):
        yield Gone("blob", one.name, "no manifest names it", one.num_bytes)
    for one in sweeping.rests():
        yield _rest(one)


def _rest(one: Lying) -> Gone:
    return Gone("rest", one.name, "writing it was cut off", one.num_bytes)
