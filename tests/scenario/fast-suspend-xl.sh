# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091,SC2016,SC2154
# xl on a guest with the module, of which xl knows nothing but the channel: `xl
# save` and `xl restore`, twice; `xl migrate`; `xl remus -F -n -d`, ended by the loss
# of the receiver. It asks by event channel, and all goes on as ever: the guest is
# well, the service and its connection live, the channel is offered again.
# test-all only
# moments: pvh-save pvh-migrate pvh-remus hvm-save hvm-migrate hvm-remus
. "$(dirname "$0")/../lib/scenario.sh"
. "$(dirname "$0")/../lib/fast-suspend.sh"
hvm_start() {
    alder 'xl destroy web; sed "s/^type.*/type = \"hvm\"/; s/vmlinux/vmlinuz/
        s/bridge=xenbr0/&,type=vif/" /srv/guest/web.cfg >/tmp/hvm.cfg && printf "vnc = 0\nvga = \"none\"\n" >>/tmp/hvm.cfg &&
        xl create -q /tmp/hvm.cfg' || fail "xl create of an HVM guest"
    await 24 guest_serves "$WEB" || fail "the HVM guest does not answer"
}
offers_channel() { # HOST
    on "$1" '[ -n "$(xenstore-read "/local/domain/$(xl domid web)/device/suspend/event-channel")" ]'
}
goes_on() { # HOST WHAT
    await 12 guest_serves "$WEB" || fail "after $2 web does not answer"
    client_goes_on 20 12 || fail "after $2 the client does not go on"
    await 3 offers_channel "$1" || fail "after $2 the guest offers no channel"
}
restored_are() { # HOST N
    [ "$(fast_suspend_count "$1" web restored)" = "$2" ] ||
        fail "the module was not restored $2 times"
}
asked_by_channel() { # HOST LOG
    on "$1" "grep -q 'suspend request via event channel' $2" || {
        on "$1" "grep -i suspend $2 | head"
        fail "xl did not use the event channel"
    }
}
receiver_start() { # [OPTION]
    birch "setsid socat -b 262144 TCP-LISTEN:9000,reuseaddr \
        EXEC:'xl migrate-receive${1:+ $1}' </dev/null >/tmp/receive.log 2>&1 &
        echo \$! >/tmp/receive.pid"
}
peer="socat -b 262144 - TCP:birch:9000,retry=50,interval=0.2"

start_from running
[ "${MOMENT%-*}" = pvh ] || hvm_start
guest_listen alder web
fast_suspend_load alder web
guest_load alder web
client_start "$WEB"
case ${MOMENT#*-} in
save)
    for n in 1 2; do
        alder 'xl -vvv save web /srv/web.save >/tmp/save.log 2>&1' || fail "xl save"
        asked_by_channel alder /tmp/save.log
        alder xl restore /srv/web.save || fail "xl restore"
        goes_on alder "restore $n"
        restored_are alder $n
    done
    guest_is_well alder web
    ;;
migrate)
    receiver_start
    alder "xl -vvv migrate -s '' web '$peer #' >/tmp/save.log 2>&1" || {
        alder tail -n 20 /tmp/save.log
        birch tail -n 20 /tmp/receive.log
        fail "xl migrate"
    }
    asked_by_channel alder /tmp/save.log
    goes_on birch "the migration"
    restored_are birch 1
    guest_is_well birch web
    ;;
remus)
    receiver_start -r
    alder "xl -vvv remus -F -n -d -i 200 -s '' web '$peer' >/tmp/save.log 2>&1
        echo status \$? >>/tmp/save.log" &
    checkpoints() { [ "$(alder 'grep -c "Domain now suspended" /tmp/save.log')" -ge "$1" ]; }
    await 30 checkpoints 25 || fail "xl remus does not go on"
    asked_by_channel alder /tmp/save.log
    client_goes_on 20 6 || fail "the client does not go on under xl remus"
    birch 'kill -KILL -- -"$(cat /tmp/receive.pid)"'
    sender_ended() { alder grep -q '^status' /tmp/save.log; }
    await 12 sender_ended || fail "xl remus does not see that the receiver is gone"
    goes_on alder "xl remus"
    say "the guest counts $(fast_suspend_count alder web count) suspends"
    restored_are alder 0
    guest_is_well alder web
    ;;
esac
client_end || fail "an answer or the connection was lost"
