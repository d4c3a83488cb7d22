#!/bin/sh
# Writes the ACL file from the mounted passwords, of which only hashes go into it; and puts a restored snapshot in place.
set -eu
umask 077
secrets=${1:-/run/secrets/valkey} acl=${2:-/run/valkey/users.acl} data=${3:-/data} template=${4:-/etc/valkey/users.acl}

cp "$template" "$acl"
for user in serving stream admin features ray backup; do
  hash=$(printf '%s' "$(cat "$secrets/$user")" | sha256sum | cut -d ' ' -f 1)
  sed -i "s/@$user@/#$hash/" "$acl"
done

if [ -f "$data/restore.rdb" ]; then
  rm -rf "$data/appendonlydir"
  mkdir "$data/appendonlydir"
  mv "$data/restore.rdb" "$data/appendonlydir/appendonly.aof.1.base.rdb"
  echo 'file appendonly.aof.1.base.rdb seq 1 type b' > "$data/appendonlydir/appendonly.aof.manifest"
fi
