"""Checkpoints of a fit: written beside the training, whole or not there, readable by any number of ranks and any plan.

A checkpoint is a folder of torch.distributed.checkpoint's files and, written last, our `manifest.json` with every file's
size and SHA-256. Those files hold pickles (`.metadata` is one), so nothing of a checkpoint is opened before its hashes
were found right, and the folder is the trainer's alone to write.
"""

import json
import shutil
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from tastemaker.errors import TrainingError
from tastemaker.home import write_json
from tastemaker_training.distributed.checkpoint_files import (
    MANIFEST,
    SCHEMA,
    Position,
    best_of,
    check_files,
    hash_of,
    names,
    position_of,
    read_manifest,
)
from tastemaker_training.distributed.sharding import Distributed
from tastemaker_training.distributed.state import (
    Staging,
    State,
    accumulator_name,
    accumulators,
    fit_state,
    local_parts,
)
from tastemaker_training.plan.fit_config import CheckpointConfig


@dataclass
class Checkpoints:
    """The checkpoints of one fit. Every rank makes the same calls in the same order.

    Args:
        folder: Theirs alone, seen by all ranks.
        config: How many are kept.
        identity: What the fit is (model, recipe, data), JSON-able: a checkpoint of another is refused.
    """

    folder: Path
    config: CheckpointConfig
    identity: Mapping[str, Any]
    last: str | None = None
    _writer: threading.Thread | None = None
    _failure: Exception | None = None
    _group: dist.ProcessGroup | None = field(default=None, repr=False)
    _staging: Staging = field(default_factory=Staging, repr=False)

    def open(self, distributed: Distributed) -> None:
        """Makes ready to save, so that the first save pauses no longer than the others."""
        if self._group is None:
            # A thread of its own needs a group of its own: two collectives of one group must not cross.
            self._group = dist.new_group(backend="gloo")
            self._staging.copy(fit_state(distributed))

    def save(self, distributed: Distributed, position: Position, more: State | None = None) -> None:
        """Keeps the state as it is now; training pauses for a copy, a thread writes it.

        Args:
            distributed: The fit.
            position: How far it is.
            more: Further tensors: whole on every rank and the same there, or a rank's own under `rank0/…`.

        Raises:
            TrainingError: The checkpoint before could not be written.
        """
        self.wait()
        self.open(distributed)
        staged = self._staging.copy(
            fit_state(distributed) | {f"more/{k}": v for k, v in (more or {}).items()}
        )
        plan = [asdict(shard) for shard in distributed.plan]
        self._writer = threading.Thread(
            target=self._write, args=(staged, position, plan), name="checkpoint", daemon=True
        )
        self._writer.start()

    def wait(self) -> None:
        """Returns once the last checkpoint is written.

        Raises:
            TrainingError: It could not be.
        """
        if self._writer is not None:
            self._writer.join()
            self._writer = None
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise TrainingError(
                f"a checkpoint in {self.folder} cannot be written", value=str(failure), mend="make room there"
            ) from failure

    def _write(self, staged: Any, position: Position, plan: list[dict[str, Any]]) -> None:
        try:
            folder, rank = self.folder / position.name, dist.get_rank()
            if rank == 0:
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir(parents=True)
            dist.barrier(self._group)
            save(staged, checkpoint_id=folder, process_group=self._group)
            mine = [*folder.glob(f"__{rank}_*"), *(folder.glob(".metadata") if rank == 0 else ())]
            write_json(folder / f"hashes-{rank}.json", {path.name: hash_of(path) for path in mine})
            dist.barrier(self._group)
            if rank == 0:
                self._finish(folder, position, plan)
            dist.barrier(self._group)
            self.last = folder.name
        except Exception as error:  # noqa: BLE001 (raised by the next call, in the thread that trains)
            self._failure = error

    def _finish(self, folder: Path, position: Position, plan: list[dict[str, Any]]) -> None:
        """Rank 0 writes the manifest, which makes the checkpoint exist, and removes those no longer kept."""
        files: dict[str, Any] = {}
        for path in sorted(folder.glob("hashes-*.json")):
            files |= json.loads(path.read_text(encoding="utf-8"))
            path.unlink()
        manifest = {
            "schema": SCHEMA, "position": asdict(position), "identity": dict(self.identity), "plan": plan,
            "num_ranks": dist.get_world_size(), "files": files,
        }  # fmt: skip
        write_json(folder / MANIFEST, manifest)
        best = best_of(self.folder)
        for name in names(self.folder)[: -self.config.keep]:
            if name != best:
                shutil.rmtree(self.folder / name)

    def restore(self, distributed: Distributed, name: str | None = None) -> tuple[Position, State] | None:
        """Sets the fit to a checkpoint, whatever plan and number of ranks it was written by.

        Args:
            distributed: A fit of the same model.
            name: Which; unset takes the newest.

        Returns:
            Where the fit was, and the further tensors that were saved; None where there is no checkpoint.

        Raises:
            TrainingError: The checkpoint is of another fit, or a file of it is missing, changed or foreign.
        """
        chosen: list[str | None] = [name or self.newest()]
        dist.broadcast_object_list(chosen, src=0)
        if chosen[0] is None:
            return None
        folder = self.folder / chosen[0]
        manifest = self._checked(folder)
        _load(distributed, folder)
        more = _read_more(folder, dist.get_rank() if manifest["num_ranks"] == dist.get_world_size() else None)
        self.last = folder.name
        return position_of(manifest), more

    def newest(self) -> str | None:
        """Name of the newest whole checkpoint."""
        found = names(self.folder)
        return found[-1] if found else None

    def best(self) -> str | None:
        """Name of the whole checkpoint with the best metric."""
        return best_of(self.folder)

    def _checked(self, folder: Path) -> dict[str, Any]:
        """The manifest, after every file's hash was found right; the ranks share the work, and the verdict."""
        faults: list[str | None] = [None] * dist.get_world_size()
        manifest: dict[str, Any] = {}
        try:
            manifest = read_manifest(folder)
            self._check_identity(folder, manifest)
            check_files(folder, manifest, dist.get_rank(), dist.get_world_size())
        except TrainingError as error:
            faults[dist.get_rank()] = str(error)
        dist.all_gather_object(faults, faults[dist.get_rank()])
        found = next((fault for fault in faults if fault), None)
        if found:
            raise TrainingError(found)
        return manifest

    def _check_identity(self, folder: Path, manifest: Mapping[str, Any]) -> None:
        for key, mine in self.identity.items():
            theirs = manifest["identity"].get(key)
            if theirs != json.loads(json.dumps(mine)):
                raise TrainingError(
                    f"{key} of checkpoint {folder}", value=theirs, limit=mine,
                    mend="resume with the recipe and data that it was made with, or train without --resume",
                )  # fmt: skip


def _load(distributed: Distributed, folder: Path) -> None:
    """Fills the fit's own tensors from the files, each rank reading what it holds."""
    saved = _saved(folder)
    state = fit_state(distributed)
    converted = [
        (table, blocks, value)
        for table, blocks, value in accumulators(distributed)
        if accumulator_name(table, blocks) not in saved
    ]
    for table, blocks, _ in converted:
        del state[accumulator_name(table, blocks)]
    missing = sorted(state.keys() - saved.keys())
    if missing:
        raise TrainingError(f"checkpoint {folder} lacks {missing[0]}", mend="resume with the same model")
    load(state, checkpoint_id=folder)
    for table, blocks, value in converted:
        _convert_accumulator(folder, saved, table, blocks, value)


def _saved(folder: Path) -> dict[str, TensorStorageMetadata]:
    """The tensors of a checkpoint whose files were found right: torch unpickles this list of them."""
    saved = FileSystemReader(folder).read_metadata().state_dict_metadata
    return {name: meta for name, meta in saved.items() if isinstance(meta, TensorStorageMetadata)}


def _convert_accumulator(
    folder: Path, saved: Mapping[str, TensorStorageMetadata], table: str, blocks: int, value: Any
) -> None:
    """Sums of squares between plans that cut columns differently: a row's is the mean of its column shards'.

    Exact from column shards to whole rows; the other way each column shard starts from its row's.
    """
    name = next(name for name in saved if name.startswith(f"table/{table}/accumulator/"))
    theirs = torch.zeros(saved[name].size)
    load({name: theirs}, checkpoint_id=folder)
    row_R = theirs.view(int(name.split("/")[-1]), -1).mean(dim=0)
    whole = row_R.repeat(blocks)
    for start, part in local_parts(value):
        part.copy_(whole[start : start + len(part)])


def _read_more(folder: Path, rank: int | None) -> State:
    """The further tensors: those of all ranks, and those of this one where there are as many as wrote them."""
    saved = _saved(folder)
    more = {
        name: torch.empty(meta.size, dtype=meta.properties.dtype)
        for name, meta in saved.items()
        if name.startswith("more/")
        and (not name.startswith("more/rank") or name.startswith(f"more/rank{rank}/"))
    }
    if more:
        load(more, checkpoint_id=folder)
    return {name.removeprefix("more/"): value for name, value in more.items()}
