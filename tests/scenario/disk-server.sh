# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091,SC2016
# A guest's disks through block-understudy, on the kernel's nbd and blkback:
# it reads and writes while its disk server is killed, again and again, and
# sees no error; keeper and server both gone, a resume; images that are in use
# are refused; after the guest nothing is left.
# test-all only
. "$(dirname "$0")/../lib/scenario.sh"
. "$(dirname "$0")/../lib/guest-disk.sh"
start_from running
disk_images_make alder
disk_guest_make ro
alder understudy-disk list

domid=$(alder xl domid disk)
id=vbd-$domid-51728 # xvdb
server() { alder understudy-disk list | awk -v id="$id" '$1 == id { print $3 }'; }
device=$(alder understudy-disk list | awk -v id="$id" '$1 == id { print $2 }')
[ -n "$device" ] || fail "no device for $id"
in_flight() { alder "awk '{ exit \$1 + \$2 == 0 }' /sys/block/${device#/dev/}/inflight"; }

# Others that want the image are refused, by name.
out=$(alder understudy-disk serve second /srv/data.img 2>&1) &&
    fail "a second server got the image"
say "$out"
grep -q 'served already' <<<"$out" || fail "does not say why"
guest_config disk2 22 <<'CFG'
disk = ["script=block-understudy,vdev=xvda,target=/srv/data.img"]
CFG
out=$(alder xl create -q /srv/disk2.cfg 2>&1) && fail "a second guest got it"
say "$out"
grep -q 'served already' <<<"$out" || fail "xl does not say why"

diskcheck_start 100
await 10 disk_works alder 100 || fail "the guest does nothing with its disk"
kills=0
for _ in 1 2 3 4; do
    pid=$(server)
    alder kill -STOP "$pid" || fail "stop $pid" # requests stay under way
    await 4 in_flight || fail "no requests under way"
    alder kill -9 "$pid" || fail "kill $pid"
    kills=$((kills + 1))
    replaced() { [ "$(server)" != "$pid" ] && [ "$(server)" != 0 ]; }
    await 4 replaced || fail "no server after kill -9"
    console_says alder 'FAILED\|I/O error' && fail "the guest saw an error"
done
# The keeper, the server's parent, as well.
pid=$(server)
keeper=$(alder "awk '/^PPid/ { print \$2 }' /proc/$pid/status")
alder kill -9 "$keeper" "$pid" || fail "kill the keeper"
nobody() { [ "$(server)" = 0 ]; }
await 4 nobody || fail "a server is left"
alder understudy-disk resume "$id" || fail "resume"
await 60 console_says alder 'diskcheck: ' || fail "diskcheck does not end"
alder tail -n 3 /var/log/xen/console/guest-disk.log
console_says alder 'diskcheck: all fine' || fail "diskcheck found something"
console_says alder 'I/O error' && fail "the guest saw an error"
alder 'dmesg | grep -a "I/O error.*nbd\|nbd.*I/O error"' && fail "nbd saw an error"
alder "tail -n 30 /run/understudy/disk/$id.log"
say "$kills servers and a keeper killed"

alder xl destroy disk || fail "xl destroy"
nothing_left() {
    alder '[ -z "$(ls /run/understudy/disk)" ] &&
        [ "$(cat /sys/block/nbd*/size | sort -u)" = 0 ] &&
        ! pgrep -x understudy-disk'
}
await 6 nothing_left || fail "something is left: $(alder understudy-disk list)"
