#!/bin/sh
# Keeps a copy of the database on the primary's volume before a migration runs: LiteFS runs this before the migration, so
# every start has it, also one that an image update brought. A failure stops the start.
#
# Arguments: database, LiteFS's data folder and port, the folder for copies, how many stay. Plain sh, od and the litefs that is running.
set -eu
LC_ALL=C
export LC_ALL
database=$1
data=$2
port=$3
folder=$4
keep=$5

fail() {
    rm -f "$partial"
    printf 'copy before the migration: %s The start stops here, and nothing was migrated.\n' "$1" >&2
    exit 1
}

# An unsigned number of $3 bytes, big endian, at offset $2 of file $1.
number() {
    value=0
    for byte in $(od -An -v -tu1 -j "$2" -N "$3" "$1"); do
        value=$((value * 256 + byte))
    done
    printf '%s' "$value"
}

partial=$folder/$database.partial
mkdir -p "$folder" || fail "$folder cannot be made."
chmod 0700 "$folder"
rm -f "$partial"
if [ ! -e "$data/dbs/$database/database" ]; then
    printf 'copy before the migration: there is no database yet.\n' >&2
    exit 0
fi
litefs export -url "http://localhost:$port" -name "$database" "$partial" >&2 || fail 'the export failed.'

# LiteFS ends an export that broke off as if it were whole, with the error text at its end.
size=$(wc -c <"$partial")
page=$(number "$partial" 16 2)
[ "$page" != 1 ] || page=65536
[ "$page" -ge 512 ] && [ $((size % page)) -eq 0 ] || fail "the export has $size bytes, which are no whole pages."
if [ "$(number "$partial" 24 4)" = "$(number "$partial" 92 4)" ]; then
    [ $((size / page)) -eq "$(number "$partial" 28 4)" ] || fail "the export has $((size / page)) pages, and its header says $(number "$partial" 28 4)."
fi
if command -v sqlite3 >/dev/null 2>&1; then
    # A copy in WAL mode needs a folder to write into; immutable leaves nothing beside it.
    found=$(sqlite3 "file:$partial?immutable=1" 'PRAGMA integrity_check(1)') || found='not readable'
    [ "$found" = ok ] || fail "the export fails its integrity check ($found)."
fi
mv "$partial" "$folder/$database.$(date -u +%Y%m%dT%H%M%SZ).before-migration.sqlite" || fail 'the copy cannot be kept.'

# A glob is sorted by name, and a name by its time: the newest stay.
set -- "$folder/$database".*.before-migration.sqlite
while [ $# -gt "$keep" ]; do
    rm -f "$1"
    shift
done
printf 'copy before the migration: kept in %s\n' "$folder" >&2
