#!/bin/sh
# A snapshot of the state, as a replica gets one. Its words are those of valkey-cli's connection.
set -eu
umask 077
REDISCLI_AUTH=$(cat /run/secrets/valkey/backup)
export REDISCLI_AUTH
to=$BACKUPS/$(cat "$WORK/stamp").partial/state.rdb
for word; do
  shift
  if [ "$word" = --dry-run ]; then to=/dev/null; else set -- "$@" "$word"; fi
done
if [ "$to" = /dev/null ]; then
  said=$(valkey-cli -h "$VALKEY_HOST" -p 6379 --user backup "$@" ping)
  [ "$said" = PONG ] || { echo "Valkey says: $said" >&2; exit 1; }
  echo "would fetch a snapshot from $VALKEY_HOST"
  exit 0
fi
valkey-cli -h "$VALKEY_HOST" -p 6379 --user backup "$@" --rdb "$to"
