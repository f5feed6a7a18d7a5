#!/bin/sh
# Identity guard: decides, before LiteFS starts, whether this pod may start on its volume.
#
# Under a static lease LiteFS starts as primary on whatever volume it finds: on an empty one it founds a new, empty
# cluster; on an old one it rolls every replica back. So the primary has to prove that its volume holds the data that
# the record (a ConfigMap outside the volumes, mounted at $GUARD_IDENTITY_DIR) speaks of. Replicas always start: an
# empty volume adopts the cluster's id, and LiteFS itself refuses a foreign one.
#
# Plain sh for busybox. It only reads; its one output besides the log is the termination message of a refusal.
#
# Environment: POD_NAME, POD_IP, GUARD_SERVICE (the headless Service's full name), GUARD_PORT (LiteFS's HTTP API),
# GUARD_DATABASE (the database's name), GUARD_PRIMARY_ORDINAL (used where there is no record), GUARD_DATA_DIR,
# GUARD_IDENTITY_DIR, GUARD_RECORD (the record's name, for messages); optional GUARD_PATIENCE (seconds for a peer that
# does not answer), GUARD_TERMINATION_LOG, GUARD_BUSYBOX (the busybox whose wget and nslookup are used).
set -eu
LC_ALL=C
export LC_ALL

patience=${GUARD_PATIENCE:-20}
busybox=${GUARD_BUSYBOX:-busybox}
runbook=docs/runbooks/primary-refused.md
newline='
'

log() {
    printf 'identity guard: %s\n' "$*" >&2
}

refuse() {
    end "refuses to start as primary: $1"
}

end() {
    message="$POD_NAME $1 Nothing was changed. What to do: $runbook"
    log "$message"
    printf '%s\n' "$message" >"${GUARD_TERMINATION_LOG:-/dev/termination-log}" || log 'the termination message could not be written'
    exit 1
}

start() {
    log "$POD_NAME starts: $1"
    exit 0
}

# Seconds of a clock that is never set.
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
    [ "$1" != "$2" ] && [ "$(printf '%s\n%s\n' "$1" "$2" | sort | head -n 1)" = "$1" ]
}

# The TXID that the volume ends with, from the names <first>-<last>.ltx. (One find: there can be many thousands.)
own_txid() {
    last=$(find "$GUARD_DATA_DIR/dbs/$GUARD_DATABASE/ltx" -name '*.ltx' 2>/dev/null |
        sed -n 's,^.*/[0-9a-f]\{16\}-\([0-9a-f]\{16\}\)\.ltx$,\1,p' | sort | tail -n 1)
    printf '%s' "${last:-0000000000000000}"
}

# Ask DNS for the pods' addresses. Sets peers (without this pod), listed (this pod is among them) and dns: found,
# none (DNS says that there are none) or failed (DNS gave no usable answer, which says nothing about peers).
look_up() {
    case $POD_IP in
        *:*) type=aaaa ;;
        *) type=a ;;
    esac
    reply=$("$busybox" nslookup "-type=$type" "$GUARD_SERVICE." 2>&1) || :
    # What precedes the first Name: is the DNS server's own address.
    found=$(printf '%s\n' "$reply" | sed -n '/^Name:/,$s/^Address[^:]*:[[:space:]]*//p')
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

# Ask the LiteFS at address $1. Prints "<cluster id or -> <is primary> <TXID or ->"; fails if it gave no usable answer.
ask() {
    case $1 in
        *:*) url="http://[$1]:$GUARD_PORT" ;;
        *) url="http://$1:$GUARD_PORT" ;;
    esac
    info=$(get "$url/info")
    is_primary=$(printf '%s' "$info" | sed -n 's/.*"isPrimary":\(true\|false\).*/\1/p')
    [ -n "$is_primary" ] || return 1
    id=$(printf '%s' "$info" | sed -n 's/.*"clusterID":"\([^"]*\)".*/\1/p')
    vars=$(get "$url/debug/vars")
    name=$(printf '%s' "$GUARD_DATABASE" | sed 's/[][\.*^$/]/\\&/g')
    txid=$(printf '%s' "$vars" | sed -n "s/.*\"name\":\"$name\",\"txid\":\"\\([0-9a-fA-F]\\{16\\}\\)\".*/\\1/p" | tr A-F a-f)
    if [ -z "$txid" ]; then
        # No such database is an answer; no LiteFS store, or a database without a TXID, is not.
        case $vars in
            *"\"$GUARD_DATABASE\":{"*) return 1 ;;
            *'"store":{'*) ;;
            *) return 1 ;;
        esac
    fi
    printf '%s %s %s' "${id:--}" "$is_primary" "${txid:--}"
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
# pod seconds late, and a refused connection looks the same. Sets answers, one line a peer: <address> <as ask prints>.
ask_peers() {
    answers=''
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
                    refuse "the cluster's DNS gave no answer for $GUARD_SERVICE within $elapsed s, so it cannot tell whether another pod holds newer data; it tries again by itself."
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
            if reply=$(ask "$peer"); then
                answers="$answers$peer $reply$newline"
                asked="$asked$peer "
            elif is_patient_with "$peer"; then
                pending="$pending $peer"
            else
                unasked="$unasked $peer"
            fi
        done
        if [ -z "$pending" ]; then
            break
        fi
        sleep 1
    done
    if [ -n "$unasked" ]; then
        log "could not ask$unasked: no answer on port $GUARD_PORT within $patience s"
    fi
    if [ -z "$answers" ]; then
        log 'no other pod answered'
    else
        log "answers (address, cluster id, is primary, TXID): $(printf '%s' "$answers" | tr '\n' ';')"
    fi
}

# Refuse if a peer of the same cluster is ahead of this volume.
refuse_if_behind() {
    while read -r peer id _ txid; do
        if [ -n "$peer" ] && [ "$id" = "$own_id" ] && [ "$txid" != - ] && below "$own_txid" "$txid"; then
            refuse "its volume ends at TXID $own_txid of $GUARD_DATABASE, and the pod at $peer has TXID $txid: starting on this older copy would roll every replica back."
        fi
    done <<END
$answers
END
}

ordinal=${POD_NAME##*-}
state=$(content "$GUARD_IDENTITY_DIR/state")
recorded=$(content "$GUARD_IDENTITY_DIR/clusterID")
primary=$(content "$GUARD_IDENTITY_DIR/primaryOrdinal")
damage=''
if [ -n "$state" ] && ! is_number "$primary"; then
    damage="the record ConfigMap $GUARD_RECORD is damaged: its primaryOrdinal is '$primary', which is no number."
fi
if [ -z "$state" ] || [ -n "$damage" ]; then
    primary=$GUARD_PRIMARY_ORDINAL
fi

# An old primary whose role was moved away. As a replica its unreplicated tail would be thrown away without a word.
case ",$(content "$GUARD_IDENTITY_DIR/heldOrdinals")," in
    *",$ordinal,"*)
        end "is held back: ordinal $primary is the primary now, and this volume may hold what no other pod has; playbooks/replica_reset.yml exports it and re-seeds it."
        ;;
esac

if [ "$ordinal" != "$primary" ]; then
    start "it is a replica; ordinal $primary is the primary"
fi
if [ -n "$damage" ]; then
    refuse "$damage"
fi

# site.yml holds the first start back until the volumes are safe, where the cluster cannot do that at their creation.
while [ "$(content "$GUARD_IDENTITY_DIR/hold")" = true ]; do
    log "waits: the record ConfigMap $GUARD_RECORD says hold"
    sleep 5
done

own_id=$(content "$GUARD_DATA_DIR/clusterid")
own_txid=$(own_txid)
has_database=no
if [ -s "$GUARD_DATA_DIR/dbs/$GUARD_DATABASE/database" ]; then
    has_database=yes
fi
log "$POD_NAME is the primary; record: ${state:-none} ${recorded:--}; volume: cluster id ${own_id:--}, $GUARD_DATABASE ${has_database}, TXID $own_txid"

case $state in
    '')
        refuse "there is no record ConfigMap $GUARD_RECORD that says which data this site has (site.yml writes it)."
        ;;
    # playbooks/restore.yml proved that no copy is left; LiteFS runs no command, and the restored file comes next.
    bootstrap | restore) ;;
    recorded)
        is_cluster_id "$recorded" ||
            refuse "the record ConfigMap $GUARD_RECORD holds '$recorded', which is no LiteFS cluster id."
        [ -n "$own_id" ] || [ "$has_database" = yes ] ||
            refuse "its volume is empty, and the record says that this site has the data of cluster $recorded."
        [ "$own_id" = "$recorded" ] ||
            refuse "its volume holds ${own_id:-no cluster id}, and the record says that this site's cluster is $recorded."
        [ "$has_database" = yes ] ||
            refuse "its volume has the cluster id $recorded but no database $GUARD_DATABASE."
        ;;
    *)
        refuse "the record ConfigMap $GUARD_RECORD has the unknown state '$state'."
        ;;
esac

first_asked=''
rounds=0
while :; do
    ask_peers
    leader=$(printf '%s' "$answers" | awk '$3 == "true" { print $1; exit }')
    if [ -z "$leader" ]; then
        break
    fi
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
        refuse "its volume holds ${own_id:-no cluster}, and the pod at ${foreign% *} already holds cluster ${foreign#* }."
    fi
fi
if [ "$state" = restore ]; then
    start 'a backup is being restored, onto whatever its volume holds'
fi
refuse_if_behind

if [ "$state" = bootstrap ] && [ -z "$own_id" ]; then
    start 'first start of this site, on an empty volume'
fi
start "its volume holds cluster $own_id at TXID $own_txid, and no pod that answered has more"
