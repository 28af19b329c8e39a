# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091
# Once birch has said that it gave its replica up, it never takes over: the
# guest went down, or a new copy is about to be made, and then alder dies.
# moments: reboot void
. "$(dirname "$0")/../lib/fake.sh"
: "${MOMENT:=reboot}"
start_protected
steps_committed alder web >/dev/null || fail "no epochs"
agent=$(agent_pid birch web)
if [ "$MOMENT" = reboot ]; then
    guest alder 'do' web shutdown 1
    await 5 state_is alder web Unprotected || fail "alder does not say so"
else
    fault_arm alder primary.describe stop
    guest alder 'do' web logoff 1
    await 10 test -e "$WORK/alder/run/understudy/faults.hit" || fail "no new copy"
fi
[ "$(event_count birch 'event=takeover')" = 0 ] || fail "birch took over early"
host_die alder
nothing_is_started() { ! domains birch | grep -q running; }
holds 3 nothing_is_started || fail "birch started it"
[ "$(event_count birch 'event=takeover')" = 0 ] || fail "birch took over"
[ "$(agent_pid birch web)" = "$agent" ] || fail "birch's agent died"
await 5 grep -q 'dom=web event=silent' "$WORK/birch.log" || fail "birch does not say so"
