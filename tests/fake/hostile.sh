# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091
# Whatever comes to the port, from strangers or from one that has the peer's
# key: no process dies, nothing is taken over, the VM stays protected or is
# again.
. "$(dirname "$0")/../lib/fake.sh"
start_protected
uuid=$(status_of alder web uuid)
pids="$(pids_of birch | sort) $(pids_of alder | sort)"
say "== strangers, seed ${SEED:=1} =="
export SEED
for host in birch alder; do
    "$BUILD/fake/hostile" port "${PORT[$host]}" "$uuid" 600 || fail "hostile"
done
state_is alder web Protected || fail "not Protected any more"
epochs_go_on alder web || fail "no epochs"
[ "$(state_count alder web Degraded)" = 0 ] || fail "was Degraded"
[ "$(event_count alder event=sync)" = 1 ] || fail "copied again"
say "== one with alder's key =="
"$BUILD/fake/hostile" key "${PORT[birch]}" "$uuid" 60 "$WORK/alder/etc/understudy" \
    "$(us birch key show)" >"$WORK/out" || fail "hostile: $(tail -n 1 "$WORK/out")"
sort "$WORK/out" | uniq -c | sort -rn | head -n 5
protected_still() { state_is alder web Protected && epochs_go_on alder web; }
await 20 protected_still || fail "protection did not return"
say "== one with alder's key and twenty sessions =="
closed=$("$BUILD/fake/hostile" sessions "${PORT[birch]}" "$WORK/alder/etc/understudy" \
    "$(us birch key show)" 20) || fail "hostile"
[ "$closed" -ge 12 ] || fail "birch has $((20 - closed)) sessions of one peer"
await 20 protected_still || fail "protection did not return"
[ "$pids" = "$(pids_of birch | sort) $(pids_of alder | sort)" ] || fail "a process died"
[ "$(state_count birch web TakenOver)" = 0 ] || fail "birch took over"
steps=$(steps_committed alder web) || fail "no epochs"
host_die alder
taken_over_well birch web "$steps"
