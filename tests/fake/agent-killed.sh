# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091
# The primary's agent dies at a named moment of an epoch, or it dies and then its
# successor in a named phase: the next one copies everything anew, birch does not
# take over, the guest goes on.
# moments: now capture.before capture.suspended capture.copied capture.marked capture.resumed engine.before_commit engine.acked primary.recover primary.wait primary.prepare primary.connect primary.discard primary.describe primary.shell primary.sync
. "$(dirname "$0")/../lib/fake.sh"
: "${MOMENT:=now}"
start_protected
agent=$(agent_pid alder web)
case $MOMENT in
now) ;;
primary.*) fault_arm alder "$MOMENT" kill ;;
*) fault_arm alder "$MOMENT" kill 3 ;;
esac
case $MOMENT in now | primary.*) kill -9 "$agent" || fail "there is no agent" ;; esac
[ "$MOMENT" = now ] ||
    await 5 test -e "$WORK/alder/run/understudy/faults.hit" ||
    fail "$MOMENT is not reached"
protected_anew() {
    [ "$(state_count alder web Protected)" -ge 2 ] && state_is alder web Protected
}
await 15 protected_anew || fail "protection did not return"
await 5 guest_goes_on alder web || fail "the guest does not go on"
[ "$(agent_pid alder web)" != "$agent" ] || fail "it is the same agent"
[ "$(state_count birch web TakenOver)" = 0 ] || fail "birch took over"
steps=$(steps_committed alder web) || fail "no epochs"
host_die alder
taken_over_well birch web "$steps"
