"""A bundle with an index alone, and what a process pays for opening it: run by `ann.py`."""

import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from tastemaker.bundle.manifest import BundleInfo, DatasetInfo
from tastemaker.bundle.reader import Bundle
from tastemaker.bundle.store import BundleStore
from tastemaker.bundle.writer import BundleWriter
from tastemaker.index.config import IndexConfig
from tastemaker.types import Float32


def release(folder: str, vectors: Float32, config: IndexConfig) -> str:
    """Writes a bundle of these vectors; its URI."""
    from tastemaker.index.building import build_index

    writer = BundleWriter(BundleStore(folder), "default")
    writer.add_tensors("item_tower.safetensors", {"w": np.ones(1)})
    writer.add_table("items.parquet", pa.table({"item_id": [str(n) for n in range(len(vectors))]}))
    writer.add_index("index.faiss", build_index(vectors, config).index)
    info = BundleInfo(dataset=DatasetInfo(fingerprint="f"), recipe="benchmark", training_id="t")
    return writer.commit(info).uri


def _megabytes(key: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) / 1e3 for line in lines if line.startswith(f"{key}:"))


def pay(folder: str, uri: str) -> str:
    """File's MB, seconds to open and to read, MB held and at the peak beyond what the imports take."""
    from tastemaker.index.faiss_index import FaissIndex

    FaissIndex.build(np.eye(2, dtype=np.float32))
    before, began = _megabytes("VmRSS"), time.perf_counter()
    bundle = Bundle.open(BundleStore(folder), uri)
    opened = time.perf_counter() - began
    index = bundle.index()
    read = time.perf_counter() - began - opened
    held, peak = _megabytes("VmRSS") - before, _megabytes("VmHWM") - before
    assert index.num_items
    size = bundle.manifest.files["index.faiss"].size / 1e6
    return f"{size:,.0f} {opened:.2f} {read:.2f} {held:,.0f} {peak:,.0f}"


if __name__ == "__main__":
    print(pay(*sys.argv[1:]))
