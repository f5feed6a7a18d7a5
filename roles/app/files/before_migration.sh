#!/bin/sh
# Keeps a copy of the database on the primary's volume before a migration runs: LiteFS runs this before the migration, so
# every start has it, also one that an image update brought. A failure stops the start.
#
# A migration that damages the database and fails is followed by start after start, each with a copy of the damage. So the
# first copy since the last migration that succeeded stays, named in <database>.unfinished: litefs.yml removes that file after
# the migration. And what equals the newest copy is not kept twice, so an application that cannot start prunes nothing.
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
unfinished=$folder/$database.unfinished
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
[ "$(head -c 15 "$partial")" = 'SQLite format 3' ] || fail 'the export is no SQLite database.'
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
    checked='its integrity check is ok'
else
    checked='its integrity was not checked: no sqlite3 in the image'
fi

# A glob is sorted by name, and a name by its time: the newest is the last.
newest=
for copy in "$folder/$database".*.before-migration.sqlite; do
    [ ! -e "$copy" ] || newest=$copy
done
if [ -n "$newest" ] && cmp -s "$partial" "$newest"; then
    rm -f "$partial"
else
    newest=$folder/$database.$(date -u +%Y%m%dT%H%M%SZ).before-migration.sqlite
    mv "$partial" "$newest" || fail 'the copy cannot be kept.'
fi

first=$(cat "$unfinished" 2>/dev/null) || first=
if [ -z "$first" ] || [ ! -e "$folder/$first" ]; then
    first=${newest##*/}
    printf '%s\n' "$first" >"$unfinished" || fail "$unfinished cannot be written."
fi

# The newest stay, and the first of those whose migration did not succeed.
set -- "$folder/$database".*.before-migration.sqlite
left=$#
[ "$keep" -ge 1 ] || keep=1
[ "$keep" -ge 2 ] || [ "$folder/$first" = "$newest" ] || keep=2
for copy in "$@"; do
    [ "$left" -gt "$keep" ] || break
    [ "$copy" != "$folder/$first" ] || continue
    rm -f "$copy"
    left=$((left - 1))
done
printf 'copy before the migration: kept as %s (%s)\n' "$newest" "$checked" >&2
