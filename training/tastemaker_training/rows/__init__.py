"""A training's data as files, and from files to batches: row groups, examples, the order of an epoch, reading ahead."""
