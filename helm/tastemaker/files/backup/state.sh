#!/bin/sh
# A snapshot of the state, as a replica gets one.
set -eu
umask 077
REDISCLI_AUTH=$(cat /run/secrets/valkey/backup)
export REDISCLI_AUTH
valkey-cli -h "$VALKEY_HOST" -p 6379 --user backup "$@" --rdb "$BACKUPS/$(cat "$WORK/stamp").partial/state.rdb"
