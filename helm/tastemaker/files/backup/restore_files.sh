#!/bin/sh
# Puts everything but PostgreSQL back, while nothing runs. Valkey's own start takes restore.rdb in place of its log.
set -eu
umask 077
from=$BACKUPS/$(cat "$WORK/stamp")
unpack() {
  if [ -f "$from/$1.tar" ] && [ -d "$2" ]; then tar -C "$2" -xf "$from/$1.tar"; fi
}
unpack home "$TASTEMAKER_FILES"
unpack bundles "$BUNDLE_FILES"
unpack mlflow /var/lib/mlflow
for file in mlflow accounts; do
  if [ -f "$from/$file.db" ]; then
    rm -f "/var/lib/mlflow/$file.db-wal" "/var/lib/mlflow/$file.db-shm"
    cp "$from/$file.db" "/var/lib/mlflow/$file.db"
  fi
done
if [ -f "$from/state.rdb" ]; then cp "$from/state.rdb" /data/restore.rdb; fi
