# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC2016 # text for others to expand
#
# The disk of the lab's guest `database`, and programs for its clients outside;
# made when somebody asks for it. All is Debian's PostgreSQL: the programs come
# out of the same tree, with their libraries, as Debian has pgbench in the
# server's package, and that would start a server on this machine.

readonly DATABASE_MIB=400
readonly DATABASE_BIN=/usr/lib/postgresql/15/bin
readonly DATABASE_DATA=/var/lib/postgresql/data

database_tree() { # DIR
    local options
    apt_sources >"$1/sources.list"
    [ -s "$1/sources.list" ] || return
    mapfile -t options < <(apt_options)
    # jit is off: its library would be a third of the image
    mmdebstrap --variant=minbase --include=postgresql-15 "${options[@]}" \
        --aptopt='Apt::Install-Recommends "false"' \
        --essential-hook='mkdir -p "$1/etc/postgresql-common"' \
        --essential-hook='echo create_main_cluster = false \
            >"$1/etc/postgresql-common/createcluster.conf"' \
        --dpkgopt='path-exclude=/usr/share/doc/*' \
        --dpkgopt='path-exclude=/usr/share/man/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' \
        --dpkgopt='path-exclude=/usr/share/i18n/*' \
        --dpkgopt='path-exclude=/usr/lib/x86_64-linux-gnu/libLLVM*' \
        --dpkgopt='path-exclude=/usr/lib/postgresql/15/lib/bitcode/*' \
        bookworm "$1/tree" "$1/sources.list" || return
    rm -rf "$1/tree/var/cache/apt" "$1/tree/var/lib/apt/lists" \
        "$1/tree/usr/share/locale"
}

in_database() { # DIR CMD...: as the database's user
    local tree=$1/tree
    shift
    chroot "$tree" setpriv --reuid=postgres --regid=postgres --clear-groups "$@"
}

# Checksums, so that a page that is not as it was written is seen by whoever reads it.
database_cluster() { # DIR
    local dir=$1 data=$1/tree$DATABASE_DATA rc=0
    in_database "$dir" $DATABASE_BIN/initdb -D $DATABASE_DATA -A trust -k \
        --locale=C.UTF-8 -E UTF8 || return
    cp "$LAB_DIR/database/postgresql.conf" "$data/" || return
    echo 'host all all 10.0.5.0/24 trust' >>"$data/pg_hba.conf"
    # nothing of the machine's is in the tree, its shared memory neither
    in_database "$dir" $DATABASE_BIN/pg_ctl -D $DATABASE_DATA -w -o \
        "-c listen_addresses= -c fsync=off -c dynamic_shared_memory_type=mmap" \
        -l /tmp/log start || return
    in_database "$dir" $DATABASE_BIN/psql -h /tmp -X -q -v ON_ERROR_STOP=1 \
        -f - postgres <"$LAB_DIR/database/schema.sql" &&
        in_database "$dir" $DATABASE_BIN/pgbench -h /tmp -i -q postgres || rc=1
    in_database "$dir" $DATABASE_BIN/pg_ctl -D $DATABASE_DATA -w -m fast stop || return
    cat "$dir/tree/tmp/log"
    return $rc
}

# PROGRAM in DIR/bin is a script that runs the one in DIR/lib with what it is
# linked with, whatever this machine has.
database_tools() { # DIR
    local dir=$1 program file
    mkdir "$dir/bin" "$dir/lib"
    for program in psql pgbench pg_amcheck; do
        cp "$dir/tree$DATABASE_BIN/$program" "$dir/lib/" || return
        chroot "$dir/tree" ldd $DATABASE_BIN/$program |
            grep -o '/[^ ]*' >"$dir/libraries" || return
        while read -r file; do
            cp -Lu "$dir/tree$file" "$dir/lib/" || return
        done <"$dir/libraries"
        printf '#!/bin/sh\nd=$(dirname "$0")/../lib\n%s "$d/%s" "$@"\n' \
            'exec "$d/ld-linux-x86-64.so.2" --library-path "$d"' \
            "$program" >"$dir/bin/$program"
        chmod 755 "$dir/bin/$program"
    done
    rm "$dir/libraries"
}

database_build() { # DIR
    local dir=$1
    database_tree "$dir" || return
    database_cluster "$dir" || return
    database_tools "$dir" || return
    rm -rf "$dir/tree/tmp/"* "$dir/tree/dev/"*
    truncate -s ${DATABASE_MIB}M "$dir/database.img"
    mkfs.ext4 -q -F -b 4096 -m 0 -L database -d "$dir/tree" "$dir/database.img" || return
    rm -rf "$dir/tree"
    zstd -q -3 --rm "$dir/database.img"
}

# Prints the directory: database.img.zst, and psql, pgbench, pg_amcheck in bin/.
database_make() {
    image database "$LAB_DIR/lib/database.sh" "$LAB_DIR/database/"*
}
