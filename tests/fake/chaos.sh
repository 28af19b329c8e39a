# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091,SC2034
# Daemons and agents of both hosts are killed, or stopped for a while, at
# random; unprotect and protect come in between. No takeover as long as alder's
# are never silent for the timeout; in the end the VM is protected again, and
# a takeover works. SEED=N repeats the choice, CHAOS=N takes so many steps.
. "$(dirname "$0")/../lib/fake.sh"
T=4000
start_protected
RANDOM=${SEED:=$$}
say "seed $SEED"
one_of() { # PID...
    shift $((RANDOM % $#))
    echo "$1"
}
# What is being killed may still be there: look again and again.
daemons_keep() {
    local host
    for host in alder birch; do
        pids_of $host | grep -qx "$(daemon_pid $host)" || daemon_start $host
    done
}
step() {
    local host pids pid
    host=$([ $((RANDOM % 2)) = 0 ] && echo alder || echo birch)
    mapfile -t pids < <(pids_of $host)
    [ ${#pids[@]} -gt 0 ] || pids=(0)
    pid=$(one_of "${pids[@]}")
    case $((RANDOM % 8)) in
    0 | 1 | 2)
        say "$EPOCHREALTIME kill $pid of $host: ${pids[*]}"
        [ "$pid" = 0 ] || kill -9 "$pid" 2>/dev/null
        ;;
    3 | 4)
        say "$EPOCHREALTIME stop $pid of $host: ${pids[*]}"
        [ "$pid" = 0 ] || kill -STOP "$pid" 2>/dev/null
        sleep "0.$((RANDOM % 8))"
        [ "$pid" = 0 ] || kill -CONT "$pid" 2>/dev/null
        ;;
    5)
        say "$EPOCHREALTIME unprotect"
        us alder unprotect web 2>&1 | tail -n 1
        ;;
    *) sleep "0.$((RANDOM % 5))" ;;
    esac
}
for _ in $(seq "${CHAOS:=40}"); do
    step
    daemons_keep
    vm_is_unknown alder web &&
        (us alder protect web birch --arbiter none >/dev/null 2>&1 &)
    [ "$(state_count birch web TakenOver)" = 0 ] || fail "birch took over"
done
say "== quiet =="
protected_in_the_end() {
    daemons_keep
    # A dead agent's state is shown until its death is noticed.
    { state_is alder web Protected && epochs_go_on alder web; } ||
        (us alder protect web birch --arbiter none >/dev/null 2>&1 && false)
}
await 30 protected_in_the_end || fail "protection did not return"
await 5 guest_goes_on alder web || fail "the guest does not go on"
guest alder check web || fail "the guest is broken"
[ "$(state_count birch web TakenOver)" = 0 ] || fail "birch took over"
steps=$(steps_committed alder web) || fail "no epochs"
host_die alder
taken_over_well birch web "$steps"
