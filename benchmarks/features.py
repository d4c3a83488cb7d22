"""The feature path's numbers, measured side by side in one run, beside their targets: `make bench-features`.

    reading   500 candidates x 50 features for one user, beside Feast's own reading of the same values
    writing   rows a second into Feast's online store, beside Feast's push
    stream    events a second of one consumer on one core, all updates applied
    age       how old an event is when its user's record and the next answer show it, under half that load over HTTP
    ingest    events a second accepted by the log and by the spool
    rebuild   events a second from Parquet days to every online feature
    memory    bytes of a user, an item and an event id in Redis/Valkey

Contenders take turns. Every figure is the median over the turns [least, most]. Writes benchmarks/out/features.json and, of
a whole run, docs/results/DATE-features.md. `--only stream,memory` runs some parts, `--quick` small ones, FULL=1 takes three
times as many turns.
"""

import features_age
import features_ingest
import features_memory
import features_reading
import features_rebuild
import features_stream
import report

if __name__ == "__main__":
    modules = (
        features_reading,
        features_stream,
        features_age,
        features_ingest,
        features_rebuild,
        features_memory,
    )
    parts = {name: part for module in modules for name, part in module.PARTS.items()}
    report.main("features", "Features and the event stream", str(__doc__), parts)
