# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091,SC2154
# The plug is pulled at a named moment of an epoch, while the guest is suspended by
# event channel and has a load of all kinds: the service goes on over the same
# connection, nothing that the client saw answered is lost or doubled, kernel and
# load have nothing to complain of, and the guest offers its channel again.
# test-all only
# moments: capture.before capture.suspended capture.copied capture.marked capture.resumed engine.before_commit engine.acked replica.before_ack replica.after_ack replica.applying
. "$(dirname "$0")/../lib/scenario.sh"
. "$(dirname "$0")/../lib/fast-suspend.sh"
start_from_load "${VCPUS:-1}"
guest_listen alder web
fast_suspend_is_used alder web
guest_load alder web
client_start "$WEB"
case $MOMENT in
replica.*) at=birch action=mark ;; # birch has to live on
*) at=alder action=stop ;;
esac
fault_arm $at "$MOMENT" $action 20
await 12 fault_was_hit $at || fail "$MOMENT was not reached"
"$LAB" kill alder
await 20 state_is birch web TakenOver || fail "birch did not take over"
client_goes_on 60 20 || fail "the client did not go on"
await 6 domain_there birch web || fail "the domain is not named web"
[ "$(event_count birch '"TakenOver"')" = 1 ] || fail "not exactly one takeover"
[ "$(fast_suspend_count birch web restored)" = 1 ] || fail "the module was not restored once"
birch '[ -n "$(xenstore-read /local/domain/$(xl domid web)/device/suspend/event-channel)" ]' ||
    fail "the guest offers no channel"
guest_ask birch web 'grep . /sys/module/fast_suspend/stats/*restore*'
guest_is_well birch web
client_end || fail "an answer or the connection was lost"
