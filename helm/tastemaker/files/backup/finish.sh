#!/bin/sh
# Names the backup whole, and keeps the newest.
set -eu
stamp=$(cat "$WORK/stamp")
old_ones() {
  ls "$BACKUPS" | grep -E '^[0-9]{8}T[0-9]{6}Z$' | sort -r | tail -n "+$1"
}
if [ "${1:-}" = --dry-run ]; then
  old_ones "$KEEP" | sed 's/^/would remove the backup /'
  exit 0
fi
mv "$BACKUPS/$stamp.partial" "$BACKUPS/$stamp"
rm -rf "$BACKUPS"/*.partial
old_ones "$((KEEP + 1))" | while read -r old; do
  rm -rf "${BACKUPS:?}/$old"
done
echo "backup $stamp is whole"
