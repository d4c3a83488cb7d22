#!/bin/sh
# Writes the ACL file from the mounted passwords, of which only hashes go into it; and puts a restored snapshot in place.
set -eu
umask 077
secrets=${1:-/run/secrets/valkey} acl=${2:-/run/valkey/users.acl} data=${3:-/data} template=${4:-/etc/valkey/users.acl}

hash() {
  printf '#%s' "$(printf '%s' "$1" | sha256sum | cut -d ' ' -f 1)"
}
cp "$template" "$acl"
for user in serving stream admin features ray backup; do
  password=$(cat "$secrets/$user")
  [ -n "$password" ] || { echo "$secrets/$user has no password" >&2; exit 1; }
  passwords=$(hash "$password")
  # While a password is changed, clients that have not been rolled out yet come with the one of before.
  before=
  if [ -f "$secrets/$user.before" ]; then before=$(cat "$secrets/$user.before"); fi
  if [ -n "$before" ]; then passwords="$passwords $(hash "$before")"; fi
  sed -i "s/@$user@/$passwords/" "$acl"
done

if [ -f "$data/restore.rdb" ]; then
  rm -rf "$data/appendonlydir"
  mkdir "$data/appendonlydir"
  mv "$data/restore.rdb" "$data/appendonlydir/appendonly.aof.1.base.rdb"
  echo 'file appendonly.aof.1.base.rdb seq 1 type b' > "$data/appendonlydir/appendonly.aof.manifest"
fi
