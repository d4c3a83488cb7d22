#!/usr/bin/env bash
# The wheels in $1, in an empty environment and an empty folder, run the quick demo.
set -euo pipefail
dist=$(cd "${1:-dist}" && pwd)
constraints=$(cd "$(dirname "$0")/../.." && pwd)/requirements/constraints.txt
empty=$(mktemp -d)
trap 'rm -rf "$empty"' EXIT
cd "$empty"
python3 -m venv venv
venv/bin/pip install --quiet --upgrade pip
venv/bin/pip install --quiet --find-links "$dist" --constraint "$constraints" 'tastemaker[demo]==0.1.0'
mkdir work && cd work
../venv/bin/tastemaker demo --quick
test -s .tastemaker/demo/report.json
