# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091,SC2034
# The primary's disk server is killed again and again while the guest writes: its
# successor builds the log again, the replica stays what it is, and
# nothing is copied anew. Then alder dies, before any further epoch if that is the
# moment, and birch has memory and disk of one moment.
# moments: often engine.before_records engine.before_commit at-once verify
. "$(dirname "$0")/../lib/disk.sh"
: "${MOMENT:=often}"
T=4000
disk_start_protected
steps_committed alder web >/dev/null || fail "no epochs"
has_log() { # TIMES
    [ "$(grep -c "successor has the log" "$WORK/alder.log")" -ge "$1" ]
}
kill_server() {
    killed=$(disk_server alder)
    kill -KILL "$killed" || fail "no disk server $killed"
}
hit() { test -e "$WORK/alder/run/understudy/faults.hit"; }
replaced() { [ "$(disk_server alder)" != "$killed" ]; }
for round in 1 2 3 4 5 6; do
    case $MOMENT in
    engine.*) # after the mark: before what was cut is sent, and after that
        fault_arm alder "$MOMENT" hold
        await 10 hit || fail "no epoch"
        kill_server
        await 10 replaced || fail "no successor"
        rm "$WORK/alder/run/understudy/faults.hit"
        ;;
    *)
        kill_some_time kill_server
        ;;
    esac
    await 10 has_log $round || fail "no log after $round"
    [ "$MOMENT" = at-once ] && [ $round = 3 ] && break
    replica_goes_on $round
done
if [ "$MOMENT" != at-once ]; then
    disks_are_equal alder
    steps=$(steps_committed alder web) || fail "no epochs"
fi
grep 'successor has the log' "$WORK/alder.log"
given_up=$(grep -c 'event=skipped.*given up' "$WORK/alder.log")
[ "$MOMENT" != engine.before_records ] || [ "$given_up" = 6 ] || fail "$given_up epochs were given up"
disk_host_die alder
disk_taken_over_well birch web "${steps:-0}"
