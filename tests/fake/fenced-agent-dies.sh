# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091
# birch takes web over from a living alder, whose agent dies when it has written
# down that its copy is fenced, or can't pause it at first: the copy stands in
# the end, and nothing is left at it; then it makes way for a backup.
# moments: primary.ending primary.pause
. "$(dirname "$0")/../lib/fake.sh"
: "${MOMENT:=primary.ending}"
start_protected
steps=$(steps_committed alder web) || fail "no epochs"
agent=$(agent_pid alder web)
action="kill"
[ "$MOMENT" = primary.ending ] || action="fail"
fault_arm alder "$MOMENT" $action
us birch takeover web --force || fail "takeover --force"
await 5 test -e "$WORK/alder/run/understudy/faults.hit" || fail "$MOMENT is not reached"
taken_over_well birch web "$steps"
await 5 guest_stands alder web || fail "alder's copy runs"
await 5 state_is alder web Fenced || fail "alder is not fenced"
clean() { ! domains alder | grep logdirty; }
await 5 clean || fail "log-dirty mode was left on"
[ $action = fail ] || [ "$(agent_pid alder web)" != "$agent" ] || fail "the agent lives"
guest alder destroy web
protect birch web alder
