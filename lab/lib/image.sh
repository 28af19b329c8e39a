# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC2016,SC2034 # text for others to expand
#
# The images of the lab: root of the hosts, kernel and initrd of dom0, the guest,
# keys. Each is made once and kept in the cache under a hash of its recipe, which
# is the text of its build function and the files that go into it.

# Makes DIR/KIND-HASH by KIND_build unless it is there; prints its path.
image() { # KIND FILE...
    local kind=$1 hash path tmp
    shift
    hash=$({
        declare -f "${kind}_build"
        cat "$@"
    } | sha256sum)
    path=$CACHE/$kind-${hash:0:16}
    if ! [ -d "$path" ]; then
        mkdir -p "$CACHE"
        tmp=$path.$$
        rm -rf "$tmp"
        mkdir "$tmp"
        say "making the $kind image"
        if ! "${kind}_build" "$tmp" >"$tmp/log" 2>&1; then
            tail -n 20 "$tmp/log" >&2
            die "making the $kind image failed; all of its log: $tmp/log"
        fi
        mv -T "$tmp" "$path" 2>/dev/null || rm -rf "$tmp"
    fi
    echo "$path"
}

# The machine's own sources of Debian, as it has them configured.
apt_sources() {
    apt-get indextargets \
        --format '$(ORIGIN)|$(CODENAME)|deb $(REPO_URI) $(RELEASE) $(COMPONENT)' \
        'Identifier: Packages' |
        awk -F'|' '$1 == "Debian" && $2 ~ /^bookworm/ { print $3 }' | sort -u
}

apt_options() {
    apt-config dump |
        grep -E '^Acquire::(Check-|http|https|ftp|Retries|proxy)' |
        sed -n 's/^\([^ ]*\) \("[^"]\+"\);$/--aptopt=\1 \2/p'
}

root_build() { # DIR
    local dir=$1 packages options
    packages=$(sed 's/#.*//' "$LAB_DIR/dom0/packages" | xargs | tr ' ' ',')
    apt_sources >"$dir/sources.list"
    if ! [ -s "$dir/sources.list" ]; then
        apt-get update && apt_sources >"$dir/sources.list"
        [ -s "$dir/sources.list" ] || {
            echo "no source of Debian bookworm in /etc/apt"
            return 1
        }
    fi
    mapfile -t options < <(apt_options)
    mmdebstrap --variant=minbase --include="$packages" "${options[@]}" \
        --aptopt='Apt::Install-Recommends "false"' \
        --dpkgopt='path-exclude=/usr/share/doc/*' \
        --dpkgopt='path-exclude=/usr/share/man/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' \
        bookworm "$dir/root.tar" "$dir/sources.list" || return
    mksquashfs - "$dir/root.sqfs" -tar -comp zstd -Xcompression-level 1 \
        -noappend -quiet -no-progress <"$dir/root.tar" || return
    mkdir "$dir/boot"
    tar -x -C "$dir/boot" --strip-components=2 --wildcards \
        -f "$dir/root.tar" './boot/vmlinuz-*' './boot/xen-4.17-amd64.gz' ||
        return
    gunzip -c "$dir/boot/xen-4.17-amd64.gz" >"$dir/xen" || return
    mv "$dir/boot/"vmlinuz-* "$dir/vmlinuz" || return
    rm -r "$dir/root.tar" "${dir:?}/boot"
}

# Copies kernel modules and what they need to DIR/modules; DIR/modules/list has
# them in the order in which they have to be loaded.
modules_copy() { # ROOT DIR MODULE...
    local root=$1 dir=$2 version file
    shift 2
    mkdir -p "$dir/modules"
    unsquashfs -q -n -d "$dir/unpacked" "$root/root.sqfs" \
        usr/lib/modules || return
    ln -s usr/lib "$dir/unpacked/lib"
    version=$(basename "$dir/unpacked/lib/modules/"*)
    modprobe -d "$dir/unpacked" -S "$version" --show-depends -a "$@" |
        awk '$1 == "insmod" && !seen[$2]++ { print $2 }' >"$dir/files"
    while read -r file; do
        cp "$file" "$dir/modules/" || return
        basename "$file" >>"$dir/modules/list"
    done <"$dir/files"
    rm -r "$dir/unpacked" "$dir/files"
    [ -s "$dir/modules/list" ]
}

initrd_pack() { # TREE FILE
    (cd "$1" && find . -print0 | cpio --null -o -H newc --quiet) |
        gzip -1 >"$2"
}

initrd_tree() { # DIR
    mkdir -p "$1"/{bin,sbin,dev,proc,sys,root,ro,rw,etc}
    cp /bin/busybox "$1/bin/busybox"
}

# Everything of dom0 that changes often is in the initrd, which is made in a
# second, not in the root.
dom0_build() { # DIR
    local dir=$1 tree=$1/tree file
    initrd_tree "$tree" || return
    modules_copy "$ROOT_IMAGE" "$tree" virtio_pci virtio_blk squashfs \
        overlay || return
    mkdir -p "$tree/lab/keys"
    for file in boot inittab sshd_config keep-understudyd; do
        cp "$LAB_DIR/dom0/$file" "$tree/lab/" || return
    done
    cp "$KEYS_IMAGE/"{id,id.pub,host_*,known_hosts} "$tree/lab/keys/" || return
    cp "$LAB_DIR/dom0/initrd-init" "$tree/init" || return
    chmod 755 "$tree/init" "$tree/lab/boot" "$tree/lab/keep-understudyd"
    initrd_pack "$tree" "$dir/initrd" || return
    rm -r "$tree"
}

# The kernel inside a bzImage. dom0 would unpack it each time a guest is created,
# which takes 5 s in emulation.
kernel_unpack() { # BZIMAGE ELF
    local at
    at=$(LC_ALL=C grep -aobP '\xfd7zXZ\x00' "$1" | head -n 1) || return
    # the compressed kernel has something behind it, of which xz complains
    tail -c "+$((${at%%:*} + 1))" "$1" | xz -dc --single-stream >"$2"
    [ "$(head -c 4 "$2")" = $'\x7fELF' ]
}

# The fast-suspend module for the kernel that the guest boots. The headers are
# installed here when that kernel is not the one of which lab/deps has them.
module_build() { # ROOT DIR
    local root=$1 dir=$2 top version
    top=$(dirname "$LAB_DIR")
    version=$(unsquashfs -l -d '' "$root/root.sqfs" usr/lib/modules |
        sed -n 's|^/usr/lib/modules/\([^/]*\)$|\1|p')
    [ -d "/usr/src/linux-headers-$version" ] ||
        apt-get install -y --no-install-recommends \
            "linux-headers-$version" || {
        echo "no headers of the guest's kernel $version; a new root image" \
            "has a newer kernel: rm -r $root"
        return 1
    }
    cp -r "$top/guest/fast-suspend" "$dir/module" || return
    make -C "$dir/module" KDIR="/usr/src/linux-headers-$version" || return
    strip --strip-debug -o "$dir/fast_suspend.ko" \
        "$dir/module/fast_suspend.ko" && rm -r "$dir/module"
}

guest_build() { # DIR
    local dir=$1 tree=$1/tree out=$1/out applet program
    mkdir -p "$tree" "$out"
    initrd_tree "$tree" || return
    modules_copy "$ROOT_IMAGE" "$tree" xen-netfront xen-blkfront ext4 || return
    for applet in sh init; do
        ln -s busybox "$tree/bin/$applet"
    done
    ln -s bin/init "$tree/init"
    cp "$LAB_DIR/guest/init" "$tree/boot" || return
    cp "$LAB_DIR/guest/service" "$tree/service" || return
    cp "$LAB_DIR/guest/inittab" "$tree/etc/inittab" || return
    chmod 755 "$tree/boot" "$tree/service"
    for applet in $(busybox --list | grep -vxE 'busybox|sh|init'); do
        ln -s ../bin/busybox "$tree/sbin/$applet"
    done
    for program in ledgerd load; do
        gcc -std=gnu11 -Wall -Wextra -O2 -static -o "$tree/bin/$program" \
            "$(dirname "$LAB_DIR")/tests/guest/$program.c" || return
    done
    module_build "$ROOT_IMAGE" "$tree" || return
    initrd_pack "$tree" "$out/initrd" || return
    cp "$ROOT_IMAGE/vmlinuz" "$out/vmlinuz" || return
    kernel_unpack "$out/vmlinuz" "$out/vmlinux" || return
    cp "$LAB_DIR/guest/"*.cfg "$out/" || return
    basename "$dir" >"$out/id"
    mksquashfs "$out" "$dir/guest.sqfs" -noD -noF -noI -noappend \
        -quiet -no-progress || return
    rm -r "$tree" "$out"
}

# Keys of the hosts and the one by which all of them and we get in.
keys_build() { # DIR
    local dir=$1 host
    for host in id host_alder host_birch; do
        ssh-keygen -q -t ed25519 -N '' -C "lab $host" -f "$dir/$host" || return
    done
    {
        echo "alder,10.0.6.1,10.0.7.1,10.0.5.1 $(<"$dir/host_alder.pub")"
        echo "birch,10.0.6.2,10.0.7.2,10.0.5.2 $(<"$dir/host_birch.pub")"
    } >"$dir/known_hosts"
}

# Programs that run in the outside client's place.
tools_build() { # DIR
    local source
    for source in "$(dirname "$LAB_DIR")/tests/lab/"*-client.c \
        "$LAB_DIR/tools/tick-listen.c"; do
        gcc -std=gnu11 -Wall -Wextra -O2 -static \
            -o "$1/$(basename "$source" .c)" "$source" || return
    done
}

images_make() {
    local top
    top=$(dirname "$LAB_DIR")
    mkdir -p "$CACHE"
    ROOT_IMAGE=$(image root "$LAB_DIR/dom0/packages") || exit
    KEYS_IMAGE=$(image keys /dev/null) || exit
    DOM0_IMAGE=$(image dom0 "$LAB_DIR/dom0/"* "$ROOT_IMAGE/log" \
        "$KEYS_IMAGE/id.pub" "$LAB_DIR/lib/image.sh") || exit
    GUEST_IMAGE=$(image guest "$LAB_DIR/guest/"* "$ROOT_IMAGE/log" \
        "$top/tests/guest/"*.c "$LAB_DIR/lib/image.sh" \
        "$top/guest/fast-suspend/"{Kbuild,Makefile,{main,suspend,restore,compat}.c,*.h}) ||
        exit
}
