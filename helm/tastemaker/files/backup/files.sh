#!/bin/sh
# The home's days and features, bundles and MLflow's files; what is written meanwhile is in the next backup.
set -eu
umask 077
to=$BACKUPS/$(cat "$WORK/stamp").partial
for file in mlflow accounts; do
  if [ -f "$MLFLOW_FILES/$file.db" ]; then
    python "$SCRIPTS/copy_sqlite.py" "$MLFLOW_FILES/$file.db" "$to/$file.db"
  fi
done
pack() {
  [ -d "$2" ] || return 0
  tar -C "$2" -cf "$to/$1.tar" --exclude=./run --exclude=./logs --exclude=./checkpoints --exclude='./*.db*' . || [ $? -eq 1 ]
}
pack home "$HOME_FILES"
pack bundles "$BUNDLE_FILES"
pack mlflow "$MLFLOW_FILES"
