#!/bin/sh
# Puts MLflow's tables back into PostgreSQL.
set -eu
uri=$(printf '%s' "$MLFLOW_BACKEND_STORE_URI" | sed 's/^postgresql+[a-z0-9]*:/postgresql:/')
pg_restore --clean --if-exists --no-owner --dbname "$uri" "$BACKUPS/$(cat "$WORK/stamp")/mlflow.pgdump"
