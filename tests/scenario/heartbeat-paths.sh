# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091
# The replication link is cut between two living hosts that have another path
# and no arbiter: alder goes on alone, birch hears it and takes nothing over, and
# protection comes back with the link.
# test-all only
. "$(dirname "$0")/../lib/scenario.sh"
start_from protected
alder understudy peer path add birch 10.0.5.2 || fail "path add on alder"
birch understudy peer path add alder 10.0.5.1 || fail "path add on birch"
paths_are() { # HOST TEXT
    [ "$(status_json "$1" web |
        jq -r '[.[0].paths[] | select(.path == "heartbeat") | .up] | join(" ")')" = "$2" ]
}
for host in alder birch; do
    await 3 paths_are $host 'true true' || fail "paths of $host: $(status_json $host web)"
done
client_start "$WEB"
"$LAB" cut alder replication
await 6 state_is alder web Degraded || fail "alder is not Degraded"
await 2 paths_are birch 'false true' || fail "birch: $(birch understudy status web)"
client_goes_on 60 20 || fail "the guest does not go on"
[ "$(event_count birch 'asking for generation')" = 0 ] || fail "birch asked, and hears alder"
state_is birch web TakenOver && fail "birch took over"
on birch understudy status | grep -q 'warning: heartbeat path 10.0.6.1:7788 of alder is down' ||
    fail "no warning: $(birch understudy status)"
"$LAB" heal alder replication
await 60 state_is alder web Protected || fail "protection did not return"
client_goes_on 20 10 || fail "the guest does not go on"
[ "$(event_count birch '"TakenOver"')" = 0 ] || fail "birch took over"
client_end || fail "an answer or the connection was lost"
