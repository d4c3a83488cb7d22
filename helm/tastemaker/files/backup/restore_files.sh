#!/bin/sh
# Puts everything but PostgreSQL back, while nothing runs. Valkey's own start takes restore.rdb in place of its log.
set -eu
umask 077
from=$BACKUPS/$(cat "$WORK/stamp")
if [ "${1:-}" = --dry-run ]; then
  for file in "$from"/*.tar; do
    [ -f "$file" ] || continue
    tar -tf "$file" > /dev/null
    echo "would unpack $(tar -tf "$file" | wc -l) files of $file"
  done
  for file in "$from"/*.db "$from"/state.rdb; do
    if [ -f "$file" ]; then echo "would put back $file"; fi
  done
  exit 0
fi
unpack() {
  if [ -f "$from/$1.tar" ] && [ -d "$2" ]; then tar -C "$2" -xf "$from/$1.tar"; fi
}
unpack home "$HOME_FILES"
unpack bundles "$BUNDLE_FILES"
unpack mlflow "$MLFLOW_FILES"
for file in mlflow accounts; do
  if [ -f "$from/$file.db" ]; then
    rm -f "$MLFLOW_FILES/$file.db-wal" "$MLFLOW_FILES/$file.db-shm"
    cp "$from/$file.db" "$MLFLOW_FILES/$file.db"
  fi
done
if [ -f "$from/state.rdb" ]; then cp "$from/state.rdb" "$VALKEY_FILES/restore.rdb"; fi
