# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091
# auto_reprotect: alder's host dies, birch takes over; alder comes back, rebooted,
# and becomes the backup by itself; nobody types a thing. A copy that is still
# there is in the way, and is named, until a person has destroyed it.
# moments: rebooted copy-left none
. "$(dirname "$0")/../lib/arbiter.sh"
: "${MOMENT:=rebooted}"
three_make
echo 'auto_reprotect=1' >>"$WORK/birch/etc/understudy/understudyd.conf"
kill "$(daemon_pid birch)"
daemon_start birch
await 5 arbiter_is_up birch || fail "birch can't ask the witness"
await 10 peer_is_up alder birch || fail "the hosts do not find each other"
guest_make alder web
if [ "$MOMENT" = none ]; then
    protect alder web birch
else
    protect_with_arbiter alder web birch
    watch_start
fi
steps=$(steps_committed alder web) || fail "no epochs"
host_die alder
taken_over_well birch web "$steps"
[ "$MOMENT" = copy-left ] || guest alder destroy web
daemon_start alder
if [ "$MOMENT" = copy-left ]; then
    await 30 event_count birch 'event=not-protected .*the old copy of web is still there' || fail "birch does not say what is in the way"
    state_is birch web TakenOver || fail "birch is $(us birch status web)"
    await 5 guest_goes_on birch web || fail "birch's does not go on"
    [ "$(event_count birch 'event=reprotect')" -le 2 ] || fail "it tries too often"
    guest alder destroy web
fi
await 40 state_is birch web Protected || fail "not protected again: $(us birch status web)"
[ "$(status_of birch web role)" = primary ] || fail "birch is no primary"
[ "$(status_of alder web role)" = backup ] || fail "alder is no backup"
await 5 guest_goes_on birch web || fail "the guest does not go on"
: >"$WORK/alder.log"
steps=$(steps_committed birch web) || fail "no epochs"
host_die birch
taken_over_well alder web "$steps"
never_twice
