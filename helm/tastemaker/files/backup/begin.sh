#!/bin/sh
# Opens the folder of a backup. Its name loses `.partial` when all steps are done.
set -eu
umask 077
stamp=$(date -u +%Y%m%dT%H%M%SZ)
mkdir "$BACKUPS/$stamp.partial"
echo "$stamp" > "$WORK/stamp"
