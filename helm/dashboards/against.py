"""Asks a running Prometheus for every panel, and says which have data: `python -m helm.dashboards.against http://127.0.0.1:9090`.

Gives a table in Markdown; exit code 1 where Prometheus refuses a query.
"""

import json
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from helm.dashboards.__main__ import FOLDER

_CHOSEN: Final = {
    "$__rate_interval": "1m",
    "$namespace": ".*",
    "$catalogue": ".*",
    "$experiment": ".*",
    "$variant": ".*",
}


def resolved(expr: str) -> str:
    """With all variables at `All`."""
    for variable, value in _CHOSEN.items():
        expr = expr.replace(variable, value)
    return expr


def num_series(address: str, expr: str) -> int:
    """How many series a query gave within the last hour.

    Raises:
        urllib.error.HTTPError: Prometheus refuses it.
    """
    now = time.time()
    span = {"start": now - 3600, "end": now, "step": 30}
    asked = urllib.parse.urlencode({"query": resolved(expr), **span})
    with urllib.request.urlopen(f"{address}/api/v1/query_range?{asked}", timeout=30) as answer:
        return len(json.load(answer)["data"]["result"])


def rows(address: str) -> Iterator[tuple[str, str, list[int | None]]]:
    """Dashboard, panel, and the number of series of each query; None where it is refused."""
    for path in sorted(Path(FOLDER).glob("*.json")):
        dashboard: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        for panel in dashboard["panels"]:
            if panel["type"] != "row":
                yield (
                    path.stem,
                    panel["title"],
                    [_asked(address, target["expr"]) for target in panel["targets"]],
                )
        annotations = dashboard["annotations"]["list"]
        yield path.stem, "annotations", [_asked(address, one["expr"]) for one in annotations]


def _asked(address: str, expr: str) -> int | None:
    try:
        return num_series(address, expr)
    except urllib.error.HTTPError as error:
        print(f"refused ({error.code}): {resolved(expr)}", file=sys.stderr)
        return None


def main() -> int:
    """Prints the table."""
    found = list(rows(sys.argv[1].rstrip("/")))
    print("| dashboard | panel | series by query |\n|---|---|---|")
    for dashboard, panel, numbers in found:
        told = ", ".join("refused" if number is None else str(number) for number in numbers)
        print(f"| {dashboard} | {panel} | {told} |")
    with_data = sum(any(numbers) for _, _, numbers in found)
    print(f"\n{with_data} of {len(found)} have data.")
    return 1 if any(None in numbers for _, _, numbers in found) else 0


if __name__ == "__main__":
    sys.exit(main())
