# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091,SC2154
# The guest reboots, powers off or crashes: no takeover; the VM's own
# on_reboot, on_poweroff and on_crash hold; after a reboot it is protected
# again.
# moments: reboot poweroff crash
. "$(dirname "$0")/../lib/scenario.sh"
start_from protected
case $MOMENT in
reboot) alder xl reboot web ;;
poweroff) alder xl shutdown web ;;
crash)
    id=$(alder xl domid web)
    alder "echo 'echo c >/proc/sysrq-trigger' \
        >\$(xenstore-read /local/domain/$id/console/tty)"
    ;;
esac || fail "xl $MOMENT"
word=$MOMENT
[ "$MOMENT" = poweroff ] && word=power-off
told() { birch 'understudy events' | grep -q "ends protection: $word"; }
await 20 told || fail "birch was not told"
case $MOMENT in
reboot)
    ended() { ! state_is alder web Protected; }
    await 10 ended || fail "alder's agent goes on as if nothing had been"
    await 40 state_is alder web Protected || fail "not protected again"
    await 6 guest_answers "$WEB" || fail "web does not answer"
    ;;
*)
    gone() { ! alder xl domid web; }
    await 20 gone || fail "the domain is still there"
    ;;
esac
[ "$(event_count birch '"TakenOver"')" = 0 ] || fail "birch took over"
birch xl list | grep -v replica | grep '^web' && fail "birch runs web"
exit 0
