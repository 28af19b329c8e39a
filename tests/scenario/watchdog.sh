# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091
# Xen's watchdog, armed by watchdog_s: a daemon that is killed and comes back, or
# is stopped, resets nothing; one that hangs does, and the VM is taken over.
# test-all only
. "$(dirname "$0")/../lib/scenario.sh"
seconds=$((2 * SCALE))
# As Xen says: "watchdog 0 expires in 18 seconds", one line a timer.
timers() {
    # shellcheck disable=SC2016 # for the host's shell
    alder 'xl dmesg -c >/dev/null; xl debug-keys q; xl dmesg |
        sed -n "/General information for domain 0:/,/General information for domain [1-9]/p" |
        grep "watchdog [0-9]* expires"'
}
is_armed() { timers | grep -q .; }
is_off() { ! timers | grep -q .; }
daemon_is() { # on|off
    alder pgrep -f '[u]nderstudyd$' >/dev/null
    [ $? = "$([ "$1" = on ] && echo 0 || echo 1)" ]
}
alder_is_up() { host_runs alder && alder true; }
stays_up() {
    local end=$(($(date +%s) + seconds + 5))
    while [ "$(date +%s)" -lt $end ]; do
        alder_is_up || fail "alder was reset: $1"
        sleep 1
    done
}

start_from protected
client_start "$WEB"
is_off || fail "armed by nobody: $(timers)"
alder "echo watchdog_s=$seconds >>/etc/understudy/understudyd.conf
    kill -TERM \$(cat /run/understudy/understudyd.lock)"
await 3 is_armed || fail "not armed: $(timers)"
say "Xen: $(timers), noted: $(alder cat /run/understudy/watchdog)"
stays_up 'all is well'

say "== killed: the next one goes on with it =="
alder "kill -KILL \$(cat /run/understudy/understudyd.lock)"
stays_up 'the daemon was killed and started again'
[ "$(timers | wc -l)" = 1 ] || fail "not one timer: $(timers)"

say "== stopped: it is given back =="
alder "touch /run/lab/hold-understudyd; kill -TERM \$(cat /run/understudy/understudyd.lock)"
await 1 is_off || fail "armed after a stop: $(timers)"
stays_up 'the daemon was stopped'
alder rm /run/lab/hold-understudyd
await 3 is_armed || fail "not armed again: $(timers)"
await 6 state_is alder web Protected || fail "web is not Protected"
client_goes_on 20 10 || fail "the guest does not go on"

say "== it hangs: Xen resets the host =="
start=$(date +%s)
alder "kill -STOP \$(cat /run/understudy/understudyd.lock)"
alder_is_off() { ! host_runs alder; }
await 4 alder_is_off || fail "alder runs on"
say "reset after $(($(date +%s) - start)) s"
await 20 state_is birch web TakenOver || fail "birch did not take over"
client_goes_on 60 20 || fail "the client did not go on"
client_end || fail "an answer or the connection was lost"
