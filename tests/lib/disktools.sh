# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091
#
# fio, and the servers and the client of NBD that ours is measured beside: made
# when they are asked for, beside the lab's images, which stay without them.

# Prints the directory: tools.sqfs, a tree to chroot to with all of them, and
# fio.tar for a guest: run as `./ld.so --library-path . ./fio`.
disktools() {
    (
        LAB_DIR=$TOP/lab
        . "$LAB_DIR/lib/common.sh"
        . "$LAB_DIR/lib/image.sh"
        image disktools /dev/null
    )
}

disktools_build() { # DIR
    local dir=$1 tree=$1/tree options
    apt_sources >"$dir/sources.list"
    mapfile -t options < <(apt_options)
    mmdebstrap --variant=extract --include=fio,nbdkit,qemu-utils,nbd-client \
        "${options[@]}" --aptopt='Apt::Install-Recommends "false"' \
        bookworm "$tree" "$dir/sources.list" || return
    mkdir -p "$tree"/{dev,proc,sys,srv,run} "$dir/fio"
    chroot "$tree" /lib64/ld-linux-x86-64.so.2 --list /usr/bin/fio |
        awk '$2 == "=>" { print $3 }' >"$dir/libraries" || return
    while read -r library; do
        cp "$tree$library" "$dir/fio/" || return
    done <"$dir/libraries"
    cp "$tree/usr/bin/fio" "$dir/fio/" &&
        cp "$tree/lib64/ld-linux-x86-64.so.2" "$dir/fio/ld.so" || return
    tar -c -C "$dir/fio" --owner=0 --group=0 -f "$dir/fio.tar" . || return
    mksquashfs "$tree" "$dir/tools.sqfs" -comp zstd -Xcompression-level 3 \
        -noappend -quiet -no-progress -e usr/share || return
    rm -r "$tree" "$dir/fio"
}
