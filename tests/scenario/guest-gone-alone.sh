# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091,SC2016
# The guest is destroyed while no agent of it runs on alder: the next agent
# clears away what held its output, and says that it is not there.
. "$(dirname "$0")/../lib/scenario.sh"
start_from protected
old=$(alder xl domid web)
held() { alder "ip -o link | grep -q ' u$old-'"; }
held || fail "nothing holds the output"
fault_arm alder primary.wait stop
alder kill -9 "$(status_of alder web pid)" || fail "no agent"
await 10 fault_was_hit alder || fail "no successor"
alder xl destroy web || fail "xl destroy"
alder 'kill -9 $(pgrep -f "[u]nderstudyd agent primary")' || fail "no agent"
swept() { ! held; }
await 12 swept || fail "what held the old domain's output is left"
await 12 state_is alder web Unprotected || fail "the state does not tell"
no_guest() { [ "$(event_count alder '"no-guest"')" = 1 ]; }
await 2 no_guest || fail "no event tells"
[ "$(event_count birch '"TakenOver"')" = 0 ] || fail "birch took over"
