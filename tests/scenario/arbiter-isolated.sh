# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091,SC2154
# alder loses its way to the witness, then the link: birch takes over, and alder
# can't know. Its guest is not stopped on suspicion: it runs on, with its output
# held. So there are two guests that run, and one whose packets anybody sees. The
# one on alder sends all the while, and not one of its packets leaves alder, from
# the cut on; `status` there says that output is held, and why. As soon as alder
# hears of birch's generation its guest is paused, what it had sent is dropped.
# test-all only
. "$(dirname "$0")/../lib/scenario.sh"
. "$(dirname "$0")/../lib/witness.sh"
MAC=00:16:3e:05:00:11
start_from running
witness_make
protect_with_witness alder web birch
client_start "$WEB"

# Frames with the guest's address: what alder puts on the public network, seen at
# its cable's other end; what the guest gives to its vif, before it is held.
capture() { # HOST INTERFACE FILE
    "$LAB" run "$1" "exec timeout 300 tcpdump -i $2 -Q in -n -l -tt \
        --immediate-mode ether src $MAC" >"$3" 2>/dev/null </dev/null &
}
capture outside alder-public "$WORK/outside"
capture alder "vif$(alder xl domid web).0" "$WORK/inside"
both_see() { [ -s "$WORK/outside" ] && [ -s "$WORK/inside" ]; }
await 4 both_see || fail "the captures show nothing"
seen() { tail -n +$((seen_before + 1)) "$WORK/outside"; }
sent() { tail -n +$((sent_before + 1)) "$WORK/inside"; }
alder_says() { alder understudy status web | grep -q -- "$1"; }

say "== alder's way to the witness is lost, then the link =="
way_cut alder
client_goes_on 40 10 || fail "the guest does not go on without alder's witness"
state_is alder web Protected || fail "alder is $(status_of alder web state)"
link_cut
sleep 1 # what was acknowledged before is on its way out
seen_before=$(wc -l <"$WORK/outside") sent_before=$(wc -l <"$WORK/inside")
await 20 state_is birch web TakenOver || fail "birch does not take over"
await 6 record_is 2 birch || fail "the witness has: $(witness list)"
client_goes_on 20 20 || fail "the client did not go on"

say "== alder, alone =="
await 4 alder_says 'State:.*its output is held' || fail "alder does not say so"
alder understudy status web | head -n 12
guest_type alder web 'ping -c 10 -W 1 10.0.5.100 >/dev/null 2>&1'
ten_pings() { [ "$(sent | grep -c 'ICMP echo request')" -ge 10 ]; }
await 4 ten_pings || fail "alder's guest sent no 10 pings: nothing is shown"
host_runs_web alder || fail "alder's guest was stopped: nothing is shown"
say "alder's guest has sent $(sent | grep -c .) packets, $(seen | grep -c .) left alder"
[ -z "$(seen)" ] || fail "got out of alder: $(seen)"

say "== healed =="
link_heal
way_heal alder
await 20 state_is alder web Fenced || fail "alder is $(status_of alder web state)"
alder_says 'State:.*birch runs the VM now' || fail "alder does not say why"
alder understudy status web | head -n 12
host_runs_web alder && fail "alder's copy runs"
state_is birch web TakenOver || fail "birch is $(status_of birch web state)"
record_is 2 birch || fail "the witness has: $(witness list)"
client_goes_on 40 20 || fail "the client did not go on"
[ -z "$(seen)" ] || fail "got out of alder after all: $(seen)"
client_end || fail "an answer or the connection was lost"
