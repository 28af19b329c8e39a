# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091
# The watchdog: armed while a VM is Protected, never fired by a stop, a restart,
# a kill, a start that fails, at whatever moment; fired when the daemon hangs.
. "$(dirname "$0")/../lib/fake.sh"
dog() { "$GUEST" watchdog "$WORK/$1/hv"; }
dog_is_off() { [ "$(dog "$1")" = off ]; }
# A timer of ten years is nobody's.
dog_is_armed() { # HOST
    local left
    for left in $(dog "$1"); do
        [ "$left" = fired ] || [ "$left" = off ] || [ "$left" -gt 5000 ] || return 0
    done
    return 1
}
never_fired() { [ "$(dog alder)" != fired ] && [ "$(dog birch)" != fired ]; }
conf() { echo "$WORK/$1/etc/understudy/understudyd.conf"; }
daemon_end() { # HOST SIGNAL
    local pid
    pid=$(daemon_pid "$1")
    kill "-$2" "$pid"
    await 5 gone "$pid" || fail "the daemon of $1 does not end"
}
gone() { ! kill -0 "$1" 2>/dev/null; }

hosts_make
for host in alder birch; do
    daemon_end $host TERM
    echo 'watchdog_s=5' >>"$(conf $host)"
    daemon_start $host
done
await 10 peer_is_up alder birch || fail "no peer"
guest_make alder web
dog_is_off alder || fail "armed for nothing: $(dog alder)"
protect alder web birch
await 5 dog_is_armed alder || fail "not armed: $(dog alder)"
await 5 event_count alder 'event=watchdog armed' || fail "not told"
dog_is_off birch || fail "armed on the backup"

say "== it is set again, and again by the next daemon =="
holds 6 never_fired || fail "fired while all is well"
daemon_end alder KILL
sleep 2
daemon_start alder
holds 6 never_fired || fail "fired after a kill"
dog_is_armed alder || fail "not armed any more: $(dog alder)"

say "== a stop takes it back =="
daemon_end alder TERM
dog_is_off alder || fail "armed after SIGTERM: $(dog alder)"
[ ! -e "$WORK/alder/run/understudy/watchdog" ] || fail "the note is left"
daemon_start alder
await 5 dog_is_armed alder || fail "not armed after a restart"

say "== a start that fails, and one that is switched off =="
daemon_end alder KILL
cp "$(conf alder)" "$WORK/conf"
echo 'watchdog_s=1' >>"$(conf alder)"
on alder "$BUILD/understudyd" -f 2>&1 | grep -q 'watchdog_s=1 is not' || fail "1 s is fine"
dog_is_off alder || fail "a start that failed left it armed: $(dog alder)"
cp "$WORK/conf" "$(conf alder)"
daemon_start alder
await 5 dog_is_armed alder || fail "not armed"
daemon_end alder KILL
sed -i 's/watchdog_s=5/watchdog_s=0/' "$(conf alder)"
daemon_start alder
await 2 dog_is_off alder || fail "armed, and off in the configuration"
cp "$WORK/conf" "$(conf alder)"

say "== a second daemon does not touch the timer of the first =="
daemon_end alder TERM
daemon_start alder
await 5 dog_is_armed alder || fail "not armed"
on alder "$BUILD/understudyd" -f 2>&1 | grep -q 'runs already' || fail "two daemons"
dog_is_armed alder || fail "disarmed by a second daemon"

say "== killed while it arms and disarms =="
restart_after() { # POINT
    daemon_start alder
    await 5 dog_is_armed alder || fail "not armed after a kill at $1: $(dog alder)"
    holds 6 never_fired || fail "fired after a kill at $1"
}
fault_arm alder watchdog.disarmed kill
daemon_end alder TERM
[ -e "$WORK/alder/run/understudy/watchdog" ] || fail "not killed where it should be"
restart_after disarmed
[ "$(dog alder | wc -w)" = 1 ] || fail "two timers: $(dog alder)"
for point in noted made; do
    # It is armed by the first look of a daemon that finds web Protected.
    daemon_end alder TERM
    fault_arm alder watchdog.$point kill
    on alder "$BUILD/understudyd" -f >>"$WORK/alder.log" 2>&1 </dev/null
    dog_is_off alder && fail "killed before it was made"
    restart_after $point
done
[ "$(dog alder | wc -w)" = 2 ] || fail "the timer that nobody knows: $(dog alder)"

say "== no timer is left =="
daemon_end alder TERM
"$GUEST" watchdog-take "$WORK/alder/hv" >/dev/null || fail "no timer to take"
daemon_start alder
await 5 event_count alder 'watchdog is not armed: both watchdog timers are in use' ||
    fail "not told: $(us alder events)"
daemon_end alder TERM
rm "$WORK/alder/hv/watchdog"
daemon_start alder
await 5 dog_is_armed alder || fail "not armed"

say "== without a replica it is disarmed =="
host_signal birch KILL
await 10 state_is alder web Degraded || fail "not Degraded"
await 3 dog_is_off alder || fail "armed, and nobody would take over"
daemon_start birch
await 30 state_is alder web Protected || fail "not Protected again"
await 5 dog_is_armed alder || fail "not armed again"

say "== a daemon that hangs =="
never_fired || fail "fired before"
kill -STOP "$(daemon_pid alder)"
fired() { [ "$(dog alder)" = fired ]; }
holds 3 never_fired || fail "fired too early"
await 4 fired || fail "a daemon that hangs does not fire it: $(dog alder)"
