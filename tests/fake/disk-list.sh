# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091
# What the operator types about disks: those of a host are shown on both sides,
# with what they are for; an image for the backup is made as large as the
# peer's, and nothing that is there is changed.
. "$(dirname "$0")/../lib/disk.sh"
disk_hosts_make
disk_guest_make alder web
shown() { # HOST DISK KEY
    us "$1" disk list --json | jq -r ".[] | select(.disk == \"$2\") | .$3"
}
is() { # HOST DISK KEY VALUE
    [ "$(shown "$1" "$2" "$3")" = "$4" ] || fail "$1 $2 $3 is $(shown "$1" "$2" "$3"), not $4"
}
refused() { # TEXT COMMAND...
    local text=$1
    shift
    "$@" >"$WORK/out" 2>&1 && fail "$* is done"
    grep -q "$text" "$WORK/out" || fail "$* says $(cat "$WORK/out")"
}
is alder xvda state plain
is alder xvda bytes $((DISK_MB << 20))
is alder xvdb bytes 153600
[ "$(us birch disk list --json | jq length)" = 0 ] || fail "birch has disks"

# Images for the backup.
image=$WORK/birch/web.img
refused 'is there already' us birch disk create "$image" alder --like "$WORK/alder/web.img"
refused 'leave it as it is' us birch disk create "$image" alder --like "$WORK/alder/web.img"
truncate -s 4M "$image"
before=$(sha256sum "$image")
refused "has $((DISK_MB << 20)) bytes" us birch disk create "$image" alder --like "$WORK/alder/web.img"
[ "$(sha256sum "$image")" = "$before" ] || fail "the file was changed"
rm "$image"
ln -s "$WORK/birch/nowhere" "$image"
refused 'is there already' us birch disk create "$image" alder --like "$WORK/alder/web.img"
[ ! -e "$WORK/birch/nowhere" ] || fail "a link was followed"
rm "$image"
refused 'no disk .* is served there' us birch disk create "$image" alder
refused 'is no peer of this host' us birch disk create "$image" cedar
refused 'No such file' us birch disk create "$WORK/birch/no/web.img" alder --like "$WORK/alder/web.img"
[ ! -e "$image" ] || fail "something was made"
refused 'disk create .*web.img PEER' us alder protect web birch --arbiter none
await 10 vm_is_unknown alder web || fail "alder still knows it"
us birch disk create "$image" alder --like "$WORK/alder/web.img" >"$WORK/out" || fail "no image: $(cat "$WORK/out")"
[ "$(stat -c %s:%b "$image")" = $((DISK_MB << 20)):0 ] || fail "it has $(stat -c '%s bytes, %b blocks' "$image")"

protect alder web birch
is alder xvda role primary
is alder xvda state 'in sync'
is alder xvda vm web
is birch xvda role backup
is birch xvda state 'in sync'
is birch xvda vm web
us alder disk list web | grep -q "^web  .* xvda .* primary in sync .*$WORK/alder/web.img" ||
    fail "the list is $(us alder disk list web)"
us birch disk list web >"$WORK/out" || fail "no list on birch"
for host in alder birch; do
    us $host status web | grep -q "^  xvda: *in sync, 8.0 MiB, $WORK/$host/web.img" ||
        fail "$host's status is $(us $host status web)"
done
refused 'no domain' us alder disk list nosuch
guest alder create plain >/dev/null || fail "no second guest"
refused 'has no disk here' us alder disk list plain

# Without the daemon of the peer its size can't be asked.
kill -STOP "$(daemon_pid alder)" || fail "no daemon"
rm -f "$WORK/birch/more.img"
us birch disk create "$WORK/birch/more.img" alder --like "$WORK/alder/web.img" >"$WORK/out" 2>&1 &&
    fail "made without the peer"
grep -q 'alder' "$WORK/out" || fail "it says $(cat "$WORK/out")"
[ ! -e "$WORK/birch/more.img" ] || fail "an image was made"
kill -CONT "$(daemon_pid alder)"

# A server that is gone with its keeper.
us alder unprotect web || fail "unprotect"
is alder xvda state plain
server=$(disk_server alder)
kill -KILL "$(ps -o ppid= -p "$server" | tr -d ' ')" "$server"
is_worse() {
    us alder disk list >"$WORK/out"
    [ $? = 3 ] && grep -q 'no server' "$WORK/out"
}
await 5 is_worse || fail "it says $(cat "$WORK/out")"
