#!/bin/sh
# Makes LiteFS's mount read-only on a replica, before the application starts. LiteFS refuses a replica's write only where it is
# committed, and an application that reads one row of INSERT ... RETURNING and drops the rest never hears of it. On a
# mount that is read-only SQLite refuses every write at once. LiteFS itself writes to its data folder, not through the mount.
#
# SQLite opens a database in WAL mode on such a mount only where its -wal exists. LiteFS shows there what is in its data
# folder, so an empty one is put in there, also for a database that comes later.
#
# Arguments: whether this pod is the primary (LiteFS's own expression: true or false), the mount, LiteFS's data folder.
# Plain sh and mount. It never keeps the application from starting.
set -u
primary=$1
mount=$2
data=$3

say() {
    printf 'read-only replica: %s\n' "$1" >&2
}

complete_all() {
    for database in "$data"/dbs/*/database; do
        wal=${database%database}wal
        if [ -e "$database" ] && [ ! -e "$wal" ]; then
            : >>"$wal"
        fi
    done
}

[ "$primary" = false ] || exit 0
# -i: no helper for file systems of the type litefs is looked for.
if ! why=$(mount -i -o remount,bind,ro "$mount" 2>&1); then
    say "NOT made: $mount stays writable, so a write that is no error may be lost here (${why:-mount failed})"
    exit 0
fi
complete_all
while kill -0 "$PPID" 2>/dev/null; do
    sleep 1
    complete_all
done &
say "$mount is read-only"
