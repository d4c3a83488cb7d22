#!/bin/sh
# MLflow's tables in PostgreSQL. libpq does not know SQLAlchemy's driver names.
set -eu
umask 077
uri=$(printf '%s' "$MLFLOW_BACKEND_STORE_URI" | sed 's/^postgresql+[a-z0-9]*:/postgresql:/')
if [ "${1:-}" = --dry-run ]; then
  pg_dump --schema-only --file /dev/null --dbname "$uri"
  echo "would dump MLflow's tables, which can be read"
  exit 0
fi
pg_dump --format=custom --file "$BACKUPS/$(cat "$WORK/stamp").partial/mlflow.pgdump" --dbname "$uri"
