# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091
# With `none` as arbiter and a cut link both hosts run the VM, as announced.
# When the link is healed one is paused, by the rule, and says so.
. "$(dirname "$0")/../lib/scenario.sh"
start_from protected
"$LAB" cut alder replication
await 20 state_is birch web TakenOver || fail "birch did not take over"
await 20 state_is alder web Degraded || fail "alder did not go on alone"
host_runs_web alder || fail "web does not run on alder"
await 6 host_runs_web birch || fail "web does not run on birch"
"$LAB" heal alder replication
await 30 state_is alder web Fenced || fail "alder did not give way"
host_runs_web birch || fail "birch does not run web any more"
alder "xl list web | awk '\$1 == \"web\" && \$5 ~ /p/ { n = 1 } END { exit !n }'" || fail "web is not paused on alder"
alder 'understudy events' | grep -q 'give way' || fail "alder does not say why"
