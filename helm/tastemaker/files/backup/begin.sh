#!/bin/sh
# Opens the folder of a backup. Its name loses `.partial` when all steps are done. `--dry-run`, as the last word of each step, looks and writes nothing.
set -eu
umask 077
stamp=$(date -u +%Y%m%dT%H%M%SZ)
echo "$stamp" > "$WORK/stamp"
if [ "${1:-}" = --dry-run ]; then
  [ -d "$BACKUPS" ] && [ -w "$BACKUPS" ] || { echo "$BACKUPS cannot be written" >&2; exit 1; }
  echo "would write $BACKUPS/$stamp, where $(df -Pk "$BACKUPS" | awk 'NR == 2 {print $4}') kB are free"
  exit 0
fi
mkdir "$BACKUPS/$stamp.partial"
