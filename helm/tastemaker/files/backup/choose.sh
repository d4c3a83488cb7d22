#!/bin/sh
# Says which backup is brought back: RESTORE, or the newest whole one.
set -eu
stamp=${RESTORE:-$(ls "$BACKUPS" | grep -E '^[0-9]{8}T[0-9]{6}Z$' | sort | tail -n 1)}
[ -n "$stamp" ] && [ -d "$BACKUPS/$stamp" ] || { echo "there is no backup '$stamp' in $BACKUPS" >&2; exit 1; }
echo "$stamp" > "$WORK/stamp"
echo "bringing back $stamp"
