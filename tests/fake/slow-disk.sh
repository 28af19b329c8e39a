# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091,SC2154
# The two syncs that a record takes are longer than the timeout, on one host.
# protect comes to its end all the same, and epochs are acknowledged without a
# disk.
# moments: birch alder
. "$(dirname "$0")/../lib/fake.sh"
slow=${MOMENT:-birch}
"${CC:-cc}" -shared -fPIC -o "$WORK/slowsync.so" "$TOP/tests/fake/slowsync.c" ||
    fail "no compiler"
for host in alder birch; do
    if [ $host = "$slow" ]; then
        export LD_PRELOAD=$WORK/slowsync.so SLOWSYNC_MS=700
        export ASAN_OPTIONS=verify_asan_link_order=0
    fi
    host_make $host
    unset LD_PRELOAD SLOWSYNC_MS
done
peer_add alder birch
peer_add birch alder
guest_make alder web
protect alder web birch
say "$(us alder events)"
await 10 state_is birch web Protected || fail "birch does not say so"
holds 3 state_is alder web Protected || fail "it did not last"
[ "$(state_count alder web Degraded)" = 0 ] || fail "Degraded in between"
[ "$(event_count alder 'event=sync')" = 1 ] || fail "copied more than once"
epochs_go_on alder web || fail "no epochs"
steps=$(steps_committed alder web) || fail "no epochs"
host_die alder
taken_over_well birch web "$steps"
