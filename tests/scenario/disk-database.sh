# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091,SC2154
# PostgreSQL on a replicated disk, the plug pulled at a named moment of an epoch
# under load: it answers on the same address and over the old connections, what
# the clients saw committed is there, once, and its files are in order.
# test-all only
# moments: capture.before capture.suspended capture.copied capture.marked capture.resumed engine.before_commit engine.acked replica.before_ack replica.after_ack replica.applying
. "$(dirname "$0")/../lib/scenario.sh"
. "$(dirname "$0")/../lib/fast-suspend.sh"
. "$(dirname "$0")/../lib/database.sh"
db_start_protected
db_load_start
db_goes_on 2 20
case $MOMENT in
replica.*) at=birch action=mark ;; # birch has to live on
*) at=alder action=stop ;;
esac
fault_arm $at "$MOMENT" $action 20
await 12 fault_was_hit $at || fail "$MOMENT was not reached"
"$LAB" kill alder
say "$(committed) transactions were seen committed when the plug was pulled"
await 20 state_is birch database TakenOver || fail "birch did not take over"
birch understudy events | grep -a 'took over'
db_goes_on 3 30
await 6 domain_there birch database || fail "the domain is not named database"
[ "$(event_count birch '"TakenOver"')" = 1 ] || fail "not exactly one takeover"
db_load_end
db_is_right birch
