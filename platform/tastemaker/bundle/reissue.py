"""A released bundle with another index in place of one of its own; all other files are shared. Not for other changes."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from tastemaker.bundle.manifest import BundleRef, check_parts
from tastemaker.bundle.reader import Bundle
from tastemaker.bundle.store import BundleStore
from tastemaker.errors import CompatibilityError
from tastemaker.index.config import MeasuredIndex

if TYPE_CHECKING:
    from tastemaker.index.faiss_index import FaissIndex


def with_index(
    store: BundleStore, bundle: Bundle, name: str, index: "FaissIndex", measured: MeasuredIndex
) -> BundleRef:
    """Releases the bundle with `index` as its file `name`: over the same vectors, searched in another way.

    Raises:
        CompatibilityError: The index is of another size than the one in whose place it comes.
    """
    old = bundle.manifest.files[name]
    assert old.index is not None, name
    size, wanted = (index.num_items, index.dim), (old.index.num_items, old.index.dim)
    if size != wanted:
        raise CompatibilityError(
            f"size of {name}", value=size, limit=wanted, mend="build it over its vectors"
        )
    content = index.to_bytes()
    sha256, num_bytes = store.put_parts(lambda: [content])
    told = {"kind": index.kind, "config": index.config, "measured": measured}
    info = old.index.model_copy(update=told)
    file = old.model_copy(update={"sha256": sha256, "size": num_bytes, "index": info})
    files = {**bundle.manifest.files, name: file}
    check_parts(files)
    for shared, kept in files.items():
        store.renew(kept.sha256, kept.size, shared)
    changed = {"files": files, "created": datetime.now(UTC).isoformat()}
    manifest = bundle.manifest.model_copy(update=changed)
    return store.put_manifest(manifest.catalogue, manifest.to_bytes())
