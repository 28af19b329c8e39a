# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091,SC2016,SC2154
# The module is unloaded under protection and loaded again; it is not there at all; it
# refuses to load, as the kernel lacks a symbol; it takes requests and does not suspend;
# somebody pauses the guest before it can answer; our agent dies between the request and
# the resume. The guest goes on without a longer stop than the deadline, birch never takes
# over, and where no epoch can be taken, events and the state say why.
# test-all only
# moments: unload without refused hang paused agent-asking agent-suspended
. "$(dirname "$0")/../lib/scenario.sh"
. "$(dirname "$0")/../lib/fast-suspend.sh"
start_from protected
guest_listen alder web
guest_load alder web clock

# On the guest's vif, where nothing is held yet: how long it answers nothing.
answers_begin() {
    alder 'tcpdump -n -l -tt --immediate-mode -i "vif$(xl domid web).0" udp src port 7003 \
        </dev/null >/tmp/answers 2>/dev/null & echo $! >/tmp/answers.pid'
    clocks_start "$WEB"
    await 3 alder 'test -s /tmp/answers' || fail "nothing is seen on the vif"
}
answers_gap() { # the longest, in ms
    alder 'kill "$(cat /tmp/answers.pid)"; awk "last && \$1 - last > gap { gap = \$1 - last }
        { last = \$1 } END { printf \"%.0f\n\", gap * 1000 }" /tmp/answers'
}
more_epochs() { # N
    local n
    n=$(status_of alder web epochs)
    await 12 epochs_are alder web $((n + $1)) || fail "no more epochs"
}
stock_is_used() {
    await 5 suspends_by alder web xenstore || fail "web is not suspended through xenstore"
}
skips_are() { [ "$(event_count alder '"skipped"')" -ge "$1" ]; }
reason_is() { state_is alder web Degraded && alder understudy status web | grep -q "$1"; }
is_protected() { state_is alder web Protected; }
again() { # N: times that it became Protected
    is_protected && [ "$(alder understudy events | grep -c ' Protected (was')" -ge "$1" ]
}

client_start "$WEB"
answers_begin
case $MOMENT in
without)
    stock_is_used
    more_epochs 10
    alder understudy status web | grep 'Suspend: *stock (xenstore), [0-9]* % of the pause' ||
        fail "status does not say what it costs"
    ;;
refused)
    guest_ask alder web 'sed s/curr_clocksource/curr_clocksourcE/ /fast_suspend.ko >/other.ko; insmod /other.ko'
    guest_said alder web 'fast_suspend: this kernel has no symbol curr_clocksourcE' ||
        fail "the module does not say which symbol it lacks"
    stock_is_used
    more_epochs 10
    ;;
unload)
    fast_suspend_load alder web
    fast_suspend_is_used alder web
    more_epochs 20
    guest_ask alder web 'grep . /sys/module/fast_suspend/stats/*worst*; rmmod fast_suspend; lsmod'
    stock_is_used
    more_epochs 10
    fast_suspend_load alder web
    fast_suspend_is_used alder web
    more_epochs 20
    is_protected || fail "not Protected any more"
    [ "$(event_count alder '"Degraded"')" = 0 ] || fail "protection was interrupted"
    ;;
hang)
    fast_suspend_load alder web
    fast_suspend_is_used alder web
    guest_ask alder web 'echo 1 >/sys/module/fast_suspend/parameters/hang'
    await 6 skips_are 3 || fail "no skipped epochs"
    is_protected || fail "not Protected any more after a few skipped epochs"
    await 10 reason_is 'did not suspend within' || fail "the state does not say it"
    client_goes_on 20 6 || fail "the guest's output does not go out"
    guest_ask alder web 'echo 0 >/sys/module/fast_suspend/parameters/hang'
    await 40 is_protected || fail "protection did not return"
    fast_suspend_is_used alder web
    ;;
paused)
    fast_suspend_load alder web
    fast_suspend_is_used alder web
    agent_stops suspend.asking
    alder xl pause web
    agent_goes_on
    await 10 reason_is 'did not suspend within' || fail "the state does not say it"
    sleep 6 # on top of T: longer than a guest that runs is waited for
    alder xl unpause web
    await 40 is_protected || fail "protection did not return"
    fast_suspend_is_used alder web
    ;;
agent-*)
    fast_suspend_load alder web
    fast_suspend_is_used alder web
    point=${MOMENT#agent-}
    [ "$point" = asking ] && point=suspend.asking || point=capture.suspended
    fault_arm alder "$point" kill 10
    await 6 fault_was_hit alder || fail "$point was not reached"
    await 60 again 2 || fail "protection did not return"
    fast_suspend_is_used alder web
    more_epochs 20
    ;;
esac
client_goes_on 60 10 || fail "the guest does not go on"
clocks_end
gap=$(answers_gap)
say "the longest that the guest was silent: $gap ms"
[ "$MOMENT" = without ] || [ "$MOMENT" = paused ] || [ "$gap" -lt 1500 ] || fail "that is too long"
guest_is_well alder web
[ "$(event_count birch '"TakenOver"')" = 0 ] || fail "birch took over"
client_end || fail "an answer or the connection was lost"
alder understudy unprotect web || fail "unprotect"
await 6 alder_is_clean || fail "something was left behind"
alder 'xl save -c web /srv/web.save' || fail "xl save does not work afterwards"
