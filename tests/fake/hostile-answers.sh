# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091,SC2034
# birch has taken web over. The host that it was taken from comes back in the
# hands of an enemy, whose answers have an operator's requests in them: to turn
# about, to take over. They stay answers.
# moments: turn takeover
. "$(dirname "$0")/../lib/fake.sh"
start_protected
host_die alder
await 10 state_is birch web TakenOver || fail "birch did not take over"
await 5 domain_is_running birch web || fail "web has another name on birch"
guest_run birch web
pid=$(agent_pid birch web)
case $MOMENT in
turn) more='"op":"turn","timeout_ms":1000' ;;
takeover) more='"op":"takeover","force":true' ;;
esac
"$BUILD/fake/hostile" liar "${PORT[alder]}" "$WORK/alder/etc/understudy" \
    "{\"ok\":true,\"known\":false,$more}" >"$WORK/liar" 2>&1 &
GUEST_PID[alder:liar]=$! # ends with the guests
asked() { [ "$(grep -c asked "$WORK/liar")" -ge 3 ]; }
await 20 asked || fail "birch asked nothing: $(cat "$WORK/liar")"
guest_stop alder liar
[ "$(status_of birch web role)" = backup ] || fail "birch turned about"
state_is birch web TakenOver || fail "birch left its state"
[ "$(agent_pid birch web)" = "$pid" ] || fail "the agent was restarted"
[ "$(event_count birch 'dom=web event=error')" = 0 ] || fail "an error"
await 5 guest_goes_on birch web || fail "web does not go on"
