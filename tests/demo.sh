#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# `make demo`: one command protects a VM, and it lives on when its host dies.
# Exit status 0 only if the client lost neither an answer nor its connection
# and the VM was taken over exactly once, by the host that the witness names.
. "$(dirname "$0")/lib/scenario.sh"
. "$(dirname "$0")/lib/witness.sh"
witness_of_the_lab

say "== two Xen hosts, alder and birch, and a witness on a third machine =="
"$LAB" clean # fresh disks: nothing of an earlier run is remembered
bash "$TOP/tests/lab-prepare" || fail "no lab"
alder understudy arbiter show
say "== a guest with a network service on alder, a client outside =="
alder xl domid web >/dev/null 2>&1 || guest_start alder web "$WEB"
client_start "$WEB"
say "the client is connected, $(client_count) answers so far"

say "== alder# understudy protect web birch =="
protect_with_witness alder web birch
client_goes_on 60 10 || fail "the service does not answer under protection"
alder understudy status web
status_json alder web >"$WORK/before" || fail "no status"

say "== pulling alder's plug =="
before=$(client_count)
"$LAB" kill alder
await 20 state_is birch web TakenOver || fail "birch did not take over"
await 20 client_answered $((before + 60)) || fail "the client did not go on"
say "== birch has won it at the witness; the client carries on over the same connection =="
birch xl list
await 3 record_is 2 birch || fail "the witness has: $(witness list)"
say "== outside# understudy-witness list =="
witness list
status_json birch web >"$WORK/after"
taken=$(birch 'understudy events --json | grep -c "\"TakenOver\""')
client_end >"$WORK/end" || {
    cat "$WORK/end"
    fail "the client lost an answer or its connection"
}
client_json() { json "$1" <"$WORK/client.end"; }
ms() { awk -v us="$1" 'BEGIN { printf "%.1f ms", us / 1000 }'; }
was() { json "$1" <"$WORK/before"; }
cat <<ACCOUNT

epochs taken                  $(was epochs)
pause, median and maximum     $(ms "$(was pause_us.median)"), $(ms "$(was pause_us.max)")
bytes sent                    $(was bytes_sent)
alder silent until noticed    $(json takeover.detect_ms <"$WORK/after") ms
alder silent until running    $(json takeover.total_ms <"$WORK/after") ms
longest gap the client saw    $(client_json longest_gap_ms) ms
answers                       $(client_json answered)
answers lost                  $(client_json lost)
takeovers                     $taken
generation, holder            $(witness list --json | json generation), $(witness list --json | json holder)
ACCOUNT
[ "$(client_json lost)" = 0 ] || fail "answers were lost"
[ "$taken" = 1 ] || fail "taken over $taken times"
[ -n "${KEEP_LAB:-}" ] || "$LAB" clean # its VM is on record on their disks
