# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091,SC2034
# What was copied takes birch's medium far longer than the timeout to sync: the
# first epoch does not wait for that, and the VM is protected all the same.
. "$(dirname "$0")/../lib/disk.sh"
"${CC:-cc}" -shared -fPIC -o "$WORK/badmedium.so" "$TOP/tests/fake/badmedium.c" ||
    fail "no compiler"
disk_images_make
echo slow >"$WORK/switch"
sed -i "2i export LD_PRELOAD=$WORK/badmedium.so ASAN_OPTIONS=verify_asan_link_order=0 BADMEDIUM_SWITCH=$WORK/switch BADMEDIUM_FILE=birch/web.img BADMEDIUM_MS=700" \
    "$WORK/birch/hv/devices"
T=1500
hosts_make
disk_guest_make alder web 2000 10000 # a hundred steps a second
from=$(now_ms)
protect alder web birch
ms=$(($(now_ms) - from))
# Longer than the timeout.
[ "$ms" -ge $T ] || fail "there was nothing slow: $ms ms"
[ "$(event_count alder 'event=void')" = 0 ] || fail "the replica was void"
await 5 disk_goes_on alder web || fail "the guest does not write"
steps=$(steps_committed alder web) || fail "no epochs"
disk_host_die alder
disk_taken_over_well birch web "$steps"
