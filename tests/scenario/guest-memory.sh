# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091,SC2154
# The guest's memory is made smaller under protection: the replica is void by
# name, the VM gets protected again with a new shell, and the plug may be
# pulled.
. "$(dirname "$0")/../lib/scenario.sh"
start_from protected
alder xl mem-set web 128 || fail "xl mem-set"
told() { alder 'understudy events' | grep -q "void.*memory size"; }
await 10 told || fail "the change went unseen"
again() { state_is alder web Protected && state_is birch web Protected; }
not_yet() { ! again; }
await 5 not_yet
await 30 again || fail "web is not Protected again"
voids=$(event_count alder '"void"')
say "void $voids times until the size had settled"
[ "$voids" -le 4 ] || fail "the replica was void $voids times"
sleep 3
again || fail "web does not stay Protected"
"$LAB" kill alder
await 20 state_is birch web TakenOver || fail "birch did not take over"
await 10 guest_serves "$WEB" || fail "web does not answer"
