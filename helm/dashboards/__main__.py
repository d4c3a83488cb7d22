"""Writes all dashboards as files; with `--check` says whether those that are there are the same."""

import json
import sys
from pathlib import Path
from typing import Final

from helm.dashboards.bundles import BUNDLES
from helm.dashboards.experiments import EXPERIMENTS
from helm.dashboards.quality import QUALITY
from helm.dashboards.serving import SERVING
from helm.dashboards.stream import STREAM
from helm.dashboards.training import TRAINING

DASHBOARDS: Final = (EXPERIMENTS, SERVING, QUALITY, STREAM, TRAINING, BUNDLES)
FOLDER: Final = Path(__file__).resolve().parents[1] / "tastemaker" / "dashboards"


def files() -> dict[str, str]:
    """The text of every file by its name."""
    return {f"{one.name}.json": json.dumps(one.json(), indent=1) + "\n" for one in DASHBOARDS}


def main() -> int:
    """0 where files are written, or with `--check` the same as the generator's."""
    there = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.json")}
    if "--check" in sys.argv[1:]:
        wrong = sorted(name for name in there.keys() | files().keys() if there.get(name) != files().get(name))
        if wrong:
            print(f"not what the generator gives: {', '.join(wrong)}; run `python -m helm.dashboards`")
        return 1 if wrong else 0
    FOLDER.mkdir(exist_ok=True)
    for name in there.keys() - files().keys():
        (FOLDER / name).unlink()
    for name, text in files().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
