#!/bin/sh
# Keeps a copy of the database on the primary's volume before a migration runs: LiteFS runs this before the migration, so
# every start has it, also one that an image update brought. A copy that is not sound stops the start. Too little room does
# not: old copies make room, and where that is not enough the start goes on without a new one and says so.
#
# A migration that damages the database and fails is followed by start after start, each with a copy of the damage. So the
# first copy since the last migration that succeeded stays, named in <database>.unfinished: litefs.yml removes that file after
# the migration. And what equals the newest copy is not kept twice, so an application that cannot start prunes nothing.
# <database>.newest says at which position of LiteFS the newest was taken: where that has not moved nothing is copied.
#
# Arguments: database, LiteFS's data folder, its mount and port, the folder for copies, how many stay. Plain sh, od, df and
# the litefs that is running.
set -eu
LC_ALL=C
export LC_ALL
database=$1
data=$2
mount=$3
port=$4
folder=$5
keep=$6

say() {
    printf 'copy before the migration: %s\n' "$1" >&2
}

fail() {
    rm -f "$partial"
    say "$1 The start stops here, and nothing was migrated."
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

# Whether a copy, and half of it for the migration, has room; where df says nothing it is tried.
room() {
    left=$(df -Pk "$folder" 2>/dev/null | { read -r _ && read -r _ _ _ left _ && printf '%s' "$left"; }) || return 0
    case $left in '' | *[!0-9]*) return 0 ;; esac
    [ "$left" -ge "$need" ]
}

without() {
    rm -f "$partial"
    say "WARNING: none was made, since $left kB are free on the volume and $need are needed; newest: ${newest:-none}. Make room, or give the volumes more."
    note_the_first
    exit 0
}

# A glob is sorted by name, and a name by its time: the newest is the last.
find_newest() {
    newest=
    for copy in "$folder/$database".*.before-migration.sqlite; do
        [ ! -e "$copy" ] || newest=$copy
    done
}

note_the_first() {
    [ -z "$first" ] && [ -n "$newest" ] || return 0
    first=${newest##*/}
    printf '%s\n' "$first" >"$unfinished" || fail "$unfinished cannot be written."
}

partial=$folder/$database.partial
unfinished=$folder/$database.unfinished
position_file=$folder/$database.newest
mkdir -p "$folder" || fail "$folder cannot be made."
chmod 0700 "$folder"
rm -f "$partial"
[ -e "$data/dbs/$database/database" ] || exit 0
[ "$keep" -ge 1 ] || keep=1

find_newest
first=$(cat "$unfinished" 2>/dev/null) || first=
[ -n "$first" ] && [ -e "$folder/$first" ] || first=
position=$(cat "$mount/$database-pos" 2>/dev/null) || position=
if [ -n "$position" ] && [ -n "$newest" ] && [ "$(cat "$position_file" 2>/dev/null)" = "$position ${newest##*/}" ]; then
    note_the_first
    say "nothing was written since $newest"
    exit 0
fi

# The oldest go where there is no room, but for the first of those whose migration did not succeed, or else the newest.
protected=${first:+$folder/$first}
protected=${protected:-$newest}
need=$(($(wc -c <"$data/dbs/$database/database") * 3 / 2048 + 1))
for copy in "$folder/$database".*.before-migration.sqlite; do
    ! room || break
    [ "$copy" = "$protected" ] || rm -f "$copy"
done
find_newest
room || without

if ! litefs export -url "http://localhost:$port" -name "$database" "$partial" >&2; then
    rm -f "$partial"
    room || without
    fail 'the export failed.'
fi

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

if [ -n "$newest" ] && cmp -s "$partial" "$newest"; then
    rm -f "$partial"
else
    newest=$folder/$database.$(date -u +%Y%m%dT%H%M%SZ).before-migration.sqlite
    mv "$partial" "$newest" || fail 'the copy cannot be kept.'
fi
[ -z "$position" ] || printf '%s %s\n' "$position" "${newest##*/}" >"$position_file" || true
note_the_first

# The newest stay, and the first of those whose migration did not succeed.
set -- "$folder/$database".*.before-migration.sqlite
kept=$#
[ "$keep" -ge 2 ] || [ "$folder/$first" = "$newest" ] || keep=2
for copy in "$@"; do
    [ "$kept" -gt "$keep" ] || break
    [ "$copy" != "$folder/$first" ] || continue
    rm -f "$copy"
    kept=$((kept - 1))
done
say "kept as $newest ($checked)"
