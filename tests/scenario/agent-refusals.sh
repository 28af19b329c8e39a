# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091,SC2016,SC2154
# What can't be protected is refused in one sentence with its cause and the next
# step, with its exit status, and nothing is changed on either host. Of the CPU
# it is agent-cpu.sh that tells, of protocol versions and of a host without Xen
# tests/fake/refusals.sh, of what Xen starts no PVH guest with in this lab
# tests/unit/xl_check_test.c.
# moments: guest type devices peer unreachable backup memory modules already
. "$(dirname "$0")/../lib/scenario.sh"

protect_refused() { # TEXT VM [PEER]
    refused 1 "$1" understudy protect "$2" "${3:-birch}" --arbiter none
}
guest_new() { # NAME LAST-BYTE: and configuration on standard input
    guest_config "$1" "$2"
    alder xl create -q "/srv/$1.cfg" || fail "xl create $1"
}
odd_refused() { # TEXT: a guest with what is on standard input
    guest_new odd 31
    protect_refused "$1" odd
    alder xl destroy odd || fail "xl destroy odd"
}
# What libxl waits for of a device model, and no more: dom0 has no QEMU.
device_model() {
    alder 'cat >/usr/lib/xen-4.17/bin/qemu-dm && chmod +x /usr/lib/xen-4.17/bin/qemu-dm' <<'MODEL'
#!/bin/bash
while [ $# -gt 1 ]; do
    case $1 in -d | -xen-domid) domid=$2 ;; esac
    shift
done
xenstore-write "/local/domain/0/device-model/$domid/state" running
exec sleep 600
MODEL
    with_model='device_model_version = "qemu-xen-traditional"'
}

moment_guest() {
    protect_refused 'no domain "nobody"' nobody
    protect_refused 'no domain "77"' 77
    refused 2 'an arbiter has to be named' understudy protect web birch
    refused 2 'usage: understudy protect' understudy protect web
    refused 2 'paxos is no arbiter' \
        understudy protect web birch --arbiter paxos
    alder xl pause web
    protect_refused 'the VM is paused' web
    alder xl unpause web
    guest_new dead 31 <<'CONFIG'
extra = "console=hvc0 quiet rdinit=/none root=/dev/none panic=1"
on_crash = "preserve"
CONFIG
    crashed() { alder xl list dead | grep -q -- 'c-'; }
    await 6 crashed || fail "dead does not crash"
    watched() { alder 'pgrep -f "[x]l create.*dead"'; }
    unwatched() { ! watched; }
    await 6 unwatched || fail "xl does not leave it alone"
    protect_refused 'the VM is shut down' dead
    alder xl destroy dead || fail "xl destroy dead"
    protect_refused 'no domain "dead"' dead
}

moment_type() {
    odd_refused 'a PV guest' <<<'type = "pv"'
    device_model
    guest_config odd 31 <<CONFIG
type = "hvm"
vif = []
$with_model
CONFIG
    alder "sed -i '/^kernel/d; /^ramdisk/d; /^extra/d' /srv/odd.cfg && xl create -p -q /srv/odd.cfg" ||
        fail "xl create odd"
    protect_refused 'an HVM guest' odd
    alder xl destroy odd || fail "xl destroy odd"
    odd_refused 'populated on demand' <<<'maxmem = 200'
    odd_refused 'must not be migrated (nomigrate=)' <<<'nomigrate = 1'
    odd_refused 'is a driver domain' <<<'driver_domain = 1'
}

# The ways out of a guest beside its own memory and interfaces served by dom0.
moment_devices() {
    local device
    alder 'truncate -s 1M /tmp/disk'
    odd_refused 'disk xvdb (/tmp/disk) is not replicated' <<<'disk = ["/tmp/disk,raw,xvdb,rw"]'
    odd_refused 'may not be one here' <<<'disk = ["script=block-understudy,vdev=xvdb,target=/tmp/disk"]'
    odd_refused 'a USB controller (usbctrl=)' <<<'usbctrl = ["version=2,ports=4"]'
    odd_refused 'names a device model of its own' \
        <<<'device_model_override = "/tmp/model"'
    device_model
    for device in 'vfb=["vnc=1"]' 'channel=["connection=pty,name=x"]' \
        'p9=["tag=x,path=/tmp,security_model=none"]'; do
        odd_refused "(${device%%=*}=)" <<CONFIG
$device
$with_model
CONFIG
    done
    driver_domain vif
    odd_refused 'vif 0 lives in driver domain' \
        <<<'vif = ["mac=00:16:3e:05:00:31,backend=web"]'
    driver_domain vtpm
    odd_refused 'a virtual TPM (vtpm=)' \
        <<<'vtpm = ["backend=web,uuid=ac0a5b9e-cbe2-4c07-b43b-1d69e46fb839"]'
}
# What libxl waits for of a driver domain, which web is taken for: its backends of
# this kind come up and go down as they are told.
driver_domain() { # KIND
    alder "end=\$((SECONDS + 120)) at=/local/domain/\$(xl domid web)/backend/$1
        while [ \$SECONDS -lt \$end ]; do
            for id in \$(xenstore-list \$at 2>/dev/null); do
                case \$(xenstore-read \$at/\$id/0/state 2>/dev/null) in
                1) xenstore-write \$at/\$id/0/state 2 ;;
                5) xenstore-write \$at/\$id/0/state 6 ;;
                6) xenstore-rm \$at/\$id ;;
                esac
            done
            sleep 0.1
        done" </dev/null >/dev/null 2>&1 &
    drivers+=($!)
}

# --- The peer --------------------------------------------------------------------

session_is_up() { alder understudy peer list | grep -q '^birch.* up '; }

moment_peer() {
    protect_refused 'cedar is no peer of this host' web cedar
    protect_refused 'alder is this very host' web alder
    alder understudy peer add cedar --address 10.0.6.2 \
        --pin "$(printf 'ab%.0s' {1..32})" || fail "peer add"
    protect_refused 'presented the key' web cedar
    birch understudy peer remove alder || fail "peer remove"
    session_is_down() { ! session_is_up; }
    await 6 session_is_down || fail "birch still talks to alder"
    protect_refused "birch .* does not know this host's key" web
}

moment_unreachable() {
    local pid gone
    pid=$(birch cat /run/lab/understudyd.pid)
    birch kill -STOP "$pid"
    protect_refused 'no answer from birch\|birch did not answer in time' web
    birch kill -CONT "$pid"
    await 10 session_is_up || fail "birch is not back"
    birch "touch /run/lab/hold-understudyd; kill $pid"
    await 6 birch '! [ -e /proc/'"$pid"' ]' || fail "the daemon does not end"
    protect_refused 'Connection refused' web
    birch rm /run/lab/hold-understudyd
    await 10 session_is_up || fail "birch is not back"
    gone='no answer from birch\|no session to birch\|birch did not answer'
    "$LAB" cut birch replication
    protect_refused "$gone" web
    "$LAB" heal birch replication
    await 10 session_is_up || fail "birch is not back"
    "$LAB" kill birch
    protect_refused "$gone" web
}

# --- The backup ------------------------------------------------------------------

birch_new() { # NAME [CONFIGURATION]
    birch "sed 's/\"web\"/\"$1\"/; s/[.]11/.32/; s/:11\>/:32/g' /srv/guest/web.cfg >/srv/$1.cfg
        echo '${2:-}' >>/srv/$1.cfg; xl create -p -q /srv/$1.cfg" ||
        fail "xl create $1 on birch"
}

moment_backup() {
    birch_new web
    protect_refused 'birch: a domain web is there already, of another VM' web
    birch xl destroy web
    birch_new web--replica
    birch xl unpause web--replica
    says 1 'birch: a domain web--replica is there already, of another VM' \
        understudy protect web birch --arbiter none
    birch xl destroy web--replica || fail "somebody's domain is gone"
    alder 'ip link add xenbr9 type bridge && ip link set xenbr9 up' ||
        fail "no bridge"
    odd_refused 'no bridge xenbr9' \
        <<<'vif = ["mac=00:16:3e:05:00:31,bridge=xenbr9"]'
    alder 'cp /etc/xen/scripts/vif-bridge /etc/xen/scripts/vif-odd'
    odd_refused 'no script vif-odd' \
        <<<'vif = ["mac=00:16:3e:05:00:31,bridge=xenbr0,script=vif-odd"]'
}

moment_memory() {
    local free
    free=$(birch xl info free_memory)
    birch_new large "memory = $((free - 100))"
    protect_refused 'the replica needs .* MiB, this host has .* MiB free' web
}

# A module is away while `refused` is tried, also for who loads it on demand.
without_module() { # HOST MODULE TEXT
    on "$1" "file=\$(modinfo -n $2) && modprobe -r $2 && mv \$file /tmp/$2" ||
        fail "cannot take $2 away"
    protect_refused "$3" web
    on "$1" "mv /tmp/$2 \$(modinfo -n $2) && modprobe $2" ||
        fail "cannot put $2 back"
}
moment_modules() {
    local module
    for module in ifb sch_plug sch_ingress cls_matchall act_mirred; do
        without_module alder $module "modprobe.* $module"
    done
    without_module birch xen-netback 'serves no network interfaces of VMs'
}

# --- Protected already -----------------------------------------------------------

moment_already() {
    local command='understudy protect web birch --arbiter none'
    alder "$command" >"$WORK/protect" 2>&1 &
    await 6 state_is alder web Syncing || fail "protect does not begin"
    says 1 'web is being protected already' "$command"
    wait $! || fail "protect: $(cat "$WORK/protect")"
    says 1 'web is protected already (Protected, backup is birch)' "$command"
    says 1 'nothing to take over' understudy takeover web
    state_is alder web Protected || fail "web is not Protected any more"
    "$LAB" kill alder
    await 20 state_is birch web TakenOver || fail "birch did not take over"
    await 10 guest_serves "$WEB" || fail "web does not serve"
}

drivers=()
trap 'kill "${drivers[@]}" 2>/dev/null; scenario_exit' EXIT
start_from running
"moment_$MOMENT"
guest_answers "$WEB" || fail "web does not answer"
