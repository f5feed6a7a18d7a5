#!/bin/sh
# Identity guard: decides, before LiteFS starts, whether this pod may start on its volume.
#
# Under a static lease LiteFS starts as primary on whatever volume it finds: on an empty one it founds a new, empty
# cluster; one whose database is no SQLite file it empties; with an old one it rolls every replica back. So the primary
# has to prove that its volume holds the data that the record (a ConfigMap outside the volumes, mounted at
# $GUARD_IDENTITY_DIR) speaks of. A replica gets the primary's data whatever its own volume holds: it is fenced where
# that would throw away what the running primary does not have. An empty volume adopts the cluster's id, and LiteFS itself
# refuses a foreign one. What LiteFS does with each kind of damage stands in docs/runbooks/primary-refused.md.
#
# Plain sh for busybox. It reads; besides the log and the termination message of a refusal it writes one file, `ahead`, on
# the volume of a replica that is fenced for what only it has: the primary's TXID goes on, the volume's does not.
#
# Environment: POD_NAME, POD_IP, GUARD_SERVICE (the headless Service's full name), GUARD_PORT (LiteFS's HTTP API),
# GUARD_DATABASE (the database's name), GUARD_DATA_DIR, GUARD_IDENTITY_DIR, GUARD_RECORD (the record's name, for messages),
# GUARD_LITEFS_CONFIG (litefs.yml, as LiteFS will read it; whom it names counts as primary where there is no record);
# optional GUARD_PATIENCE (seconds for a peer that does not answer), GUARD_SETTLE (seconds in which a mounted ConfigMap may still be an old one), GUARD_COLD (seconds
# since the host's start in which other hosts may still be starting), GUARD_TERMINATION_LOG, GUARD_BUSYBOX (the busybox
# whose wget and nslookup are used), GUARD_ARCHIVE_PORT (where the archive answers, if there is one; empty: it is not asked).
set -eu
LC_ALL=C
export LC_ALL

patience=${GUARD_PATIENCE:-20}
# The kubelet shows a changed ConfigMap after up to about a minute and a half.
settle=${GUARD_SETTLE:-90}
cold=${GUARD_COLD:-900}
busybox=${GUARD_BUSYBOX:-busybox}
# Beside the pods' own name, so that a site gets an archive without a restart of its pods.
archive=${POD_NAME%-*}-archive.${GUARD_SERVICE#*.}
# A pod of a template that was made before the port stood in it runs this program, too.
archive_port=${GUARD_ARCHIVE_PORT-9104}
runbook=docs/runbooks/primary-refused.md
newline='
'
# How it ends, for programs; docs/failure-modes.md says what each means.
fenced=10
ahead=11
empty=12
no_cluster_id=13
older=14
record=15
unreadable=16
not_now=17

log() {
    printf 'identity guard: %s\n' "$*" >&2
}

# refuse CODE WORDS
refuse() {
    end "$1" "refuses to start as $role: $2"
}

# end CODE WORDS
end() {
    message="$POD_NAME $2 Nothing was changed. What to do: $runbook"
    log "$message"
    printf '%s\n' "$message" >"${GUARD_TERMINATION_LOG:-/dev/termination-log}" || log 'the termination message could not be written'
    exit "$1"
}

start() {
    log "$POD_NAME starts: $1"
    exit 0
}

# Seconds since the host's start: a clock that is never set.
seconds() {
    read -r uptime _ </proc/uptime
    printf '%s' "${uptime%%.*}"
}

# What a file holds, without white space; nothing if it is not there.
content() {
    if [ -f "$1" ]; then
        tr -d ' \t\r\n' <"$1"
    fi
}

is_cluster_id() {
    case $1 in
        LFSC????????????????) return 0 ;;
        *) return 1 ;;
    esac
}

is_number() {
    case $1 in
        '' | *[!0-9]*) return 1 ;;
        *) return 0 ;;
    esac
}

# Whether TXID $1 is below TXID $2; both are 16 hex digits in lower case, so the order of text is their order.
below() {
    expr "x$1" \< "x$2" >/dev/null
}

# $3 bytes of file $1 from byte $2 on, as hex digits; fewer where the file ends before.
hex() {
    # shellcheck disable=SC2046  # the words are what printf puts together
    printf '%s' $(od -A n -v -t x1 -j "$2" -N "$3" "$1" 2>/dev/null)
}

# Look at the newest transaction of database $1, once: the file whose name <first>-<last>.ltx has the highest last TXID.
# Sets ltx (the file, or nothing), ltx_header and txid, which is what the file says itself, for LiteFS reads that, or its
# name where the file is cut. Format: https://github.com/superfly/ltx (magic, flags, page size, commit, first, last TXID).
# (One find: there can be many thousands.)
look_into() {
    if [ "$looked_into" = "$1" ]; then
        return
    fi
    looked_into=$1
    ltx_header=''
    txid=0000000000000000
    ltx=$(find "$GUARD_DATA_DIR/dbs/$1/ltx" -name '*.ltx' 2>/dev/null |
        sed -n 's,^.*/\([0-9a-f]\{16\}-[0-9a-f]\{16\}\.ltx\)$,\1,p' | sort -t - -k 2 | tail -n 1)
    if [ -z "$ltx" ]; then
        return
    fi
    txid=${ltx#*-}
    txid=${txid%.ltx}
    ltx=$GUARD_DATA_DIR/dbs/$1/ltx/$ltx
    ltx_header=$(hex "$ltx" 0 32)
    case ${#ltx_header}$ltx_header in
        644c545831*) txid=${ltx_header#"${ltx_header%????????????????}"} ;;
        *) ltx_header='' ;;
    esac
}

# The checksum that the newest transaction file says the database has after it: its last 16 bytes are this and its own.
own_checksum() {
    tail -c 16 "$ltx" | od -A n -v -t x1 -N 8 | tr -d ' \n'
}

# Refuse a volume that cannot be read: it would look like an empty one.
refuse_if_closed() {
    for path in "" /clusterid /dbs "/dbs/$GUARD_DATABASE" "/dbs/$GUARD_DATABASE/database" "/dbs/$GUARD_DATABASE/ltx"; do
        file=$GUARD_DATA_DIR$path
        # Tried, not tested: sh takes for granted that root may read all, and in this container it may not.
        if [ -e "$file" ] && { ! true <"$file" || { [ -d "$file" ] && [ ! -e "$file/." ]; }; } 2>/dev/null; then
            refuse "$unreadable" "$file on its volume cannot be read by LiteFS's user (it belongs to $(stat -c '%u:%g, mode %a' "$file"))."
        fi
    done
}

# Refuse a database $1 that LiteFS would delete, or take although nothing proves it.
refuse_if_damaged() {
    folder=$GUARD_DATA_DIR/dbs/$1
    [ -s "$folder/database" ] || return 0
    header=$(hex "$folder/database" 0 100)
    case ${#header}$header in
        20053514c69746520666f726d6174203300*) ;;
        *)
            refuse "$empty" "the file of its database $1 is no SQLite database (any more): LiteFS would delete it and its transactions, and every replica would follow."
            ;;
    esac
    pages=${header#????????????????????????????????}
    pages=$((0x${pages%"${pages#????}"}))
    case $pages in
        1) pages=65536 ;;
        512 | 1024 | 2048 | 4096 | 8192 | 16384 | 32768) ;;
        *) refuse "$empty" "the header of its database $1 is damaged: it says a page size of $pages, and LiteFS would not start on it." ;;
    esac
    look_into "$1"
    if [ -z "$ltx" ]; then
        # In a site's first start a file may have been put there; later LiteFS always keeps the newest.
        [ "$state" = recorded ] || return 0
        refuse "$empty" "its database $1 has no transaction file (folder ltx): nothing proves what it is, and LiteFS would take it as it stands."
    fi
    if [ -z "$ltx_header" ]; then
        refuse "$empty" "the newest transaction file of its database $1, ${ltx##*/}, is cut or damaged: LiteFS would not start on it."
    fi
    fields=${ltx_header#????????????????}
    in_ltx=$((0x${fields%"${fields#????????}"}))
    fields=${fields#????????}
    if [ "$in_ltx" -ne "$pages" ]; then
        refuse "$empty" "its database $1 has pages of $pages bytes and the newest transaction has pages of $in_ltx: another file stands in its place, and LiteFS would not start on it."
    fi
    if [ $((0x${fields%"${fields#????????}"})) -eq 0 ]; then
        refuse "$empty" "the newest transaction of its database $1 drops it: LiteFS would delete the file."
    fi
}

# Ask DNS for the name $1. Sets reply, and found, which are the addresses.
resolve() {
    case $POD_IP in
        *:*) type=aaaa ;;
        *) type=a ;;
    esac
    reply=$("$busybox" nslookup "-type=$type" "$1." 2>&1) || :
    # What precedes the first Name: is the DNS server's own address.
    found=$(printf '%s\n' "$reply" | sed -n '/^Name:/,$s/^Address[^:]*:[[:space:]]*//p')
}

# Ask DNS for the pods' addresses. Sets peers (without this pod), listed (this pod is among them) and dns: found,
# none (DNS says that there are none) or failed (DNS gave no usable answer, which says nothing about peers).
look_up() {
    resolve "$GUARD_SERVICE"
    peers=''
    listed=no
    for address in $found; do
        if [ "$address" = "$POD_IP" ]; then
            listed=yes
        else
            peers="$peers $address"
        fi
    done
    dns=found
    if [ -z "$found" ]; then
        case $reply in
            *NXDOMAIN* | *'No answer'*) dns=none ;;
            *) dns=failed ;;
        esac
    fi
}

# timeout instead of wget's own -T, with which wget crashes in builds linked statically against glibc (Debian's).
get() {
    "$busybox" timeout 3 "$busybox" wget -q -Y off -O - "$1" 2>/dev/null | tr -d ' \t\r\n'
}

# The URL of address $1 and port $2.
url_of() {
    case $1 in
        *:*) printf 'http://[%s]:%s' "$1" "$2" ;;
        *) printf 'http://%s:%s' "$1" "$2" ;;
    esac
}

# Ask the LiteFS at address $1 and port $2. Prints "<cluster id or -> <is primary> <TXID or -> <checksum or ->" and then a line
# "<name> <TXID> <checksum>" for each database that it has; fails if it gave no usable answer.
ask() {
    url=$(url_of "$1" "$2")
    info=$(get "$url/info")
    case $info in
        *'"isPrimary":true'*) is_primary=true ;;
        *'"isPrimary":false'*) is_primary=false ;;
        *) return 1 ;;
    esac
    id=-
    case $info in
        *'"clusterID":"'*)
            id=${info#*'"clusterID":"'}
            id=${id%%'"'*}
            ;;
    esac
    vars=$(get "$url/debug/vars")
    names=$(printf '%s' "$vars" | awk '{
        while (match($0, /"name":"[^"]*","txid":"[0-9a-fA-F]*","checksum":"[0-9a-fA-F]*"/)) {
            split(substr($0, RSTART, RLENGTH), part, "\"")
            if (length(part[8]) == 16) print part[4], tolower(part[8]), tolower(part[12])
            $0 = substr($0, RSTART + RLENGTH)
        }
    }')
    position=''
    while read -r name number checksum; do
        if [ "$name" = "$GUARD_DATABASE" ]; then
            position="$number $checksum"
        fi
    done <<END
$names
END
    if [ -z "$position" ]; then
        # No such database is an answer; no LiteFS store, or a database without a TXID, is not.
        case $vars in
            *"\"$GUARD_DATABASE\":{"*) return 1 ;;
            *'"store":{'*) ;;
            *) return 1 ;;
        esac
    fi
    printf '%s %s %s\n%s\n' "${id:--}" "$is_primary" "${position:-- -}" "$names"
}

# Whether the patience with address $1 lasts; it begins when the address is first asked.
is_patient_with() {
    since=''
    for entry in $first_asked; do
        if [ "${entry%@*}" = "$1" ]; then
            since=${entry##*@}
        fi
    done
    if [ -z "$since" ]; then
        since=$(seconds)
        first_asked="$first_asked $1@$since"
    fi
    # Whole seconds: a difference of n may be little more than n - 1.
    [ $(($(seconds) - since)) -le "$patience" ]
}

# Ask every peer until it answers, its address is gone, or the patience with it ends: a network policy reaches a new
# pod seconds late, and a refused connection looks the same. Where not one of them answers soon after the host's start,
# which may have been a power cut of all hosts, the primary of a recorded cluster waits three times as long. A replica
# waits only for the primary's answer. Sets answers, one line a peer: <address> <the first line of ask>, and positions,
# one line a peer's database: <address> <cluster id> <name> <TXID>.
ask_peers() {
    answers=''
    positions=''
    asked=' '
    began=$(seconds)
    while :; do
        look_up
        pending=''
        unasked=''
        elapsed=$(($(seconds) - began))
        case $dns in
            failed)
                if [ "$elapsed" -ge $((patience * 3)) ]; then
                    refuse "$not_now" "the cluster's DNS gave no answer for $GUARD_SERVICE within $elapsed s, so it cannot tell whether another pod holds newer data; it tries again by itself."
                fi
                pending=dns
                ;;
            *)
                # To be alone counts once DNS knows this pod: before that its answer may be from before the others came.
                if [ -z "$peers" ] && [ "$listed" = no ] && [ "$elapsed" -le "$patience" ]; then
                    pending=dns
                fi
                ;;
        esac
        for peer in $peers; do
            case $asked in
                *" $peer "*) continue ;;
            esac
            if reply=$(ask "$peer" "$GUARD_PORT"); then
                first=${reply%%"$newline"*}
                answers="$answers$peer $first$newline"
                while read -r name number _; do
                    positions="$positions$peer ${first%% *} $name $number$newline"
                done <<END
${reply#"$first"}
END
                asked="$asked$peer "
            elif is_patient_with "$peer"; then
                pending="$pending $peer"
            else
                unasked="$unasked $peer"
            fi
        done
        if [ -z "$pending" ] && [ -n "$unasked" ] && [ -z "$answers" ] && [ "$role$state" = primaryrecorded ] &&
            [ "$(seconds)" -lt "$cold" ] && [ "$elapsed" -le $((patience * 3)) ]; then
            pending=$unasked
        fi
        if [ -z "$pending" ] || { [ "$role" = replica ] && [ -n "$(leader)" ]; }; then
            break
        fi
        sleep 1
    done
    if [ -n "$unasked" ]; then
        log "could not ask$unasked: no answer on port $GUARD_PORT within $(($(seconds) - began)) s"
    fi
    if [ -z "$answers" ]; then
        log "no other pod answered; DNS knows ${peers:-none}"
    else
        log "answers (address, cluster id, is primary, TXID, checksum): $(printf '%s' "$answers" | tr '\n' ';')"
    fi
}

# The answer of a peer that says that it is primary.
leader() {
    printf '%s' "$answers" | awk '$3 == "true" { print; exit }'
}

# Refuse if a peer of the same cluster is ahead of this volume in a database that both have.
refuse_if_behind() {
    while read -r peer id name number; do
        if [ -z "$number" ] || [ "$id" != "$own_id" ] || [ ! -d "$GUARD_DATA_DIR/dbs/$name" ]; then
            continue
        fi
        look_into "$name"
        if below "$txid" "$number"; then
            refuse "$older" "its volume ends at TXID $txid of $name, and the pod at $peer has TXID $number: starting on this older copy would roll every replica back."
        fi
    done <<END
$positions
END
}

# Refuse if the archive, which answers as a replica does, has more of this cluster than this volume. Asked once: one that
# is away has no say. What it had when a person, or a restore, went on without it is no reason either: it says what the
# record said of that when it last was level with a primary. No times are compared, which would be of two clocks.
refuse_if_archive_has_more() {
    [ -n "$archive_port" ] || return 0
    resolve "$archive"
    for address in $found; do
        heard=$(get "$(url_of "$address" "$archive_port")/info")
        noted=
        case $heard in
            *'"heard":"'*'"givenUp":"'*)
                noted=${heard#*'"givenUp":"'}
                noted=${noted%%'"'*}
                ;;
            *'"heard":"'*) ;; # an archive of before it noted that
            *) continue ;;
        esac
        heard=${heard#*'"heard":"'}
        heard=${heard%%'"'*}
        given_up=$(content "$GUARD_IDENTITY_DIR/archiveGivenUpTime")
        if [ "$given_up" != "$noted" ]; then
            log "the archive heard a primary until $heard (its clock), and what it had then was given up at $given_up"
            continue
        fi
        reply=$(ask "$address" "$archive_port") || continue
        first=${reply%%"$newline"*}
        if [ "${first%% *}" != "$own_id" ]; then
            continue
        fi
        while read -r name number _; do
            if [ -z "$number" ] || [ ! -d "$GUARD_DATA_DIR/dbs/$name" ]; then
                continue
            fi
            look_into "$name"
            if below "$txid" "$number"; then
                refuse "$older" "its volume ends at TXID $txid of $name, and the archive, which heard a primary of this cluster until $heard, has TXID $number, and starting on this older copy would lose what came after: ansible-playbook playbooks/promote.yml makes a replica primary and brings that back."
            fi
        done <<END
${reply#"$first"}
END
    done
}

# Whether LiteFS will follow the archive and not be primary: promote.yml brings back what the archive has more.
is_fed() {
    grep -q "^ *hostname: ${POD_NAME%-*}-archive-[0-9]* *$" "${GUARD_LITEFS_CONFIG:-/dev/null}" 2>/dev/null
}

# Whether the record says that what the archive has more is still to be brought back (operations/promote.py, Before). A
# promote whose old primary is not fenced any more came to its end.
is_awaited() {
    begun=$(content "$GUARD_IDENTITY_DIR/promote")
    case $begun in
        *'"archive":"'[0-9a-f]*) ;;
        *) return 1 ;;
    esac
    from=${begun#*'"from":'}
    case ",$(content "$GUARD_IDENTITY_DIR/fencedOrdinals")," in
        *",${from%%[!0-9]*},"*) return 0 ;;
        *) return 1 ;;
    esac
}

fence() {
    end "$ahead" "is fenced: $1, and LiteFS would replace what only this volume may have by the primary's data; playbooks/replica_reset.yml -e replica_reset_targets=[$ordinal] exports it and re-seeds it."
}

# A replica of the recorded cluster: it may start unless the running primary lacks what its volume holds.
guard_replica() {
    folder=$GUARD_DATA_DIR/dbs/$GUARD_DATABASE
    own_id=$(content "$GUARD_DATA_DIR/clusterid")
    look_into "$GUARD_DATABASE"
    if [ "$state" != recorded ]; then
        start "it is a replica; ordinal $primary is the primary"
    fi
    if [ -z "$ltx" ] && [ ! -s "$folder/database" ]; then
        start "it is a replica, and its volume holds nothing; ordinal $primary is the primary"
    fi
    if [ -n "$own_id" ] && [ "$own_id" != "$recorded" ]; then
        start "it is a replica; its volume is of cluster $own_id, which LiteFS refuses by itself"
    fi
    # As it was seen once: the primary's TXID goes on, and would soon hide it.
    if [ "$(content "$GUARD_DATA_DIR/ahead")" = "$txid" ]; then
        fence "its volume ends at TXID $txid of $GUARD_DATABASE, which the running primary did not have"
    fi
    # Less than a primary's: that one waits for this pod's answer.
    patience=$(((patience + 1) / 2))
    ask_peers
    answer=$(leader)
    if [ -z "$answer" ]; then
        start "it is a replica, and no primary answers: LiteFS waits for it, and its guard asks this pod first"
    fi
    read -r peer id _ number checksum <<END
$answer
END
    if [ "$id" != "${own_id:-$id}" ] || [ "$number" = - ]; then
        start "it is a replica; the primary at $peer holds cluster $id"
    fi
    if [ -z "$ltx" ]; then
        fence "its volume holds a database $GUARD_DATABASE without a transaction file, so nothing tells whether it is ahead of the primary at $peer"
    fi
    if below "$number" "$txid" || { [ "$number" = "$txid" ] && [ "$(own_checksum)" != "$checksum" ]; }; then
        printf '%s\n' "$txid" >"$GUARD_DATA_DIR/ahead" || log 'the file ahead could not be written to the volume'
        fence "its volume ends at TXID $txid of $GUARD_DATABASE, and the primary at $peer has TXID $number with other content"
    fi
    start "it is a replica at TXID $txid; the primary at $peer has $number"
}

# Whom litefs.yml names as primary: "<of candidate> <of hostname> "; LiteFS follows that, and the guard the record.
rendered() {
    # shellcheck disable=SC2016  # the $ is LiteFS's
    sed -n -e 's/^ *candidate: *${POD_NAME == ".*-\([0-9]*\)"} *$/\1/p' -e 's/^ *hostname: .*-\([0-9]*\) *$/\1/p' \
        "$GUARD_LITEFS_CONFIG" 2>/dev/null | tr '\n' ' '
}

# Sets what the record says, and this pod's role by it.
read_record() {
    state=$(content "$GUARD_IDENTITY_DIR/state")
    recorded=$(content "$GUARD_IDENTITY_DIR/clusterID")
    primary=$(content "$GUARD_IDENTITY_DIR/primaryOrdinal")
    damage=''
    if [ -n "$state" ] && ! is_number "$primary"; then
        damage="the record ConfigMap $GUARD_RECORD is damaged: its primaryOrdinal is '$primary', which is no number."
    fi
    if [ -z "$state" ] || [ -n "$damage" ]; then
        primary=$(rendered)
        primary=${primary%% *}
        primary=${primary:-$ordinal} # where nothing says who it is, each is looked at as if it were
    fi
    role=replica
    if [ "$ordinal" = "$primary" ]; then
        role=primary
    fi
    # An old primary whose role was moved away. As a replica its unreplicated tail would be thrown away without a word.
    case ",$(content "$GUARD_IDENTITY_DIR/fencedOrdinals")," in
        *",$ordinal,"*)
            end "$fenced" "is fenced: ordinal $primary is the primary now, and this volume may hold what no other pod has; playbooks/replica_reset.yml -e replica_reset_targets=[$ordinal] exports it and re-seeds it."
            ;;
    esac
}

ordinal=${POD_NAME##*-}
looked_into=''
read_record
if [ -n "$damage" ]; then
    if [ "$role" = primary ]; then
        refuse "$record" "$damage"
    fi
    start "it is a replica; the record is damaged, and ordinal $primary was the primary"
fi
# One of the two ConfigMaps may be shown as it was a minute ago: after a promote both say the same within that time.
began=$(seconds)
while :; do
    if [ -n "${GUARD_LITEFS_CONFIG:-}" ] && [ -e "$GUARD_LITEFS_CONFIG" ] && [ "$(rendered)" != "$primary $primary " ]; then
        waits="litefs.yml names ordinal $(rendered)as primary, the record $primary"
        why="the record ConfigMap $GUARD_RECORD says that ordinal $primary is the primary, and litefs.yml names '$(rendered)' (candidate and hostname), so LiteFS would not go by the record: let playbooks/promote.yml finish, or run site.yml, which renders it from the record"
    elif [ "$role$state" = primaryrecorded ] && is_awaited && ! is_fed; then
        waits='what the archive has more is not there yet, says the record'
        why="the record ConfigMap $GUARD_RECORD says that what the archive has more is to be brought back first: run ansible-playbook playbooks/promote.yml again, which does that (with -e promote_from_archive=false it is left there, and -e promote_call_off=true gives the role back)"
    else
        break
    fi
    if [ $(($(seconds) - began)) -ge "$settle" ]; then
        refuse "$not_now" "$why; it tries again by itself."
    fi
    log "waits: $waits"
    sleep 2
    read_record
done
refuse_if_closed
if [ "$role" = replica ]; then
    first_asked=''
    guard_replica
fi

# site.yml keeps the first start waiting until the volumes are safe, where the cluster cannot do that at their creation.
while [ "$(content "$GUARD_IDENTITY_DIR/hold")" = true ]; do
    log "waits: the record ConfigMap $GUARD_RECORD says hold"
    sleep 5
done

own_id=$(content "$GUARD_DATA_DIR/clusterid")
look_into "$GUARD_DATABASE"
own_txid=$txid
low_water=$(content "$GUARD_IDENTITY_DIR/lowWaterTXID")
has_database=no
if [ -s "$GUARD_DATA_DIR/dbs/$GUARD_DATABASE/database" ]; then
    has_database=yes
fi
log "$POD_NAME is the primary; record: ${state:-none} ${recorded:--}; volume: cluster id ${own_id:--}, $GUARD_DATABASE ${has_database}, TXID $own_txid"

case $state in
    '')
        refuse "$record" "there is no record ConfigMap $GUARD_RECORD that says which data this site has (site.yml writes it)."
        ;;
    # playbooks/restore.yml proved that no copy is left; LiteFS runs no command, and the restored file comes next.
    bootstrap | restore) ;;
    recorded)
        is_cluster_id "$recorded" ||
            refuse "$record" "the record ConfigMap $GUARD_RECORD holds '$recorded', which is no LiteFS cluster id."
        [ -n "$own_id" ] || [ "$has_database" = yes ] ||
            refuse "$empty" "its volume is empty, and the record says that this site has the data of cluster $recorded."
        [ -n "$own_id" ] ||
            refuse "$no_cluster_id" "its volume holds no cluster id, and the record says that this site's cluster is $recorded."
        [ "$own_id" = "$recorded" ] ||
            refuse "$empty" "its volume holds $own_id, and the record says that this site's cluster is $recorded."
        [ "$has_database" = yes ] ||
            refuse "$empty" "its volume has the cluster id $recorded but no database $GUARD_DATABASE."
        ;;
    *)
        refuse "$record" "the record ConfigMap $GUARD_RECORD has the unknown state '$state'."
        ;;
esac

if [ "$state" != restore ]; then
    for folder in "$GUARD_DATA_DIR"/dbs/*/; do
        if [ -d "$folder" ]; then
            folder=${folder%/}
            refuse_if_damaged "${folder##*/}"
        fi
    done
fi
if [ "$state" = recorded ] && [ -n "$low_water" ]; then
    case $low_water in
        *[!0-9a-f]*) well=no ;;
        ????????????????) well=yes ;;
        *) well=no ;;
    esac
    [ "$well" = yes ] ||
        refuse "$record" "the record ConfigMap $GUARD_RECORD is damaged: its lowWaterTXID is '$low_water', which is no TXID."
    if below "$own_txid" "$low_water"; then
        refuse "$older" "its volume ends at TXID $own_txid of $GUARD_DATABASE, and the record says that this site had TXID $low_water at $(content "$GUARD_IDENTITY_DIR/lowWaterTime"): starting on this older copy would lose what came after."
    fi
fi

first_asked=''
rounds=0
while :; do
    ask_peers
    leader=$(leader)
    if [ -z "$leader" ]; then
        break
    fi
    leader=${leader%% *}
    # Said at once and then about every 10 s.
    if [ $((rounds % 5)) -eq 0 ]; then
        log "waits: the pod at $leader says that it is primary"
    fi
    rounds=$((rounds + 1))
    sleep 2
done

if [ "$state" = bootstrap ]; then
    foreign=$(printf '%s' "$answers" | awk -v own="${own_id:--}" '$2 != "-" && $2 != own { print $1, $2; exit }')
    if [ -n "$foreign" ]; then
        refuse "$empty" "its volume holds ${own_id:-no cluster}, and the pod at ${foreign% *} already holds cluster ${foreign#* }."
    fi
fi
if [ "$state" = restore ]; then
    start 'a backup is being restored, onto whatever its volume holds'
fi
refuse_if_behind
if [ "$state" = recorded ]; then
    if is_fed; then
        start "its volume holds cluster $own_id at TXID $own_txid; LiteFS follows the archive, which has more"
    fi
    refuse_if_archive_has_more
fi

if [ "$state" = bootstrap ] && [ -z "$own_id" ]; then
    start 'first start of this site, on an empty volume'
fi
if [ -z "$answers" ] && [ -n "$peers" ]; then
    start "its volume holds cluster $own_id at TXID $own_txid, not below ${low_water:-what is recorded}; of the pods that DNS knows none answered"
fi
start "its volume holds cluster $own_id at TXID $own_txid, and no pod that answered has more"
