# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091
# Two VMs, one protected in each direction; alder's plug is pulled: birch runs
# both, one taken over, the other going on without its backup.
. "$(dirname "$0")/../lib/scenario.sh"
start_from protected
guest_start birch db 10.0.5.12
protect birch db alder
client_start "$WEB"
"$LAB" kill alder
await 20 state_is birch web TakenOver || fail "web was not taken over"
await 20 state_is birch db Degraded || fail "db is not Degraded"
client_goes_on 60 20 || fail "the client did not go on"
await 6 guest_answers 10.0.5.12 || fail "db does not answer"
client_end || fail "an answer or the connection was lost"
