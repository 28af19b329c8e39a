# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091
# A VM with a disk to and fro: each time what the dead host had written after
# the last acknowledged epoch is gone from its image.
. "$(dirname "$0")/../lib/disk.sh"
disk_start_protected
from=alder to=birch
for round in 1 2 3; do
    say "== $round: $from dies, $to takes over =="
    steps=$(steps_committed $from web) || fail "no epochs"
    disk_host_die $from
    disk_taken_over_well $to web "$steps"
    # Its host rebooted.
    guest $from destroy web
    rm -rf "$WORK/$from/run/understudy/disk" "$WORK/$from/nbd"/*
    daemon_start $from
    await 5 state_is $from web Unprotected || fail "$from does not say that it is not there"
    peer_is_up() { us $to peer list --json | jq -en 'input[0].up'; }
    await 10 peer_is_up || fail "the hosts do not find each other"
    protect $to web $from
    # No more than the guest's 2 MiB.
    copied=$(sed -n 's/.*copied=\([0-9]*\) KiB.*/\1/p' "$WORK/$to.log" | tail -n 2 | awk '{ n += $1 } END { print n + 0 }')
    [ "$copied" -gt 0 ] && [ "$copied" -le 2048 ] || fail "$copied KiB were copied"
    await 5 disk_goes_on $to web || fail "the guest does not go on"
    : >"$WORK/$to.log"
    swap=$from from=$to to=$swap
done
us $from unprotect web || fail "unprotect"
await 5 host_is_clean $to || fail "something is left on $to"
image_is_plain $to || fail "the image on $to is still a replica's"
await 5 disk_goes_on $from web || fail "the guest does not go on"
