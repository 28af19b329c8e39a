# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091
# The guest is destroyed and started anew while no agent of it runs on alder:
# the next agent protects the new domain, and clears away what held the output
# of the old one.
. "$(dirname "$0")/../lib/scenario.sh"
start_from protected
old=$(alder xl domid web)
held() { alder "ip -o link | grep -q ' u$old-'"; }
held || fail "nothing holds the output"
fault_arm alder primary.wait stop
alder kill -9 "$(status_of alder web pid)" || fail "no agent"
await 10 fault_was_hit alder || fail "no successor"
alder 'xl destroy web && xl create -q /srv/guest/web.cfg' || fail "xl create"
alder 'kill -9 $(pgrep -f "[u]nderstudyd agent primary")' || fail "no agent"
swept() { ! held; }
await 12 swept || fail "what held the old domain's output is left"
await 60 state_is alder web Protected || fail "the new domain is not protected"
[ "$(event_count birch '"TakenOver"')" = 0 ] || fail "birch took over"
