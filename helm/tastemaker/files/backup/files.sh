#!/bin/sh
# The home's days and features, bundles and MLflow's files; what is written meanwhile is in the next backup.
set -eu
umask 077
dry=${1:-}
to=$BACKUPS/$(cat "$WORK/stamp").partial
for file in mlflow accounts; do
  if [ -f "$MLFLOW_FILES/$file.db" ]; then
    if [ "$dry" = --dry-run ]; then
      [ -r "$MLFLOW_FILES/$file.db" ] || { echo "$MLFLOW_FILES/$file.db cannot be read" >&2; exit 1; }
      echo "would copy $MLFLOW_FILES/$file.db"
    else
      python "$SCRIPTS/copy_sqlite.py" "$MLFLOW_FILES/$file.db" "$to/$file.db"
    fi
  fi
done
pack() {
  [ -d "$2" ] || return 0
  if [ "$dry" = --dry-run ]; then
    [ -r "$2" ] && [ -x "$2" ] || { echo "$2 cannot be read" >&2; exit 1; }
    echo "would pack $2, $(du -sk "$2" | cut -f 1) kB at most"
    return 0
  fi
  tar -C "$2" -cf "$to/$1.tar" --exclude=./run --exclude=./logs --exclude=./checkpoints --exclude='./*.db*' . || [ $? -eq 1 ]
}
pack home "$HOME_FILES"
pack bundles "$BUNDLE_FILES"
pack mlflow "$MLFLOW_FILES"
