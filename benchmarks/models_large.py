"""Lists out of a million items: scores of a range of items at a time beside scores of all at once."""

import json
import sys
import time
from pathlib import Path
from typing import Any

from models_evaluation import KIB_OF_MIB, status
from peers import told
from turns import Effort, Part, column, shown, turns

NUM_ITEMS, NUM_ASKERS, DIM, K = 1_000_000, 512, 64, 50
MEMORY_TARGET_MIB = 256.0


def large(effort: Effort) -> Part:
    """Both ways give the same lists; memory is what asking takes above the model."""
    num_items = NUM_ITEMS // effort.divide
    script = Path(__file__)
    found: dict[str, list[Any]] = turns(
        1 if effort.divide > 1 else min(3, effort.turns),
        {
            name: lambda at_once=at_once: told(Path(sys.executable), script, num_items, at_once)
            for name, at_once in {"by ranges": 2**16, "all at once": num_items}.items()
        },
    )
    part = Part(
        f"Lists of {K} for {NUM_ASKERS} askers out of {num_items:,} items, {DIM} factors",
        ("scores", "CPU s", "MiB above the model"),
        num_turns=len(found["by ranges"]),
    )
    for name, each in found.items():
        part.rows.append((name, shown(column(each, "seconds"), 2), shown(column(each, "mib"), 0)))
        part.figures[name] = [{"seconds": one["seconds"], "mib": one["mib"]} for one in each]
    part.target(
        "lists out of a million items: MiB above the model",
        max(column(found["by ranges"], "mib")),
        MEMORY_TARGET_MIB,
        "lower",
    )
    ranges, whole = (each[0] for each in found.values())
    differ = sum(one != other for one, other in zip(ranges["items"], whole["items"], strict=True))
    gap = max(abs(one - other) for one, other in zip(ranges["scores"], whole["scores"], strict=True))
    part.notes.append(
        f"{differ} of {NUM_ASKERS * K:,} places of the lists differ; scores at one place do by at most {gap:.1g}, as sums are in another order."
    )
    return part


def _measured(num_items: int, at_once: int) -> dict[str, Any]:
    import numpy as np

    from tastemaker.models import recommender
    from tastemaker.models.factors.ials import Ials, IalsConfig
    from tastemaker.models.log import Askers

    recommender._ITEMS_AT_ONCE = at_once
    draws = np.random.default_rng(0)
    item_ID = draws.normal(0, 1, (num_items, DIM)).astype(np.float32)
    model = Ials(IalsConfig(dim=DIM), item_ID, np.zeros(num_items, np.float32))
    asked = Askers.strangers([draws.integers(num_items, size=20).astype(np.int32) for _ in range(NUM_ASKERS)])
    model.recommend(asked[:1], K)
    Path("/proc/self/clear_refs").write_text("5")
    before, began = status("VmRSS"), time.process_time()
    item_BK, score_BK = model.recommend(asked, K)
    seconds = time.process_time() - began
    mib = (status("VmHWM") - before) / KIB_OF_MIB
    lists = {"items": item_BK.ravel().tolist(), "scores": score_BK.ravel().tolist()}
    return {"seconds": seconds, "mib": mib} | lists


if __name__ == "__main__":
    print(json.dumps(_measured(int(sys.argv[1]), int(sys.argv[2]))))
