#!/bin/sh
# Names the backup whole, and keeps the newest.
set -eu
stamp=$(cat "$WORK/stamp")
mv "$BACKUPS/$stamp.partial" "$BACKUPS/$stamp"
rm -rf "$BACKUPS"/*.partial
ls "$BACKUPS" | grep -E '^[0-9]{8}T[0-9]{6}Z$' | sort -r | tail -n "+$((KEEP + 1))" | while read -r old; do
  rm -rf "${BACKUPS:?}/$old"
done
echo "backup $stamp is whole"
