"""What keeps a process answering while it loads versions, and that dropped ones are gone from memory."""

import gc
import os
import subprocess
import sys
import threading
import weakref
from pathlib import Path

import numpy as np
import pytest
from tagged import open_bundle

from tastemaker.bundle.store import BundleStore
from tastemaker.data.item_rows import Item
from tastemaker.errors import IntegrityError
from tastemaker.stages.live import LiveStages
from tastemaker.state.items import ItemChanges
from tastemaker.types import Query
from tastemaker_services.gateway.face import BundleFace, LiveFace
from tastemaker_services.versions.quiet import LOWEST, at_low_priority, free_memory, without_collector


def test_a_dropped_version_is_freed_with_all_that_it_made(tmp_path: Path) -> None:
    put = ItemChanges(
        "L", 1, False, ["new"], {"new": Item(item_id="new", category="c0", tags=["t0"]).encode()}
    )
    bundle = open_bundle(BundleStore(tmp_path))
    stages, face = LiveStages(bundle), LiveFace(BundleFace.of(bundle))
    for following in (stages, face):
        following.take(ItemChanges("L", 0, True))
        following.take(put)
    query = Query(np.array([0, 4], np.int32), k=3)
    assert len(stages.pipeline.recommend([query])[0]) == 3
    face.face.trending(query)
    watched = [stages, stages.pipeline, bundle, bundle.index(), face, face.face, face.face.overlay]
    gone = [weakref.ref(one) for one in watched]
    gc.disable()  # the collector alone would hide what only it can free
    try:
        del bundle, stages, face, following, watched, query
        free_memory()
        assert [ref() for ref in gone] == [None] * len(gone)
    finally:
        gc.enable()


def test_loading_a_version_imports_no_compiler(tmp_path: Path) -> None:
    """Which torch does where a model draws starting values on the device meta: seconds during which nobody answers."""
    ref = open_bundle(BundleStore(tmp_path)).ref
    script = (
        "import sys; from tastemaker.bundle.reader import Bundle; from tastemaker.bundle.store import BundleStore;"
        "from tastemaker.stages.live import LiveStages;"
        "LiveStages(Bundle.open(BundleStore(sys.argv[1]), sys.argv[2]));"
        "assert 'torch._dynamo' not in sys.modules"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", script, str(tmp_path), ref.uri], check=True)


@pytest.mark.skipif(sys.platform != "linux", reason="threads have priorities of their own on Linux alone")
def test_work_that_can_wait_has_the_lowest_priority_and_nothing_else_does() -> None:
    before = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    during = at_low_priority(lambda: os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
    assert during == LOWEST
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == before


def test_what_fails_there_fails_here() -> None:
    def fail() -> None:
        raise IntegrityError("items.parquet was changed")

    with pytest.raises(IntegrityError, match=r"items\.parquet was changed"):
        at_low_priority(fail)


def test_the_collector_rests_until_the_last_is_done() -> None:
    assert gc.isenabled()
    with without_collector():
        with without_collector():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()
