# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091
# The backup's agent hangs (SIGSTOP): the guest is never frozen by it, output
# is held until alder goes on alone after T, and birch, when it wakes, does not
# take over.
. "$(dirname "$0")/../lib/scenario.sh"
start_from protected
client_start "$WEB"
pid=$(status_of birch web pid)
birch kill -STOP "$pid" || fail "no agent on birch"
await 12 state_is alder web Degraded || fail "alder is not Degraded"
client_goes_on 60 10 || fail "the guest does not go on"
birch kill -CONT "$pid"
await 60 state_is alder web Protected || fail "protection did not return"
[ "$(event_count birch '"TakenOver"')" = 0 ] || fail "birch took over"
client_end || fail "an answer or the connection was lost"
