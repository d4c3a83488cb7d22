"""Fails where a test was skipped for another reason than a missing GPU, or where nothing ran."""

import sys
import xml.etree.ElementTree as ET


def main(paths: list[str]) -> int:
    ran, skipped = 0, []
    for path in paths:
        for case in ET.parse(path).getroot().iter("testcase"):
            reason = case.find("skipped")
            if reason is None:
                ran += 1
            elif "gpu" not in (reason.get("message") or "").lower():
                skipped.append(f"{case.get('classname')}.{case.get('name')}: {reason.get('message')}")
    for line in skipped:
        print(f"skipped: {line}", file=sys.stderr)  # noqa: T201
    print(f"{ran} tests ran, {len(skipped)} skipped without leave")  # noqa: T201
    return 1 if skipped or not ran else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
