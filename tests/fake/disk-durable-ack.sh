# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091,SC2034
# durable_ack = 1 on the backup: when an epoch is prepared, so before it can be
# acknowledged, the last thing that its thread did with the journal is a sync.
# Without it, it is a write. Then alder dies, and birch has memory and disk of one moment.
# moments: on off
. "$(dirname "$0")/../lib/disk.sh"
: "${MOMENT:=on}"
T=4000
"${CC:-cc}" -shared -fPIC -o "$WORK/iolog.so" "$TOP/tests/fake/iolog.c" || fail "no compiler"
disk_images_make
# The servers alone.
sed -i "2i export LD_PRELOAD=$WORK/iolog.so IOLOG=$WORK/io ASAN_OPTIONS=verify_asan_link_order=0" "$WORK/birch/hv/devices"
hosts_make
if [ "$MOMENT" = on ]; then
    echo 'durable_ack=1' >>"$WORK/birch/etc/understudy/understudyd.conf"
    kill -KILL "$(daemon_pid birch)"
    daemon_start birch
    await 10 peer_is_up alder birch || fail "birch is not up"
fi
disk_guest_make alder web
protect alder web birch
hit() { test -e "$WORK/birch/run/understudy/faults.hit"; }
stopped() { # leaves its pid in $pid
    for pid in $(sed -n 's/^server=//p' "$WORK/birch/run/understudy/disk"/vbd-*-517[12]?); do
        grep -q '^State:.*T (stopped)' "/proc/$pid/status" && return
    done
    return 1
}
for round in 1 2 3; do
    await 5 epochs_go_on alder web || fail "no epochs"
    fault_arm birch duty.prepared stop
    await 10 hit || fail "nothing is prepared"
    await 5 stopped || fail "no server stands still"
    journal=$(readlink "/proc/$pid/fd"/* | grep journal)
    # Applying has a thread of its own, and writes no records, which begin at 8192.
    thread=$(awk -v j="$journal" '$1 == "write" && $2 == j && $4 >= 8192 { t = $3 } END { print t }' "$WORK/io")
    last=$(awk -v j="$journal" -v t="$thread" '$2 == j && $3 == t { last = $1 } END { print last }' "$WORK/io")
    say "the last thing was: $last"
    rm "$WORK/birch/run/understudy/faults.hit"
    kill -CONT "$pid"
    case $MOMENT in
    on) [ "$last" = sync ] || fail "the commit record is not synced" ;;
    off) [ "$last" = write ] || fail "it is synced, though nobody asked for that" ;;
    esac
done
steps=$(steps_committed alder web) || fail "no epochs"
disk_host_die alder
disk_taken_over_well birch web "$steps"
