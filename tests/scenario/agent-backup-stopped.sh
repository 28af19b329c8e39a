# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091,SC2016
# The backup's agent hangs (SIGSTOP): the guest is never frozen by it (the gaps
# in what it sends, taken on its vif before the redirect, stay what they were
# under protection, plus 100 ms scaled), output is held until alder goes on
# alone after T, and birch, when it wakes, does not take over.
. "$(dirname "$0")/../lib/scenario.sh"
start_from protected
client_start "$WEB"
vif=$(alder 'echo vif$(xl domid web).0')
alder "tcpdump -i $vif -n -l -tt --immediate-mode icmp and src $WEB" >"$WORK/sent" 2>/dev/null &
"$LAB" run outside "echo \$\$ >$WORK/ping.pid; exec ping -q -i 0.05 $WEB" >/dev/null &
largest_gap_ms() { # FROM-LINE
    tail -n +"$1" "$WORK/sent" | awk 'NR > 1 && $1 - last > gap { gap = $1 - last }
        { last = $1 } END { printf "%d", gap * 1000 }'
}
lines() { wc -l <"$WORK/sent"; }
enough() { [ "$(lines)" -ge "$1" ]; }
await 6 enough 150 || fail "the guest's answers are not seen on $vif"
usual=$(largest_gap_ms 1)
pid=$(status_of birch web pid)
from=$(lines)
birch kill -STOP "$pid" || fail "no agent on birch"
await 12 state_is alder web Degraded || fail "alder is not Degraded"
gap=$(largest_gap_ms "$from")
kill "$(cat "$WORK/ping.pid")"
say "largest gap while protected $usual ms, while the backup hung $gap ms"
[ "$(lines)" -gt $((from + 20)) ] || fail "the guest sent nothing meanwhile"
[ "$gap" -le $((2 * usual + 100 * SCALE)) ] || fail "the guest was frozen"
client_goes_on 60 10 || fail "the guest does not go on"
birch kill -CONT "$pid"
await 60 state_is alder web Protected || fail "protection did not return"
[ "$(event_count birch '"TakenOver"')" = 0 ] || fail "birch took over"
client_end || fail "an answer or the connection was lost"
alder 'kill $(pgrep tcpdump)'
