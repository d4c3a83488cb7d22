"""The feature path's numbers, measured side by side, beside their targets: `make bench-features`.

    reading   500 candidates x 50 features for one user, beside Feast's own reading of the same values
    writing   rows a second into Feast's online store, beside Feast's push
    stream    events a second of one consumer on one core, all updates applied
    age       how old an event is when its user's record and the next answer show it, under half that load over HTTP
    ingest    events a second accepted by the log and by the spool
    rebuild   events a second from Parquet days to every online feature
    memory    bytes of a user, an item and an event id in Redis/Valkey

Each part is kept in benchmarks/out/features-PART.json, and docs/results/DATE-features.md is made of all that are kept. `--only
stream,memory` measures some parts, `--quick` takes little data and one turn. Five turns of `reading`, `writing` and `ingest`, 15 of them with
FULL=1; three of `stream` and `rebuild`, two of `memory`, one of `age`.
"""

from typing import Final

import kept

PARTS: Final = {
    "reading": "features_reading:reading",
    "writing": "features_reading:writing",
    "stream": "features_stream:stream",
    "age": "features_age:age",
    "ingest": "features_ingest:ingest",
    "rebuild": "features_rebuild:rebuilding",
    "memory": "features_memory:memory",
}
"""Part by part, in the page's order: module and function that measure it."""
_INTRO: Final = f"`make bench-features`, part by part. {kept.BY_TURNS}"

if __name__ == "__main__":
    kept.main(
        "features", "Features and the event stream", _INTRO, str(__doc__), PARTS, list(PARTS), kept.by_turns()
    )
