# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091
# When a host that is gone was last heard stays known, however it went.
. "$(dirname "$0")/../lib/fake.sh"
hosts_make
await 5 peer_is_up birch alder || fail "no peer"
heard() { us birch peer list --json | jq '.[0].heard_ms'; }
heard_before() { # MS
    [ "$(heard)" -ge "$1" ]
}
down() { ! peer_is_up birch alder; }
host_signal alder KILL
await 5 down || fail "birch does not notice"
await 3 heard_before 1000 || fail "birch heard it $(heard) ms ago"
[ "$(heard)" -lt 10000 ] || fail "birch heard it $(heard) ms ago"
us birch peer list | grep -q '^alder .* down *-' && fail "$(us birch peer list)"
daemon_start alder
await 10 peer_is_up birch alder || fail "alder is not back"
await 3 peer_is_up alder birch || fail "birch is not back"
say "== it stands still =="
host_signal alder STOP
await 10 down || fail "birch does not notice"
heard_before 4000 || fail "birch heard it $(heard) ms ago"
