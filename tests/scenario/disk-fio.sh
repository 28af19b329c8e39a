# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091,SC2016,SC2154
# fio writes a protected guest's disk and verifies it, over and over, while the
# disk servers of both hosts and the backup's agent are killed at random moments:
# no error, no wrong block in the guest, and it is Protected again. At the end
# alder's plug is pulled, and fio finds on birch what it has written.
# test-all only
. "$(dirname "$0")/../lib/scenario.sh"
. "$(dirname "$0")/../lib/guest-disk.sh"
. "$(dirname "$0")/../lib/disktools.sh"
SEED=${SEED:-$RANDOM}
RANDOM=$SEED
say "seed $SEED"

# In the guest, from xvda: each round writes 24 MiB of xvdb, in an order of its own,
# and then reads them. A block has its place and the round in it: with checksums
# alone fio takes one of an earlier round for right.
cat >"$WORK/verify" <<'GUEST'
echo 1 >/proc/sys/vm/overcommit_memory # a library of fio's has 136 MB of zeroes
n=0
while [ ! -e /stop ]; do
    n=$((n + 1))
    /m/fio/ld.so --library-path /m/fio /m/fio/fio --name=verify --filename=/dev/xvdb \
        --direct=1 --ioengine=libaio --iodepth=16 --rw=randwrite --bs=4k --size=24m \
        --randseed=$n --fsync=256 --thread --verify=pattern --verify_fatal=1 \
        --verify_pattern=%o\"r\"0x$(printf %08x $n) \
        >/tmp/fio.out 2>&1 || {
        cat /tmp/fio.out
        echo "fio: FAILED in round $n"
        break
    }
    echo "fio: round $n is right"
done
echo "fio: the end"
GUEST
start_from running
tools=$(disktools) || fail "no fio"
mkdir -p "$WORK/tools/fio"
tar -x -C "$WORK/tools/fio" -f "$tools/fio.tar" && cp "$WORK/verify" "$WORK/tools/" &&
    truncate -s 112M "$WORK/tools.img" &&
    mkfs.ext4 -q -F -O ^has_journal -d "$WORK/tools" "$WORK/tools.img" &&
    gzip -1 "$WORK/tools.img"
[ -s "$WORK/tools.img.gz" ] || fail "no image of tools"
for host in alder birch; do
    on $host 'rm -f /srv/tools.img /srv/data.img && truncate -s 64M /srv/data.img &&
        gunzip | dd of=/srv/tools.img bs=64k conv=sparse status=none &&
        truncate -s 112M /srv/tools.img' <"$WORK/tools.img.gz" &
done
wait
disk_guest_make
guest_type alder disk 'mkdir /m; mount -r /dev/xvda /m && sh /m/verify &'
await 40 console_says alder 'fio: ' || fail "fio does not start"
console_says alder 'fio: round 1 is right' || fail "fio does not work"
protect alder disk birch

bad() { console_says "$1" 'fio: FAILED\|fio: the end\|I/O error'; }
rounds() { # HOST
    on "$1" 'cat /var/log/xen/console/guest-disk*.log' | grep -ac 'fio: round'
}
rounds_are() { [ "$(rounds "$1")" -ge "$2" ]; }
voids() { alder 'grep -ac "event=void" /var/log/understudyd.log'; }
server() { # HOST: of the disk that fio has, of the newest domain
    on "$1" understudy-disk list | awk '$1 ~ /-51728$/ && $3 { pid = $3 } END { print pid }'
}
killed() { # WHAT: kill it; false when there is none just now
    local pid
    case $1 in
    alder | birch) pid=$(server "$1") && on "$1" kill -9 "$pid" ;;
    agent) birch 'pkill -9 -f "[u]nderstudyd agent backup"' ;;
    esac 2>/dev/null
}
moment() { sleep "$((RANDOM % 4)).$((RANDOM % 10))"; }
epochs_are() { [ "$(status_of alder disk epoch)" -ge "$1" ]; }
protected_for_good() {
    local epoch
    state_is alder disk Protected && epoch=$(status_of alder disk epoch) &&
        await 1 epochs_are $((epoch + 3)) && state_is alder disk Protected
}

# Those who die in a round, one after the other; in the last one by chance. ROUNDS=N
# takes the first.
all=(alder birch agent)
victims=(alder 'birch alder agent' "${all[RANDOM % 3]} ${all[RANDOM % 3]}")
[ -z "${ROUNDS:-}" ] || victims=("${victims[@]:0:ROUNDS}")
for round in "${!victims[@]}"; do
    before=$(voids) since=$SECONDS
    for victim in ${victims[round]}; do
        moment
        killed "$victim" || say "no $victim to kill"
        ! bad alder || fail "the guest saw an error"
    done
    word=
    # A copy takes up to two minutes in emulation.
    if ! await 20 protected_for_good; then
        word=', asked for'
        alder understudy protect disk birch --arbiter none || fail "not Protected again"
        await 20 protected_for_good || fail "not Protected again"
    fi
    now=$(voids)
    kept='the replica was kept'
    [ "$now" = "$before" ] || kept='it was copied anew'
    say "killed ${victims[round]}: Protected$word after $((SECONDS - since)) s, $kept"
    ! bad alder || fail "the guest saw an error"
done
# In emulation, while epochs are taken, fio does some 70 of a round's 12288
# requests in a second.
now=$(rounds alder)
await 60 rounds_are alder $((now + 1)) || fail "fio does not go on"

before=$(rounds alder)
moment
"$LAB" kill alder
await 20 state_is birch disk TakenOver || fail "birch did not take over"
birch understudy events | grep -a 'took over'
await 40 rounds_are birch 2 || fail "fio does not go on on birch"
guest_type birch disk 'touch /stop'
await 20 console_says birch 'fio: the end' || fail "fio does not end"
console_says birch 'fio:'
console_says birch 'FAILED\|I/O error' && fail "the guest saw an error"
say "$before rounds of fio on alder, $(rounds birch) that ended on birch"
