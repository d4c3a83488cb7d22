"""How long others' epochs take, and ours beside them; they run in environments of their own (`peers`)."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from models_evaluation import RECBOLE
from peers import environment, told
from report import OUT
from turns import Part, ratios, shown

HEADER: Final = ("whose", "CPU s of an epoch", "ratio")
TARGET: Final = 0.5
RECTOOLS: Final = ("rectools==0.17.0", "pytorch-lightning==2.6.6")


def epoch_seconds(fit: Callable[[int], float]) -> float:
    """Of an epoch: a fit of three less a fit of one, halved, so that what is done once counts for nobody.

    Fits in this process must have been run once before: a process's first fit is its slowest.
    """
    return (fit(3) - fit(1)) / 2


def rectools_seconds(file: Path, epochs: int) -> float:
    """Of a fit of RecTools' SASRec to a file of sequences, see `models_rectools`."""
    script = Path(__file__).with_name("models_rectools.py")
    return float(told(environment("rectools-torch", RECTOOLS), script, file, epochs))


def recbole_seconds(name: str, model: str, settings: Mapping[str, Any], epochs: int) -> list[float]:
    """Of each of RecBole's epochs over the files of `write_atomic`."""
    job, script = OUT / "recbole" / f"{name}.json", Path(__file__).with_name("models_recbole.py")
    whole = {"data_path": str(job.parent), "checkpoint_dir": str(job.parent / "saved"), **settings}
    job.write_text(json.dumps({"model": model, "dataset": name, "epochs": epochs, "settings": whole}))
    found: list[float] = told(environment("recbole", RECBOLE), script, job)
    return found


def write_atomic(name: str, kind: str, columns: Mapping[str, Any]) -> None:
    """A file of RecBole's, `inter`, `user` or `item`: columns by name and type, such as user_id:token."""
    folder = OUT / "recbole" / name
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{name}.{kind}").open("w") as file:
        file.write("\t".join(columns) + "\n")
        file.writelines("\t".join(map(str, row)) + "\n" for row in zip(*columns.values(), strict=True))


def compared(part: Part, what: str, ours: list[float], peer: str, theirs: list[float]) -> Part:
    """The part with both rows, and the target of their median ratio."""
    over = ratios(ours, theirs)
    part.rows += [("tastemaker", shown(ours), shown(over, 3)), (peer, shown(theirs), "")]
    part.target(f"{what} over {peer}'s, median", sorted(over)[len(over) // 2], TARGET, "lower")
    part.figures["ratios"], part.num_turns = over, len(over)
    return part
