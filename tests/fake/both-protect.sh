# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091,SC2034
# The same VM is protected from both hosts towards the other at the same time,
# and alder's disk is slow: while its protect is being written birch asks it to
# be the backup. One record is made there, not two, and nothing is left in the
# end.
. "$(dirname "$0")/../lib/fake.sh"
"${CC:-cc}" -shared -fPIC -o "$WORK/slowsync.so" "$TOP/tests/fake/slowsync.c" ||
    fail "no compiler"
T=3000
export LD_PRELOAD=$WORK/slowsync.so SLOWSYNC_MS=1500 ASAN_OPTIONS=verify_asan_link_order=0
host_make alder
unset LD_PRELOAD SLOWSYNC_MS
host_make birch
peer_add alder birch
peer_add birch alder
guest_make alder web
guest_make birch web
await 5 peer_is_up birch alder && await 5 peer_is_up alder birch || fail "no peers"
us alder protect web birch --arbiter none >"$WORK/alder.out" 2>&1 &
is_written() { ls "$WORK"/alder/var/lib/understudy/vms/*.tmp; }
await 5 is_written || fail "alder writes nothing: $(cat "$WORK/alder.out")"
us birch protect web alder --arbiter none >"$WORK/birch.out" 2>&1
wait $!
grep -q 'just being protected' "$WORK/birch.out" || fail "alder wrote two: $(cat "$WORK"/*.out)"
say "$(cat "$WORK"/*.out)"
for host in alder birch; do
    await 30 host_is_clean $host || fail "something is left on $host"
    await 5 guest_goes_on $host web || fail "the guest of $host does not go on"
done
