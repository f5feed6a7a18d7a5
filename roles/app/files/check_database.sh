#!/bin/sh
# Looks at the primary's database before and after the migration: LiteFS runs this at each start. A database that the record
# says is there and is not stops the start: LiteFS deletes a file that it does not take for a database, and the migration
# would make an empty one that every replica follows.
#
# The other two are only said. A replica ends at the very transaction that changes the journal mode from WAL, so a
# primary that stopped afterwards would save no replica and take the writes away as well.
#
# Arguments: database, LiteFS's data folder, the folder with the record. Plain sh and od.
set -eu
LC_ALL=C
export LC_ALL
database=$1
file=$2/dbs/$1/database
record=$3

say() {
    printf 'database %s: %s\n' "$database" "$1" >&2
}

recorded() {
    cat "$record/$1" 2>/dev/null || true
}

if [ ! -s "$file" ]; then
    [ "$(recorded state)" != recorded ] || {
        say 'the record says that this cluster holds it, and it is not there. The start stops here, and nothing was migrated: docs/runbooks/primary-refused.md.'
        exit 1
    }
    say 'there is none yet.'
    exit 0
fi
# Bytes 18 and 19 are 2 in WAL mode; 52 to 55 are not 0 with auto_vacuum, and 64 to 67 not where it is incremental.
# shellcheck disable=SC2046 # numbers
set -- $(od -An -v -tu1 -j 18 -N 50 "$file")
[ "$1$2" = 22 ] && mode=wal || mode=delete
shift 34
vacuum=$1$2$3$4
if [ "$mode" = delete ] && [ "$(recorded journalMode)" = wal ]; then
    say 'WARNING: its journal mode was changed from WAL, which ends every replica that was connected: docs/runbooks/journal-mode.md.'
fi
if [ "$mode" = wal ] && [ "$vacuum" != 0000 ]; then
    say 'WARNING: it has auto_vacuum in WAL mode, where a DELETE that makes the file much smaller locks all writes: docs/runbooks/writes-locked.md.'
fi
