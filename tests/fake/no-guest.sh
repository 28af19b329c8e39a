# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091
# A primary's host returns without its guest: that is said at once, once, and
# protection waits for the guest for as long as it takes.
. "$(dirname "$0")/../lib/fake.sh"
start_protected
host_die birch # or it would take over
host_die alder
guest alder destroy web
daemon_start alder
await 3 state_is alder web Unprotected || fail "the state does not tell"
no_guest() { us alder events --json | grep -c '"no-guest"'; }
await 2 no_guest || fail "no event tells"
status_of alder web reason | grep -q 'does not run here' || fail "the status does not tell"
holds 3 state_is alder web Unprotected || fail "it did not wait"
[ "$(no_guest)" = 1 ] || fail "it is said again and again"
say "== birch is there, too, and knows that it is not to run it =="
daemon_start birch
holds 2 state_is alder web Unprotected || fail "it did not wait"
[ "$(state_count birch web TakenOver)" = 0 ] || fail "birch took over"
guest_make alder web
await 20 state_is alder web Protected || fail "the guest that came is not protected"
