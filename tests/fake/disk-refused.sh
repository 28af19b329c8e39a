# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091
# What does not fit is refused by name, and the guest goes on: an image of
# another size, none at all; and then it works.
. "$(dirname "$0")/../lib/disk.sh"
disk_hosts_make
disk_guest_make alder web
truncate -s 4M "$WORK/birch/web.img"
protect_refused 'has 4194304 bytes here, and 8388608 there'
rm "$WORK/birch/web.img"
protect_refused 'web.img: No such file'
truncate -s "${DISK_MB}M" "$WORK/birch/web.img"
protect alder web birch
us alder unprotect web || fail "unprotect"
await 5 host_is_clean birch || fail "something is left on birch"
await 5 guest_goes_on alder web || fail "the guest does not go on"
