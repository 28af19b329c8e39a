# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091,SC2034
# An image that is nearly empty is copied without its holes being read, on either
# host; what birch has where alder has a hole becomes zeroes, and what is not in
# the holes is copied: at odd places, up to a last block that is short, and what
# was only just written, when no file system has a place for it yet.
. "$(dirname "$0")/../lib/disk.sh"
MB=256 TAIL=1536
disk_images_make
put() { # HOST OFFSET BYTES
    head -c "$3" /dev/urandom |
        dd of="$WORK/$1/web.img" oflag=seek_bytes seek="$2" conv=notrunc status=none iflag=fullblock bs=64K
}
for host in alder birch; do
    rm "$WORK/$host/web.img"
    truncate -s $(((MB << 20) + TAIL)) "$WORK/$host/web.img"
done
put alder $((5 << 20)) 512
put alder $(((9 << 20) + 4096 - 512)) 1024
put alder $(((20 << 20) - 3)) 262144
put alder $(((40 << 20) + 7)) 1
put alder $((MB << 20)) $TAIL
put birch $((9 << 20)) 20000
put birch $(((60 << 20) + 1000)) 300000
put birch $(((MB << 20) - 5000)) 3000
fallocate -o $((80 << 20)) -l $((1 << 20)) "$WORK/alder/web.img" 2>/dev/null
put alder $(((80 << 20) + 12288)) 4096
fallocate -o $((90 << 20)) -l $((1 << 20)) "$WORK/birch/web.img" 2>/dev/null
put birch $(((90 << 20) + 12288)) 4096
hosts_make
disk_guest_make alder web
protect alder web birch
disk_rests_are_equal || fail "the images differ: $(cmp -i 2M "$WORK/alder/web.img" "$WORK/birch/web.img")"
# All that a server and its keeper have read since they were started.
read_kib() { # HOST
    awk '/^rchar/ { print int($2 / 1024) }' "/proc/$(disk_server "$1")/io"
}
alder=$(read_kib alder) birch=$(read_kib birch)
say "read: $alder KiB of $((MB << 10)) on alder, $birch KiB on birch"
us alder disk verify web || fail "the disks differ"
[ "$(read_kib alder)" -gt 2048 ] || fail "what was read is not known"
steps=$(steps_committed alder web) || fail "no epochs"
disk_host_die alder
disk_taken_over_well birch web "$steps"
case $(stat -f -c %T "$WORK") in
ext2/ext3 | xfs | tmpfs) ;;
*)
    say "nothing is known of this file system's holes"
    exit 77
    ;;
esac
[ "$alder" -lt $((MB << 7)) ] || fail "alder has read $alder KiB"
[ "$birch" -lt $((MB << 7)) ] || fail "birch has read $birch KiB"
