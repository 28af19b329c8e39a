# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091
# The plug is pulled during the initial copy: birch starts nothing, and says
# why.
. "$(dirname "$0")/../lib/scenario.sh"
start_from running
fault_arm alder primary.sync stop
alder understudy protect web birch --arbiter none --no-wait ||
    fail "protect was refused"
await 20 fault_was_hit alder || fail "the copy did not begin"
"$LAB" kill alder
said_why() { birch 'understudy events' | grep -q 'nothing to take over'; }
await 20 said_why || fail "birch does not say why it starts nothing"
birch xl list | grep -q '^web .*[rb]' && fail "birch runs web"
birch xl list
