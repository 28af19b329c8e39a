# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091
# A copy that may look at 1 MiB a second: it takes its time, says how far it is,
# and the guest goes on; without the limit it does not. So does comparing.
. "$(dirname "$0")/../lib/disk.sh"
disk_images_make
mkdir -p "$WORK/alder/etc/understudy"
hosts_make
conf=$WORK/alder/etc/understudy/understudyd.conf
echo 'disk_copy_mb_s=1' >>"$conf"
disk_guest_make alder web
took() { # COMMAND...
    local from
    from=$(now_ms)
    "$@" >"$WORK/out" 2>&1 || fail "$*: $(cat "$WORK/out")"
    ms=$(($(now_ms) - from))
}
(took us alder protect web birch --arbiter none && echo "$ms" >"$WORK/ms") &
copying=$!
half() { [ "$(status_of alder web sync.done_bytes)" -gt $((4 << 20)) ]; }
await 20 half || fail "how far it is, is not said"
[ "$(status_of alder web sync.total_bytes)" -gt $((8 << 20)) ] || fail "of how many"
[ "$(status_of alder web sync.rate_bps)" -gt 500000 ] || fail "no rate"
[ "$(status_of alder web sync.rate_bps)" -lt 32000000 ] || fail "the rate is $(status_of alder web sync.rate_bps)"
[ "$(status_of alder web sync.left_s)" -ge 1 ] || fail "no time left"
us alder status web | grep -q '^Copied:.* MiB of .* Mbit/s, .* left' || fail "status says $(us alder status web)"
us alder disk list web | grep -q 'xvda .* primary syncing ..%' || fail "the list says $(us alder disk list web)"
us birch disk list web | grep -q 'xvda .* backup  syncing ..%' || fail "birch's list says $(us birch disk list web)"
await 5 guest_goes_on alder web || fail "the guest does not go on"
wait $copying || fail "not protected: $(cat "$WORK/out")"
ms=$(cat "$WORK/ms")
[ "$ms" -ge 7000 ] || fail "8 MiB took $ms ms at 1 MiB a second"
[ "$ms" -le 20000 ] || fail "8 MiB took $ms ms"
took us alder disk verify web
[ "$ms" -ge 7000 ] || fail "comparing took $ms ms"
us alder unprotect web || fail "unprotect"
await 5 host_is_clean birch || fail "something is left on birch"
sed -i '/disk_copy_mb_s/d' "$conf"
took us alder protect web birch --arbiter none
[ "$ms" -lt 7000 ] || fail "it took $ms ms without a limit"
