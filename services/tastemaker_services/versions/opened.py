"""The bundles that this process has open, each once: a fused gateway and its stages read the same files and items."""

import threading
from typing import Final
from weakref import WeakValueDictionary

from tastemaker.bundle.manifest import BundleRef
from tastemaker.bundle.reader import Bundle
from tastemaker.bundle.store import BundleStore

_open: Final[WeakValueDictionary[tuple[str, str], Bundle]] = WeakValueDictionary()
_lock: Final = threading.Lock()


def open_bundle(store: BundleStore, ref: BundleRef, *, whole: bool) -> Bundle:
    """The bundle, which somebody may have open; see `Bundle.open`."""
    key = store.root, ref.sha256
    with _lock:
        bundle = _open.get(key)
        if bundle is None:
            bundle = _open[key] = Bundle.open(store, ref, whole=False)
    if whole:
        bundle.verify()
    return bundle
