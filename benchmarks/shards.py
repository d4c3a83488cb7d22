"""Memory and time of a retriever's process, of a catalogue in one piece and of one shard of it, at 1M items: `make bench-shards`.

Kept in benchmarks/out/shards-process.json; the page is docs/results/DATE-shards.md. `--quick` takes fewer items.
"""

from typing import Final

import kept

PARTS: Final = {"process": "shards_process:shards"}

if __name__ == "__main__":
    kept.main("shards", "Shards of a catalogue", "`make bench-shards`.", str(__doc__), PARTS, list(PARTS))
