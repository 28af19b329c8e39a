# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091
# test-all only
# Taken over, protected in the other direction, taken over again, five rounds, all
# with the same guest, load and connection: each time by event channel.
. "$(dirname "$0")/../lib/scenario.sh"
. "$(dirname "$0")/../lib/fast-suspend.sh"
start_from_load 1
guest_listen alder web
guest_load alder web
client_start "$WEB"
from=alder to=birch
for round in 1 2 3 4 5; do
    fast_suspend_is_used "$from" web
    "$LAB" kill "$from"
    await 20 state_is "$to" web TakenOver || fail "round $round: $to did not take over"
    client_goes_on 60 20 || fail "round $round: the client did not go on"
    [ "$(fast_suspend_count "$to" web restored)" = "$round" ] ||
        fail "round $round: the module was not restored $round times"
    "$LAB" start "$from"
    peer_is_up() { on "$to" understudy peer list | grep -q "$from.*up"; }
    await 30 peer_is_up || fail "round $round: $to does not see $from"
    protect "$to" web "$from"
    before=$(status_of "$to" web epochs)
    await 12 epochs_are "$to" web $((before + 20)) || fail "round $round: no epochs"
    guest_is_well "$to" web
    say "round $round: $to runs web, $(status_of "$to" web epochs) epochs," \
        "pause $(status_of "$to" web pause_us.median) us, $(client_count) answers"
    read -r from to <<<"$to $from"
done
client_end || fail "an answer or the connection was lost"
