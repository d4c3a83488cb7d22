#!/bin/sh
# Removes days of the log and checkpoints that are older than their number of days; 0 keeps all.
set -eu
home=${1:-/var/lib/tastemaker}

drop_days() {
  [ "$2" -gt 0 ] || return 0
  oldest=$(date -u -d "$2 days ago" +%Y-%m-%d)
  for day in "$home/$1"/*/day=*; do
    name=${day##*/day=}
    if [ -d "$day" ] && [ "$(printf '%s\n%s\n' "$name" "$oldest" | sort | head -n 1)" = "$name" ] && [ "$name" != "$oldest" ]; then
      rm -rf "$day"
      echo "removed $day"
    fi
  done
}

drop_days events "$EVENT_DAYS"
drop_days decisions "$DECISION_DAYS"
if [ "$CHECKPOINT_DAYS" -gt 0 ] && [ -d "$home/checkpoints" ]; then
  find "$home/checkpoints" -type f -mtime "+$CHECKPOINT_DAYS" -print -delete
  find "$home/checkpoints" -mindepth 1 -type d -empty -delete
fi
