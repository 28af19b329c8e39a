# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091
# Both sides are compared again and again while servers and agents die: a
# comparison ends with the reason, or finds what is: no difference, ever; and
# it is in nobody's way.
. "$(dirname "$0")/../lib/disk.sh"
disk_start_protected
: >"$WORK/verify.out" # there is something to count in
(while :; do us alder disk verify web >>"$WORK/verify.out" 2>>"$WORK/verify.err"; done) &
comparing=$!
again() { state_is alder web Protected && epochs_go_on alder web; }
compared() { [ "$(grep -c 'both sides are the same' "$WORK/verify.out")" -gt "$1" ]; }
for victim in birch-server alder-server birch-agent alder-agent birch-server alder-server; do
    await 30 compared "$(grep -c 'both sides' "$WORK/verify.out")" || fail "nothing is compared before $victim"
    sleep 0.$((RANDOM % 10))
    case $victim in
    *-server) kill -KILL "$(disk_server "${victim%-*}")" ;;
    *-agent) kill -KILL "$(agent_pid "${victim%-*}" web)" ;;
    esac || fail "no $victim"
    sleep 0.5
    await 30 again || fail "not protected again after $victim: $(us alder status web)"
    ! grep -q 'differ' "$WORK/verify.out" || fail "after $victim: $(grep -B 9 differ "$WORK/verify.out")"
done
steps=$(steps_committed alder web) || fail "no epochs"
disk_host_die alder
kill $comparing
wait $comparing 2>/dev/null
disk_taken_over_well birch web "$steps"
! grep -q 'differ' "$WORK/verify.out" || fail "$(grep -B 9 differ "$WORK/verify.out")"
say "compared $(grep -c 'both sides are the same' "$WORK/verify.out") times, not to the end:"
grep '^understudy:' "$WORK/verify.err" | sort | uniq -c
