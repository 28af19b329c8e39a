# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091,SC2016,SC2154
#
# For the lab's scenarios disk-*, beside scenario.sh: a guest `disk` on alder with
# two disks of block-understudy: xvda with diskcheck on it, and xvdb, 64 MiB,
# empty, for that to write and read.
DISK=10.0.5.21
DATA=/srv/data.img

disk_images_make() { # HOST...
    local host
    gcc -std=gnu11 -Wall -Wextra -O2 -static -pthread -o "$WORK/diskcheck" \
        "$TOP/tests/guest/diskcheck.c" || fail "build diskcheck"
    for host; do
        on "$host" 'mkdir -p /tmp/tools && cat >/tmp/tools/diskcheck &&
            chmod +x /tmp/tools/diskcheck && rm -f /srv/tools.img /srv/data.img &&
            truncate -s 8M /srv/tools.img && truncate -s 64M /srv/data.img &&
            mkfs.ext4 -q -F -O ^has_journal -d /tmp/tools /srv/tools.img' \
            <"$WORK/diskcheck" || fail "make the images on $host"
    done
}
disk_guest_make() { # [ACCESS of xvda]
    alder 'rm -f /var/log/xen/console/guest-disk.log'
    guest_config disk 21 <<CFG
disk = ["script=block-understudy,vdev=xvda,access=${1:-rw},target=/srv/tools.img",
        "script=block-understudy,vdev=xvdb,target=$DATA"]
CFG
    alder xl create -q /srv/disk.cfg || fail "xl create disk"
    await 12 guest_serves $DISK || fail "disk does not answer"
}
diskcheck_start() { # SECONDS [MS between two requests of a thread]
    guest_type alder disk "mkdir /m; mount -r /dev/xvda /m && /m/diskcheck /dev/xvdb $* &"
}
disk_requests() { # HOST: that its guests' disks have done since they were attached
    on "$1" 'cat /sys/block/nbd*/stat' | awk '{ n += $1 + $5 } END { print n + 0 }'
}
disk_works() { # HOST AT-LEAST: requests; a look for one under way may miss them all
    [ "$(disk_requests "$1")" -ge "$2" ]
}
diskcheck_end() { # HOST: it reads all once more, and ends
    guest_type "$1" disk 'kill -TERM $(pidof diskcheck)'
}
console_says() { # HOST TEXT: of the guest, also when it was taken over
    on "$1" "cat /var/log/xen/console/guest-disk*.log | grep -a '$2'"
}
disk_is_taken_over() { # HOST
    await 20 state_is "$1" disk TakenOver || fail "$1 did not take over"
    await 6 guest_serves $DISK || fail "disk does not answer"
}
diskcheck_was_fine() { # HOST: to its end
    await 60 console_says "$1" 'diskcheck: ' || fail "diskcheck does not end"
    console_says "$1" 'diskcheck: '
    console_says "$1" 'diskcheck: all fine' || fail "diskcheck found something"
    ! console_says "$1" 'I/O error' || fail "the guest saw an error"
}
