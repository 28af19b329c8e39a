# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091
# Somebody destroys the replica's shell on birch, or lets it run: birch says so,
# alder is Degraded until there is a new replica, and that one takes over.
# moments: destroy unpause
. "$(dirname "$0")/../lib/scenario.sh"
: "${MOMENT:=destroy}"
start_from protected
client_start "$WEB"
birch xl "$MOMENT" web--replica || fail "xl $MOMENT"
void() { [ "$(event_count birch '"void"')" -ge 1 ]; }
await 2 void || fail "birch does not see it"
degraded() { [ "$(event_count alder '"state": *"Degraded"')" -ge 1 ]; }
await 4 degraded || fail "alder does not say Degraded"
[ "$MOMENT" = destroy ] || birch '[ -z "$(xl list web--replica 2>/dev/null | grep " r")" ]' ||
    fail "the shell runs"
await 20 state_is alder web Protected || fail "not Protected again"
await 4 state_is birch web Protected || fail "birch is not Protected again"
client_goes_on 20 10 || fail "the client does not go on"
"$LAB" kill alder
await 20 state_is birch web TakenOver || fail "birch did not take over"
client_goes_on 60 20 || fail "the client did not go on"
client_end || fail "an answer or the connection was lost"
