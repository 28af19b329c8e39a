# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091
# unprotect, and birch takes long to give its replica up: alder does not wait for
# that. protect, typed at once, does, and the VM is protected again.
. "$(dirname "$0")/../lib/fake.sh"
hosts_make
guest_make alder web 20000 20
protect alder web birch
hit() { test -e "$WORK/birch/run/understudy/faults.hit"; }
fault_arm birch backup.giving_up hold
us alder unprotect web || fail "unprotect"
await 5 hit || fail "birch gave nothing up"
us alder protect web birch --arbiter none >"$WORK/protect.out" 2>&1 &
protect=$!
asks() { [ "$(grep -c 'phase=shell' "$WORK/alder.log")" = 2 ]; }
await 10 asks || fail "alder does not ask for a shell"
hit || fail "it did not hang"
rm "$WORK/birch/run/understudy/faults.hit"
wait $protect || fail "not protected again: $(cat "$WORK/protect.out")"
epochs_go_on alder web || fail "no epochs"
steps=$(steps_committed alder web) || fail "no epochs"
host_die alder
taken_over_well birch web "$steps"
