# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091
# A host dies, the other one takes over; the first one returns, rebooted, and
# the VM is protected the other way: `protect` is all there is to type. Five
# times, to and fro; the generation only grows.
. "$(dirname "$0")/../lib/fake.sh"
start_protected
from=alder to=birch generation=1
for round in 1 2 3 4 5; do
    say "== $round: $from dies, $to takes over =="
    steps=$(steps_committed $from web) || fail "no epochs"
    host_die $from
    taken_over_well $to web "$steps"
    now=$(status_of $to web generation)
    [ "$now" -gt "$generation" ] || fail "generation $now after $generation"
    generation=$now
    guest $from destroy web # its host rebooted
    daemon_start $from
    await 5 state_is $from web Unprotected || fail "$from does not say that it is not there"
    peer_is_up() { us $to peer list --json | jq -en 'input[0].up'; }
    await 10 peer_is_up || fail "the hosts do not find each other"
    protect $to web $from
    [ "$(status_of $to web role)" = primary ] || fail "$to is not the primary"
    [ "$(status_of $from web role)" = backup ] || fail "$from is not the backup"
    [ "$(status_of $to web generation)" -ge "$generation" ] || fail "the generation fell"
    await 5 guest_goes_on $to web || fail "the guest does not go on"
    : >"$WORK/$to.log" # taken_over_well() counts
    swap=$from from=$to to=$swap
done
us $from unprotect web || fail "unprotect"
await 5 host_is_clean $from || fail "something is left on $from"
await 5 host_is_clean $to || fail "something is left on $to"
