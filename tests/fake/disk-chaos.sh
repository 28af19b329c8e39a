# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091,SC2034
# As chaos.sh, for a VM with a disk: daemons, agents and disk servers of both
# hosts are killed, or stopped for a while, at random. The guest never sees an
# error of its disk; in the end the VM is protected, and a takeover has memory
# and disk of one moment. SEED=N repeats the choice, CHAOS=N takes so many steps.
. "$(dirname "$0")/../lib/disk.sh"
T=4000
disk_start_protected
RANDOM=${SEED:=$$}
say "seed $SEED"
daemons_keep() {
    local host
    for host in alder birch; do
        pids_of $host | grep -qx "$(daemon_pid $host)" || daemon_start $host
    done
}
# All but the keepers, whose deaths are for `understudy-disk resume`, and the
# block script.
victims_of() { # HOST
    local pid servers
    servers=" $(sed -n 's/^server=//p' "$WORK/$1"/run/understudy/disk/vbd-*-51712 2>/dev/null | tr '\n' ' ')"
    for pid in $(pids_of "$1"); do
        case $(cat "/proc/$pid/comm" 2>/dev/null) in
        understudyd) echo "$pid" ;;
        understudy-disk) [[ $servers == *" $pid "* ]] && echo "$pid" ;;
        esac
    done
    return 0
}
step() {
    local host pids pid
    host=$([ $((RANDOM % 2)) = 0 ] && echo alder || echo birch)
    mapfile -t pids < <(victims_of $host)
    [ ${#pids[@]} -gt 0 ] || return 0
    pid=${pids[RANDOM % ${#pids[@]}]}
    case $((RANDOM % 8)) in
    0 | 1 | 2)
        say "$EPOCHREALTIME kill $pid of $host: $(cat "/proc/$pid/comm" 2>/dev/null)"
        kill -9 "$pid" 2>/dev/null
        ;;
    3 | 4)
        say "$EPOCHREALTIME stop $pid of $host: $(cat "/proc/$pid/comm" 2>/dev/null)"
        kill -STOP "$pid" 2>/dev/null
        sleep "0.$((RANDOM % 8))"
        kill -CONT "$pid" 2>/dev/null
        ;;
    *) sleep "0.$((RANDOM % 9))" ;;
    esac
}
for _ in $(seq "${CHAOS:=30}"); do
    step
    daemons_keep
    [ "$(state_count birch web TakenOver)" = 0 ] || fail "birch took over"
done
say "== quiet =="
protected_in_the_end() {
    daemons_keep
    state_is alder web Protected && epochs_go_on alder web
}
await 40 protected_in_the_end || fail "protection did not return"
await 5 disk_goes_on alder web || fail "the guest does not write"
[ "$(state_count birch web TakenOver)" = 0 ] || fail "birch took over"
steps=$(steps_committed alder web) || fail "no epochs"
disk_host_die alder
await 20 state_is birch web TakenOver || fail "not taken over"
disk_taken_over_well birch web "$steps"
