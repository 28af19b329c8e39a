# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091
# The backup's plug is pulled: the guest stalls for a bounded time and goes on
# without it, and protection comes back when birch does.
. "$(dirname "$0")/../lib/scenario.sh"
start_from protected
client_start "$WEB"
"$LAB" kill birch
await 12 state_is alder web Degraded || fail "alder is not Degraded"
client_goes_on 60 10 || fail "the guest does not go on"
"$LAB" start birch
await 60 state_is alder web Protected || fail "protection did not return"
client_goes_on 60 10 || fail "the guest does not go on"
client_end || fail "an answer or the connection was lost"
