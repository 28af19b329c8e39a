# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091,SC2034
# Both sides' disks are compared while the guest writes and epochs go on: equal
# ones are equal, whatever is written meanwhile, and what differs is named to
# the block. What can't be compared is refused, or ends with the reason.
. "$(dirname "$0")/../lib/disk.sh"
refused() { # TEXT COMMAND...
    local text=$1
    shift
    "$@" >"$WORK/out" 2>&1 && fail "$* is done"
    grep -q "$text" "$WORK/out" || fail "$* says $(cat "$WORK/out")"
}
T=4000
disk_hosts_make
disk_guest_make alder web
refused 'no such VM\|not protected\|unknown' us alder disk verify web
protect alder web birch
refused 'on alder: understudy disk verify web' us birch disk verify web

for _ in 1 2 3 4 5; do
    us alder disk verify web >"$WORK/out" 2>&1 || fail "a difference: $(cat "$WORK/out")"
    grep -q 'web: .* compared, both sides are the same' "$WORK/out" || fail "it says $(cat "$WORK/out")"
done
us alder disk verify web --json >"$WORK/json" || fail "a difference: $(cat "$WORK/json")"
[ "$(json done_bytes <"$WORK/json")" = $(((DISK_MB << 20) + 153600)) ] || fail "not all: $(cat "$WORK/json")"
say "not known at any cut: $(json unknown_bytes <"$WORK/json") bytes"
await 5 guest_goes_on alder web || fail "the guest does not go on"

# Two blocks that differ beside each other, one far away, and a short last one.
spoil() { # IMAGE OFFSET BYTES
    dd if=/dev/urandom of="$1" bs=1 seek="$2" count="$3" conv=notrunc status=none
}
spoil "$WORK/birch/web.img" $((3 << 20)) 5000
spoil "$WORK/birch/web.img" $((8388608 - 1)) 1
spoil "$WORK/birch/other.img" 153599 1
us alder disk verify web >"$WORK/out" 2>"$WORK/err"
[ $? = 3 ] || fail "exit status, and it says $(cat "$WORK/out")"
printf '%s\n' 'xvda: 8192 bytes at 3145728 differ' 'xvda: 4096 bytes at 8384512 differ' \
    'xvdb: 2048 bytes at 151552 differ' | cmp - <(grep bytes "$WORK/out") || fail "it says $(cat "$WORK/out")"
grep -q 'understudy protect web birch' "$WORK/err" || fail "no hint in $(cat "$WORK/err")"
us alder disk verify web --json >"$WORK/json" 2>/dev/null
[ "$(jq -c '[.ranges[] | [.disk, .offset, .bytes]]' "$WORK/json")" = \
    '[["xvda",3145728,8192],["xvda",8384512,4096],["xvdb",151552,2048]]' ] || fail "ranges are $(cat "$WORK/json")"
[ "$(json differing_bytes <"$WORK/json")" = 14336 ] || fail "$(cat "$WORK/json")"
[ "$(state_count alder web Protected)" = 1 ] || fail "protection did not go on"

# As the hint says.
us alder unprotect web || fail "unprotect"
await 5 host_is_clean birch || fail "something is left on birch"

# A VM without disks.
mv "$WORK/birch/hv/devices" "$WORK/birch/devices"
guest_make alder plain
protect alder plain birch
refused 'no disks that are replicated' us alder disk verify plain
us alder unprotect plain || fail "unprotect"
await 5 host_is_clean birch || fail "something is left on birch"
mv "$WORK/birch/devices" "$WORK/birch/hv/devices"

protect alder web birch
us alder disk verify web >"$WORK/out" || fail "a difference: $(cat "$WORK/out")"

# Birch's agent dies meanwhile: its replica is gone.
agent=$(agent_pid birch web)
before=$(event_count alder 'event=operator its disks are compared')
asked() { [ "$(event_count alder 'event=operator its disks are compared')" -gt "$before" ]; }
kill -STOP "$agent"
us alder disk verify web >"$WORK/out" 2>&1 &
verify=$!
await 5 asked || fail "it was not asked for"
sleep 0.3
kill -KILL "$agent" || fail "birch has no agent"
wait $verify && grep -q 'both sides' "$WORK/out" && fail "compared without birch"
grep -q 'not compared to the end\|not Protected\|can.t be reached' "$WORK/out" || fail "it says $(cat "$WORK/out")"
await 5 guest_goes_on alder web || fail "the guest does not go on"
