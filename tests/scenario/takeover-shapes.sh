# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091,SC2016,SC2154
# The plug is pulled for a guest with two vCPUs, with one of three taken offline,
# with two network interfaces: it goes on over the same connection, with all that
# it had, and is taken over exactly once.
# test-all only
# moments: vcpus offline vifs
. "$(dirname "$0")/../lib/scenario.sh"

web_anew() { # a configuration on standard input
    alder xl destroy web </dev/null || fail "xl destroy web"
    alder 'cat /srv/guest/web.cfg - >/srv/web.cfg && xl create -q /srv/web.cfg' ||
        fail "xl create web"
    await 20 guest_serves "$WEB" || fail "web does not answer"
}
# The time that a vCPU has run, in tenths of a second.
vcpu_time() { # HOST VCPU
    on "$1" xl vcpu-list web | awk -v n="$2" '$3 == n { print int($6 * 10) }'
}
vcpu_is_offline() { # HOST VCPU
    on "$1" xl vcpu-list web | awk -v n="$2" '$3 == n && $5 == "--p" { found = 1 }
        END { exit !found }'
}
vcpu_runs() { # HOST VCPU TENTHS: has run for longer by now
    [ "$(vcpu_time "$1" "$2")" -gt "$3" ]
}
# The shell on the console begins later than the service, and throws away what was
# typed before: type until it shows.
typed() { # LINE CONDITION...
    guest_type alder web "$1" && sleep 1 && "${@:2}"
}
# A second client, over the second interface.
as_second() {
    local WORK=$WORK/second CLIENT_PID=$second
    "$@" || return
    second=$CLIENT_PID
}
shapes_exit() {
    "$LAB" run outside ip addr del 10.0.8.100/24 dev public
    [ -z "$second" ] || kill "$second" 2>/dev/null
    scenario_exit
}

# A vCPU does what only it may do.
vcpu_works() { # HOST VCPU
    local before
    before=$(vcpu_time "$1" "$2")
    guest_type "$1" web "taskset $((1 << $2)) timeout 4 sh -c \"while :; do :; done\" &"
    await 6 vcpu_runs "$1" "$2" $((before + 5)) ||
        fail "vCPU $2 does not run on $1"
}

second='' shared=()
start_from running
case $MOMENT in
vcpus)
    web_anew <<<'vcpus = 2'
    [ -n "$(vcpu_time alder 1)" ] || fail "web has no second vCPU"
    ;;
offline)
    web_anew <<<'vcpus = 3'
    await 6 typed 'echo 0 >/sys/devices/system/cpu/cpu2/online' \
        vcpu_is_offline alder 2 ||
        fail "vCPU 2 is not offline: $(alder xl vcpu-list web)"
    ;;
vifs)
    web_anew <<<'vif = ["mac=00:16:3e:05:00:11,bridge=xenbr0", "mac=00:16:3e:05:00:21,bridge=xenbr0"]'
    # A network of its own, and no interface answers for the other's address.
    trap shapes_exit EXIT
    "$LAB" run outside ip addr replace 10.0.8.100/24 dev public
    mkdir "$WORK/second"
    await 6 typed 'echo 1 >/proc/sys/net/ipv4/conf/all/arp_ignore; ip link set eth1 up; ip addr add 10.0.8.21/24 dev eth1' \
        guest_answers 10.0.8.21 || fail "eth1 does not answer"
    shared=(--shared)
    as_second client_start 10.0.8.21 --shared
    ;;
esac
client_start "$WEB" "${shared[@]}"
protect alder web birch
"$LAB" kill alder
await 20 state_is birch web TakenOver || fail "birch did not take over"
client_goes_on 60 20 || fail "the client did not go on"
case $MOMENT in
vifs)
    as_second client_goes_on 60 20 || fail "the client on eth1 did not go on"
    as_second client_end || fail "an answer or the connection on eth1 was lost"
    ;;
*)
    vcpu_works birch 0
    vcpu_works birch 1
    ;;
esac
if [ "$MOMENT" = offline ]; then
    vcpu_is_offline birch 2 || fail "vCPU 2 is not offline on birch"
    guest_type birch web 'echo 1 >/sys/devices/system/cpu/cpu2/online'
    vcpu_works birch 2
fi
[ "$(event_count birch '"TakenOver"')" = 1 ] || fail "not exactly one takeover"
client_end || fail "an answer or the connection was lost"
