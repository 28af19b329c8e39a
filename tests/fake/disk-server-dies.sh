# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091,SC2034
# The backup's disk servers are killed again and again under a protected VM: the
# guest sees no error, and the replica goes on with the successor, whether an epoch
# was decided there, prepared, or being applied. Then alder dies, before any further
# epoch if that is the moment, and birch has memory and disk of one moment. In the
# first copy there is nothing to go on with: it begins anew. Of the primary's
# server: disk-server-again.sh.
# moments: often both duty.prepared journal.applying journal.written replica.before_ack replica.after_ack at-once verify copy
. "$(dirname "$0")/../lib/disk.sh"
: "${MOMENT:=often}"
T=4000
server_of() { # DEVICE
    sed -n 's/^server=//p' "$(ls -t "$WORK/birch/run/understudy/disk"/vbd-*-"$1" | head -1)" | tail -n 1
}
kill_servers() {
    killed=$(server_of 51712)
    kill -KILL "$killed" || fail "no disk server $killed"
    [ "$MOMENT" != both ] || kill -KILL "$(server_of 51728)" || fail "no other disk server"
}
if [ "$MOMENT" = copy ]; then
    disk_images_make
    hosts_make
    echo 'disk_copy_mb_s=4' >>"$WORK/alder/etc/understudy/understudyd.conf"
    disk_guest_make alder web
    us alder protect web birch --arbiter none >"$WORK/out" 2>&1 &
    protecting=$!
    copies() { us birch disk list web | grep -q 'xvda .* backup  syncing'; }
    await 20 copies || fail "no copy"
    kill_servers
    wait $protecting && fail "protected: $(cat "$WORK/out")"
    cat "$WORK/out"
    await 5 disk_goes_on alder web || fail "the guest does not go on"
    await 10 vm_is_unknown alder web || fail "alder still knows it"
    await 10 host_is_clean birch || fail "something is left on birch"
    exit
fi
disk_start_protected
steps_committed alder web >/dev/null || fail "no epochs"
hit() { test -e "$WORK/birch/run/understudy/faults.hit"; }
went_on() { # TIMES
    [ "$(grep -c 'the successor of its server goes on' "$WORK/birch.log")" -ge "$1" ]
}
for round in 1 2 3 4 5 6; do
    case $MOMENT in
    duty.* | journal.*) # a server of one of the two disks
        fault_arm birch "$MOMENT" kill $((RANDOM % 4))
        await 10 hit || fail "$MOMENT is not reached"
        rm "$WORK/birch/run/understudy/faults.hit"
        ;;
    replica.*)
        fault_arm birch "$MOMENT" hold
        await 10 hit || fail "$MOMENT is not reached"
        kill_servers
        rm "$WORK/birch/run/understudy/faults.hit"
        ;;
    *)
        kill_some_time kill_servers
        ;;
    esac
    [ "$MOMENT" = at-once ] && [ $round = 3 ] && break
    await 10 went_on $round || fail "nobody goes on after $round"
    replica_goes_on $round
done
if [ "$MOMENT" != at-once ]; then
    disks_are_equal birch
    steps=$(steps_committed alder web) || fail "no epochs"
fi
disk_host_die alder
disk_taken_over_well birch web "${steps:-0}"
image_is_plain birch || fail "the image is still a replica's"
