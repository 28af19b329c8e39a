# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091
# `takeover --from-disk` with a witness: the claim of a takeover. Both hosts die,
# birch comes back: granted. alder has gone on alone before it died, or was told
# that there is no replica: it may run, so a person has to vouch for it (--force).
# Who vouches for an alder that lives, cut off: it stands still as soon as it asks
# the witness. The witness is lost: nothing is started.
# moments: both alone told cut lost dies
. "$(dirname "$0")/../lib/arbiter.sh"
. "$(dirname "$0")/../lib/disk.sh"
: "${MOMENT:=both}"
disk_images_make
three_make
disk_guest_make alder web
protect_with_arbiter alder web birch
steps_committed alder web >/dev/null || fail "no epochs"
from_disk() { us birch takeover web --from-disk "$@" >"$WORK/out" 2>&1; }
refused() { # TEXT HINT
    from_disk && fail "started"
    grep -q -- "$1" "$WORK/out" && grep -q -- "$2" "$WORK/out" || fail "it says $(cat "$WORK/out")"
    sed 's/^/    /' "$WORK/out"
}
birch_dies() {
    disk_host_die birch
    guest birch destroy web--replica
    rm -rf "$WORK/birch/run/understudy"/disk "$WORK/birch/nbd"/*
}
silent() { grep -q 'event=silent' "$WORK/birch.log"; }
birch_is_back() {
    daemon_start birch
    await 10 arbiter_is_up birch || fail "birch can't ask the witness"
    await 15 silent || fail "alder is heard"
}
runs_from_disk() { # GENERATION
    await 10 state_is birch web TakenOver || fail "birch is $(us birch status web)"
    await 5 record_is "$1" birch true || fail "record: $(witness list)"
    "$GUEST" image "$WORK/birch/web.img" >/dev/null || fail "the image is of no epoch"
    disk_guest_run birch web
    await 5 disk_goes_on birch web || fail "it does not write"
}
case $MOMENT in
both | lost | dies) # alder does not have the time to win anything
    host_signal alder STOP
    birch_dies
    disk_host_die alder
    [ "$MOMENT" != lost ] || witness_kill
    case $MOMENT in
    lost)
        daemon_start birch
        await 15 silent || fail "alder is heard"
        refused "can't be taken over now" ''
        witness_start
        await 10 arbiter_is_up birch || fail "birch can't ask the witness"
        await 10 from_disk || fail "not started: $(cat "$WORK/out")"
        ;;
    dies) # birch's agent, with its claim out; its successor hands back what it won
        birch_is_back
        fault_arm birch lease.sent kill
        from_disk && fail "its agent is dead"
        await 10 record_is 3 alder || fail "record: $(witness list)"
        settled() { from_disk || grep -q 'may be running web: it has' "$WORK/out"; }
        await 10 settled || fail "it says $(cat "$WORK/out")"
        refused 'it has generation 3,' '--from-disk --force'
        from_disk --force || fail "not started: $(cat "$WORK/out")"
        runs_from_disk 4
        exit
        ;;
    *) birch_is_back && { from_disk || fail "not started: $(cat "$WORK/out")"; } ;;
    esac
    runs_from_disk 2
    ;;
alone)
    birch_dies
    await 10 runs_free alder || fail "alder does not go on"
    await 5 disk_goes_on alder web || fail "the guest does not go on"
    disk_host_die alder
    birch_is_back
    refused 'alder may be running web: it has generation 2,' 'from-disk --force$'
    record_is 2 alder || fail "record: $(witness list)"
    from_disk --force || fail "not started: $(cat "$WORK/out")"
    runs_from_disk 3
    ;;
told) # that there is no replica: its output flows before there is a new one
    sed -i '2i sleep 2' "$WORK/birch/hv/devices" # the shell takes its time
    kill -KILL "$(agent_pid birch web)"
    await 10 lease_is alder web free || fail "alder holds what it has"
    disk_host_die alder
    await 15 silent || fail "alder is heard"
    settled() { from_disk || grep -q 'may be running web: it has' "$WORK/out"; }
    await 10 settled || fail "it says $(cat "$WORK/out")"
    refused 'alder may be running web: it has generation 1,' '--from-disk --force$'
    from_disk --force || fail "not started: $(cat "$WORK/out")"
    runs_from_disk 2
    [ "$(domains birch)" = 'web running' ] || fail "birch has $(domains birch)"
    ;;
cut) # from birch, not from the witness
    birch_dies
    await 10 runs_free alder || fail "alder does not go on"
    cable_cut link
    birch_is_back
    refused 'alder may be running web: it has generation 2,' 'from-disk --force$'
    from_disk --force || fail "not started: $(cat "$WORK/out")"
    runs_from_disk 3
    await 15 lease_is alder web fenced || fail "alder is $(us alder status web)"
    guest_stands alder web || fail "alder's copy runs"
    cable_heal link
    holds 3 guest_stands alder web || fail "alder's copy runs again"
    await 5 disk_goes_on birch web || fail "birch's does not"
    ;;
esac
