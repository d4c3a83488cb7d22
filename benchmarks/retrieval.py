"""Each source of candidates and the whole stage over a million items, one thread: `make bench-retrieval`.

    sources  each as it serves, beside scoring every item and picking the best: times, and whether both give the same items
    stage    five sources together, one after the other and as served

Each part is kept in benchmarks/out/retrieval-PART.json, and docs/results/DATE-retrieval.md is made of both, which are
measured on one catalogue and always together. `--quick` takes fewer items.
"""

from typing import Final

import kept

PARTS: Final = {"sources": "retrieval_parts:sources", "stage": "retrieval_parts:stage"}
_INTRO: Final = (
    "`make bench-retrieval`, part by part; one thread. Where the machine's load is over its cores, the clock measures who else was at work, "
    "and the processor's time what is ours."
)

if __name__ == "__main__":
    kept.main("retrieval", "Retrieval", _INTRO, str(__doc__), PARTS, list(PARTS), together=[list(PARTS)])
