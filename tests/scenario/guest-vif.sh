# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091,SC2154
# A network interface is plugged in under protection: its output is held, the
# replica is void by name and gets one too; then the plug is pulled. Or it is
# plugged out again; or a disk is plugged in; or web's own interface is made
# again while the agent stands still.
# moments: takeover removed disk remade
. "$(dirname "$0")/../lib/scenario.sh"
start_from protected
id=$(alder xl domid web)
void_for() { alder 'understudy events' | grep -q "void.*$1"; }
again() { state_is alder web Protected && state_is birch web Protected; }
in_guest() { # COMMAND: typed at its console
    alder "printf '%s\n' '$1' >\$(xenstore-read /local/domain/$id/console/tty)"
}
held() { alder "tc filter show dev vif$id.${1:-1} ingress | grep -q mirred"; }
connected() { # HOST
    on "$1" xl network-list web | awk '$1 == 1 && $5 == 4 { n = 1 }
        END { exit !n }'
}

if [ "$MOMENT" = disk ]; then
    alder 'dd if=/dev/zero of=/tmp/disk bs=1M count=4 status=none
        xl block-attach web file:/tmp/disk,xvdb,w' || fail "block-attach"
    await 10 void_for 'a disk was added' || fail "the disk went unseen"
    named() { status_of alder web reason | grep -q 'disk xvdb .* is not replicated'; }
    await 20 named || fail "not refused by name"
    alder xl block-detach web xvdb || fail "block-detach"
    await 30 again || fail "not protected again"
    exit 0
fi
if [ "$MOMENT" = remade ]; then
    # An agent that hangs is killed after three timeouts.
    alder understudy unprotect web || fail "unprotect"
    alder understudy protect web birch --arbiter none --timeout 30s ||
        fail "protect"
    agent=$(status_of alder web pid)
    mac=$(alder xenstore-read "/libxl/$id/device/vif/0/mac")
    fault_arm alder engine.acked stop # the guest runs there
    await 6 fault_was_hit alder || fail "no epoch"
    alder "xl network-detach web 0 &&
        xl network-attach web mac=$mac,bridge=xenbr0" || fail "not made again"
    held 0 && fail "it was never let go"
    alder kill -CONT "$agent"
    await 5 held 0 || fail "the output of vif$id.0 is not held again"
    [ "$(status_of alder web pid)" = "$agent" ] || fail "it is another agent"
    in_guest "ip link set eth0 up; ip addr add $WEB/24 dev eth0"
    await 30 again || fail "not Protected"
    await 10 guest_serves "$WEB" || fail "web does not answer"
    exit 0
fi
alder xl network-attach web mac=00:16:3e:05:00:21,bridge=xenbr0 ||
    fail "network-attach"
await 5 held || fail "the output of vif$id.1 is not held"
in_guest 'until ip link set eth1 up; do sleep 1; done; ip addr add 10.0.5.21/24 dev eth1'
await 10 void_for 'a network interface was added' || fail "the vif went unseen"
await 30 again || fail "not protected again"
await 5 held || fail "the output of vif$id.1 is not held any more"
await 5 guest_answers 10.0.5.21 || fail "the new interface does not work"
if [ "$MOMENT" = removed ]; then
    alder xl network-detach web 1 || fail "network-detach"
    await 10 void_for 'a network interface was removed' ||
        fail "the removal went unseen"
    await 30 again || fail "not protected again"
fi
"$LAB" kill alder
await 20 state_is birch web TakenOver || fail "birch did not take over"
await 10 guest_serves "$WEB" || fail "web does not answer"
[ "$MOMENT" = removed ] && exit 0
await 10 connected birch || fail "birch has no such interface"
await 5 guest_answers 10.0.5.21 || fail "the new interface is dead on birch"
