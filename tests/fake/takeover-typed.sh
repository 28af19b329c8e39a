# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091
# takeover is refused while the other host answers; with --force birch runs
# the VM, once, and alder's copy is paused.
. "$(dirname "$0")/../lib/fake.sh"
start_protected
us birch takeover web 2>"$WORK/err" && fail "taken over from a living host"
grep -q 'alder answers' "$WORK/err" || fail "it says $(cat "$WORK/err")"
state_is alder web Protected || fail "not Protected any more"
steps=$(steps_committed alder web) || fail "no epochs"
us birch takeover web --force || fail "takeover --force"
taken_over_well birch web "$steps"
await 5 state_is alder web Fenced || fail "alder is not fenced"
guest_stands alder web || fail "alder's copy runs"
us birch takeover web --force 2>"$WORK/err" && fail "taken over twice"
grep -q 'runs here already' "$WORK/err" || fail "it says $(cat "$WORK/err")"
