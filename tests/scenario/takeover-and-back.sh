# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091
# There and back over one connection: alder's plug is pulled, birch takes over;
# alder boots, and birch protects the VM with it; birch's plug is pulled, alder
# takes over. The client loses nothing and keeps its connection.
. "$(dirname "$0")/../lib/scenario.sh"
start_from protected
client_start "$WEB"
"$LAB" kill alder
await 20 state_is birch web TakenOver || fail "birch did not take over"
client_goes_on 60 20 || fail "the client did not go on"
"$LAB" start alder
await 30 state_is alder web Unprotected || fail "alder does not say that web is not there"
no_guest() { [ "$(event_count alder '"no-guest"')" = 1 ]; }
await 2 no_guest || fail "no event says so, or more than one"
alder_is_up() { birch understudy peer list | grep -q 'alder.*up'; }
await 12 alder_is_up || fail "birch does not see alder"
protect birch web alder
[ "$(status_of birch web role)" = primary ] || fail "birch is not the primary"
[ "$(status_of birch web generation)" -ge 2 ] || fail "the generation fell"
client_goes_on 60 20 || fail "the client did not go on"
"$LAB" kill birch
await 20 state_is alder web TakenOver || fail "alder did not take over"
client_goes_on 60 20 || fail "the client did not go on"
await 6 domain_there alder web || fail "the domain is not named web"
[ "$(status_of alder web generation)" -ge 3 ] || fail "the generation did not grow"
[ "$(event_count alder '"TakenOver"')" = 1 ] || fail "not exactly one takeover"
client_end || fail "an answer or the connection was lost"
