"""The table of features in docs/features.md is that of the views."""

import re
from pathlib import Path

from tastemaker.features.request_features import REQUEST_FEATURES
from tastemaker.features.views import COUNT_WINDOWS, VIEWS, Feature

DOC = Path(__file__).resolve().parents[2] / "docs" / "features.md"
WINDOW = re.compile(rf"_({'|'.join(COUNT_WINDOWS)})$")


def table() -> str:
    """A row for each feature; those that differ by their window alone share one."""
    lines = ["| view | feature | type | what it is |", "|---|---|---|---|"]
    for view in VIEWS:
        counted = view.name.endswith("_counters")
        for feature in view.features:
            if counted and (window := WINDOW.search(feature.name)):
                if window[1] == COUNT_WINDOWS[0]:
                    lines.append(row(view.name, WINDOW.sub("_*", feature.name), feature))
            else:
                lines.append(row(view.name, feature.name, feature))
    return "\n".join(lines)


def row(view: str, name: str, feature: Feature) -> str:
    about = feature.about.removesuffix(f", decayed over {COUNT_WINDOWS[0]}").removesuffix(
        f", over {COUNT_WINDOWS[0]}"
    )
    return f"| `{view}` | `{name}` | {feature.kind} | {about} |"


def test_the_table_is_that_of_the_views():
    text = DOC.read_text(encoding="utf-8")
    section = text.partition("\n## All features\n")[2]
    found = "\n".join(line for line in section.splitlines() if line.startswith("|"))
    assert found == table()


def test_the_rankers_features_are_all_named():
    text = DOC.read_text(encoding="utf-8")
    names = re.search(r"<!-- the ranker's -->\n(.*?)<!-- -->", text, re.DOTALL)
    assert names is not None
    assert re.findall(r"`(\w+)`", names[1]) == list(REQUEST_FEATURES)
