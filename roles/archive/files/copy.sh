#!/bin/sh
# Copies the archive to an rclone remote: what is new every few seconds, without a list of the remote, and all once an hour.
# Nothing is removed there: a rule of the bucket does that, and what wipes the archive does not wipe the remote.
#
# Environment: REMOTE, INTERVAL (seconds). Plain sh and rclone. /remote/copied is as old as the last copy that was whole.
set -u
trap 'exit 0' TERM
hourly=$((3600 / INTERVAL))
[ "$hourly" -ge 1 ] || hourly=1
run=0
while :; do
    if [ $((run % hourly)) -eq 0 ]; then
        set --
    else
        set -- --max-age 2h --no-traverse
    fi
    run=$((run + 1))
    if rclone copy --config /rclone/rclone.conf --exclude '.*' --exclude '.*/**' "$@" /archive "$REMOTE"; then
        touch /remote/copied
    else
        # What was missed may be older than what is new by then.
        run=0
    fi
    sleep "$INTERVAL" &
    wait $!
done
