# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091,SC2016
# Output commit, seen from outside: while birch acknowledges nothing, the guest
# sends IPv4, IPv6 and ARP, and not one packet of it is on the public network;
# when the plug is then pulled, what the client saw answered is in the ledger.
. "$(dirname "$0")/../lib/scenario.sh"
MAC=00:16:3e:05:00:11
start_from running
alder understudy protect web birch --arbiter none --timeout 15s || fail "protect"
await 6 state_is alder web Protected || fail "web is not Protected"
client_start "$WEB"
vif=$(alder 'echo vif$(xl domid web).0')
capture() { # HOST INTERFACE FILE
    "$LAB" run "$1" "echo \$\$ >$3.pid 2>/dev/null
        exec timeout 120 tcpdump -i $2 -n -l -tt --immediate-mode ether src $MAC" >"$3" 2>/dev/null &
}
capture outside alder-public "$WORK/outside"
capture alder "$vif" "$WORK/inside"
both_see() { [ -s "$WORK/outside" ] && [ -s "$WORK/inside" ]; }
await 4 both_see || fail "the captures show nothing"

fault_arm birch replica.before_ack stop 3
await 6 fault_was_hit birch || fail "birch's agent was not stopped"
sleep 0.5 # what was acknowledged before is on its way out
outside_before=$(wc -l <"$WORK/outside") inside_before=$(wc -l <"$WORK/inside")
# IPv4 first: without a neighbour there is nothing but ARP.
"$LAB" run outside 'timeout 0.3 ping -c 1 10.0.5.11 >/dev/null; ip neigh flush dev public
    timeout 1 ping -i 0.3 10.0.5.11 >/dev/null &
    timeout 1 ping -i 0.3 fd00:5::11 >/dev/null; true'
leaked=$(tail -n +$((outside_before + 1)) "$WORK/outside")
held=$(tail -n +$((inside_before + 1)) "$WORK/inside")
state_is alder web Protected || fail "not Protected any more: the time was too short to tell"
"$LAB" kill alder
for protocol in ARP IP6 'IP '; do
    grep -q "$protocol" <<<"$held" || fail "the guest sent no $protocol: nothing was shown"
done
say "held: $(grep -c . <<<"$held") packets; leaked: $(grep -c . <<<"$leaked")"
[ -z "$leaked" ] || fail "got out without an acknowledgement: $leaked"
birch 'kill -CONT $(pgrep -f "understudyd agent backup")' || fail "no agent on birch"
await 20 state_is birch web TakenOver || fail "birch did not take over"
client_goes_on 60 20 || fail "the client did not go on"
kill "$(cat "$WORK/outside.pid")"
client_end || fail "an answer or the connection was lost"
