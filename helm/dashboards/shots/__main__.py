"""Draws every dashboard: `python -m helm.dashboards.shots --prometheus http://127.0.0.1:9090`, or of a scene that it plays itself.

Needs Node, npm's packages of package.json (`make dashboard-shots` installs them), Chromium, and without `--prometheus` the
package `prometheus`.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from helm.dashboards.__main__ import FOLDER
from helm.dashboards.asking import Prometheus, first_choices
from helm.dashboards.shots.scene import SHOWN, played

HERE: Final = Path(__file__).resolve().parent
ROOT: Final = HERE.parents[2]
PICTURES: Final = ROOT / "docs" / "images" / "dashboards"
SCHEMAS: Final = ROOT / "tests" / "deploy" / "grafana"
_PACKAGES: Final = ROOT / ".tools" / "dashboard-shots"
_NUM_COLORS: Final = 256
_TOPS: Final = {"experiments": 1262}
"""Pixels of those whose first rows are kept as a picture too, for the README."""
_NUM_STEPS: Final = 240
"""Samples of a line at most: about what Grafana asks for on a panel of a third of a screen."""


def shot(dashboard: Mapping[str, Any], prometheus: Prometheus, wanted: Mapping[str, str]) -> dict[str, Any]:
    """What page.jsx draws a dashboard from."""
    chosen = first_choices(dashboard, prometheus, wanted)
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    marks = [{"expr": one["expr"], "instant": False} for one in dashboard["annotations"]["list"]]
    return {
        "dashboard": dashboard,
        "answers": {
            panel["id"]: [prometheus.of_target(target, chosen) for target in panel["targets"]] for panel in panels
        },
        "annotations": [prometheus.of_target(mark, chosen) for mark in marks],
        "variables": {name: value for name, value in chosen.items() if value != ".*"} | {"datasource": "Prometheus"},
        "from": prometheus.start,
        "to": prometheus.end,
        "step": prometheus.step,
    }  # fmt: skip


def draw(prometheus: Prometheus, wanted: Mapping[str, str], pictures: Path) -> int:
    """Writes a PNG of each dashboard; 1 where the browser met an error."""
    pictures.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for path in sorted(FOLDER.glob("*.json")):
            found = shot(json.loads(path.read_text(encoding="utf-8")), prometheus, wanted)
            (Path(folder) / path.name).write_text(json.dumps(found), encoding="utf-8")
        done = subprocess.run(["node", HERE / "draw.mjs", folder], cwd=_PACKAGES, check=False)
        for path in sorted(Path(folder).glob("*.png")):
            _compress(path, pictures / path.name)
            if path.stem in _TOPS:
                _compress(path, pictures / f"{path.stem}-top.png", _TOPS[path.stem])
    return done.returncode


def _compress(picture: Path, to: Path, height: int | None = None) -> None:
    from PIL import Image

    with Image.open(picture) as whole:
        image = whole.crop((0, 0, whole.width, height or whole.height))
        few = image.convert("RGB").quantize(
            _NUM_COLORS, Image.Quantize.MAXCOVERAGE, kmeans=1, dither=Image.Dither.NONE
        )
        few.save(to, optimize=True)
    print(f"{to}: {to.stat().st_size / 1000:.0f} kB")


def _window(address: str, minutes: float) -> Prometheus:
    """The last minutes, in whole steps as Grafana asks for them."""
    step = max(15, round(minutes * 60 / _NUM_STEPS))
    end = time.time() // step * step
    return Prometheus(address.rstrip("/"), end - minutes * 60 // step * step, end, step)


def _parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prometheus", help="address of one that runs; else a scene is played")
    parser.add_argument(
        "--minutes", type=float, default=15, help="how far back, and how long a scene is played"
    )
    parser.add_argument(
        "--choose", action="append", default=[], help="value of a variable: experiment=ranker-off"
    )
    parser.add_argument(
        "--home", type=Path, default=_PACKAGES / "home", help="home of the scene, kept for the next time"
    )
    parser.add_argument("--pictures", type=Path, default=PICTURES, help="folder to write to")
    return parser.parse_args()


def main() -> int:
    """0 where all dashboards were drawn; also writes Grafana's types anew, as the tests keep them."""
    given = _parsed()
    subprocess.run(["node", HERE / "schema.mjs", SCHEMAS], cwd=_PACKAGES, check=True)
    wanted = dict(one.split("=", 1) for one in given.choose)
    if given.prometheus:
        return draw(_window(given.prometheus, given.minutes), wanted, given.pictures)
    with played(given.home, given.minutes) as address:
        return draw(_window(address, given.minutes), SHOWN | wanted, given.pictures)


if __name__ == "__main__":
    sys.exit(main())
