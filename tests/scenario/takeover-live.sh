# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091,SC2154
# The plug is pulled at a named moment of an epoch, under load: the service
# goes on over the same connection, nothing that the client saw answered is
# lost or doubled, and the VM is taken over exactly once.
# moments: capture.before capture.suspended capture.copied capture.marked capture.resumed engine.before_commit engine.acked replica.before_ack replica.after_ack replica.applying
. "$(dirname "$0")/../lib/scenario.sh"
start_from protected
client_start "$WEB"
case $MOMENT in
replica.*) at=birch ;;
*) at=alder ;;
esac
action=stop
[ $at = alder ] || action=mark # birch has to live on
fault_arm $at "$MOMENT" $action 5
await 6 fault_was_hit $at || fail "$MOMENT was not reached"
"$LAB" kill alder
await 20 state_is birch web TakenOver || fail "birch did not take over"
client_goes_on 60 20 || fail "the client did not go on"
await 6 domain_there birch web || fail "the domain is not named web"
[ "$(birch 'xl list' | grep -c '^web')" = 1 ] || fail "not exactly one web"
[ "$(event_count birch '"TakenOver"')" = 1 ] || fail "not exactly one takeover"
client_end || fail "an answer or the connection was lost"
