# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091,SC2034
# A guest that writes more to its disk than the log of an epoch holds: while
# epochs are taken it gets them early, and the replica stays good; also when an
# epoch takes three seconds, as birch's medium does (slow): then it writes more
# slowly; when the backup hangs, its writes wait for no longer than two seconds, and
# without an error.
# moments: early slow hangs
. "$(dirname "$0")/../lib/disk.sh"
: "${MOMENT:=early}"
T=8000
[ "$MOMENT" != hangs ] || T=20000 # nobody goes on alone before the log is lost
disk_images_make
if [ "$MOMENT" = slow ]; then
    "${CC:-cc}" -shared -fPIC -o "$WORK/badmedium.so" "$TOP/tests/fake/badmedium.c" ||
        fail "no compiler"
    sed -i "2i export LD_PRELOAD=$WORK/badmedium.so ASAN_OPTIONS=verify_asan_link_order=0 BADMEDIUM_SWITCH=$WORK/switch BADMEDIUM_FILE=birch/web.img BADMEDIUM_MS=5000" \
        "$WORK/birch/hv/devices"
fi
hosts_make
printf 'disk_log_mb=1\ninterval_ms=1000\n' >"$WORK/conf"
grep -v interval_ms "$WORK/alder/etc/understudy/understudyd.conf" >>"$WORK/conf"
cp "$WORK/conf" "$WORK/alder/etc/understudy/understudyd.conf"
kill -KILL "$(daemon_pid alder)"
daemon_start alder
await 10 peer_is_up alder birch || fail "birch is not up"
disk_guest_make alder web # some 4 MiB a second
protect alder web birch
epochs=$(status_of alder web epoch)
if [ "$MOMENT" != hangs ]; then
    more=20
    if [ "$MOMENT" = slow ]; then
        echo slow >"$WORK/switch"
        more=6
    fi
    await 30 epoch_is_over alder web $((epochs + more)) || fail "no epochs"
    [ "$(event_count alder 'event=void')" = 0 ] || fail "the replica was void"
    steps=$(guest alder steps web)
    await 5 epoch_read alder web || fail "alder does not answer"
    await 30 epoch_is_over alder web $((FROM + 1)) || fail "no epochs"
    disk_host_die alder
    await 20 state_is birch web TakenOver || fail "not taken over"
    disk_taken_over_well birch web "$steps"
    exit 0
fi
agent=$(agent_pid birch web)
kill -STOP "$agent"
await 10 disk_stands alder web || fail "the log is never full"
await 4 disk_goes_on alder web || fail "the guest waits for ever"
await 15 grep -q 'log was full, and no epoch' "$WORK"/alder/run/understudy/disk/*.log ||
    fail "the log was not lost"
kill -CONT "$agent"
again() { [ "$(state_count alder web Protected)" -ge 2 ]; }
await 30 again || fail "protection did not return"
epochs_go_on alder web || fail "no epochs"
[ "$(state_count birch web TakenOver)" = 0 ] || fail "birch took over"
