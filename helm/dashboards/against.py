"""Asks a running Prometheus for every panel, and says which have data: `python -m helm.dashboards.against http://127.0.0.1:9090`.

Gives a table in Markdown; exit code 1 where Prometheus refuses a query.
"""

import json
import sys
import time
import urllib.error
from collections.abc import Iterator, Mapping
from typing import Any

from helm.dashboards.__main__ import FOLDER
from helm.dashboards.asking import Prometheus, first_choices, resolved


def rows(prometheus: Prometheus) -> Iterator[tuple[str, str, list[int | None]]]:
    """Dashboard, panel, and the number of series of each query over time; None where it is refused."""
    for path in sorted(FOLDER.glob("*.json")):
        dashboard: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        chosen = first_choices(dashboard, prometheus, {})
        for panel in dashboard["panels"]:
            if panel["type"] != "row":
                numbers = [_num_series(prometheus, target["expr"], chosen) for target in panel["targets"]]
                yield path.stem, panel["title"], numbers
        annotations = dashboard["annotations"]["list"]
        yield path.stem, "annotations", [_num_series(prometheus, one["expr"], chosen) for one in annotations]


def _num_series(prometheus: Prometheus, expr: str, chosen: Mapping[str, str]) -> int | None:
    try:
        return len(prometheus.over_time(resolved(expr, chosen)))
    except urllib.error.HTTPError as error:
        print(f"refused ({error.code}): {resolved(expr, chosen)}", file=sys.stderr)
        return None


def main() -> int:
    """Prints the table, of the last hour."""
    now = time.time()
    found = list(rows(Prometheus(sys.argv[1].rstrip("/"), now - 3600, now, step=30)))
    print("| dashboard | panel | series by query |\n|---|---|---|")
    for dashboard, panel, numbers in found:
        told = ", ".join("refused" if number is None else str(number) for number in numbers)
        print(f"| {dashboard} | {panel} | {told} |")
    with_data = sum(any(numbers) for _, _, numbers in found)
    print(f"\n{with_data} of {len(found)} have data.")
    return 1 if any(None in numbers for _, _, numbers in found) else 0


if __name__ == "__main__":
    sys.exit(main())
