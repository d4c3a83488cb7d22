#!/bin/sh
# Puts MLflow's tables back into PostgreSQL.
set -eu
from=$BACKUPS/$(cat "$WORK/stamp")/mlflow.pgdump
if [ "${1:-}" = --dry-run ]; then
  listed=$(pg_restore --list "$from")
  echo "would put back $(printf '%s\n' "$listed" | grep -c 'TABLE DATA') tables of MLflow"
  exit 0
fi
uri=$(printf '%s' "$MLFLOW_BACKEND_STORE_URI" | sed 's/^postgresql+[a-z0-9]*:/postgresql:/')
pg_restore --clean --if-exists --no-owner --dbname "$uri" "$from"
