# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091
# alder's host loses its power, comes back, and its init starts the VM as it
# always does. Taken over meanwhile: that copy is paused at once, and fenced. Not
# taken over, as birch was lost too: it is paused until the witness has been
# asked, and runs. With the witness lost as well: paused until that is back. And
# it may have been started before our daemon was, or its agent dies just after it
# has paused it, on a host that was not booted.
# moments: taken-over nobody-left witness-lost started-before agent-dies
. "$(dirname "$0")/../lib/arbiter.sh"
: "${MOMENT:=taken-over}"
three_protected
steps=$(steps_committed alder web) || fail "no epochs"
case $MOMENT in nobody-left | witness-lost)
    host_signal alder STOP # or it asks the witness before it dies
    host_die birch
    ;;
esac
# What the host forgets with its power.
host_die alder
guest alder destroy web
[ "$MOMENT" = agent-dies ] || rm -rf "$WORK/alder/run"
case $MOMENT in taken-over | started-before | agent-dies) taken_over_well birch web "$steps" ;; esac
[ "$MOMENT" != witness-lost ] || witness_kill
web_start() {
    say "== its init starts web =="
    guest alder create web >/dev/null || fail "create"
    guest_run alder web
}
[ "$MOMENT" != started-before ] || web_start
[ "$MOMENT" != agent-dies ] || fault_arm alder primary.held_back kill
daemon_start alder
if [ "$MOMENT" != started-before ]; then
    await 5 state_is alder web Unprotected || fail "alder is $(us alder status web)"
    web_start
fi
is_paused() { domains alder | grep -q '^web paused'; }
if [ "$MOMENT" = agent-dies ]; then
    await 5 test -e "$WORK/alder/run/understudy/faults.hit" || fail "it was not held back"
    holds 1 is_paused || fail "it runs with the next agent"
fi
case $MOMENT in
taken-over | started-before | agent-dies)
    await 5 state_is alder web Fenced || fail "alder is $(us alder status web)"
    is_paused || fail "alder's copy runs: $(domains alder)"
    grep -q 'event=paused' "$WORK/alder.log" || fail "no event says so"
    holds 2 is_paused || fail "it runs again"
    await 5 guest_goes_on birch web || fail "birch's does not go on"
    kill -9 "$(agent_pid alder web)"
    holds 2 is_paused || fail "it runs again with the next agent"
    record_is 2 birch true || fail "the witness has $(witness list)"
    say "== and somebody starts it once more =="
    guest alder destroy web
    guest alder create web >/dev/null || fail "create"
    guest_run alder web
    await 2 is_paused || fail "it runs: $(domains alder)"
    holds 1 is_paused || fail "it runs again"
    ;;
nobody-left)
    await 5 record_is 2 alder true || fail "the witness has $(witness list)"
    await 5 domain_is_running alder web || fail "it stays paused: $(us alder status web)"
    await 5 guest_goes_on alder web || fail "the guest does not go on"
    record_is 2 alder true || fail "the witness has $(witness list)"
    daemon_start birch
    await 20 state_is alder web Protected || fail "protection did not return: $(us alder status web)"
    ;;
witness-lost)
    await 3 is_paused || fail "it is not paused: $(domains alder)"
    holds 3 is_paused || fail "it runs without the witness"
    kill -9 "$(agent_pid alder web)"
    holds 2 is_paused || fail "it runs with the next agent"
    witness_start
    await 8 domain_is_running alder web || fail "it stays paused: $(us alder status web)"
    await 5 guest_goes_on alder web || fail "the guest does not go on"
    await 5 record_is 2 alder true || fail "the witness has $(witness list)"
    ;;
esac
never_twice
