# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091,SC2154
# The agent on alder is killed at a named moment: the guest goes on, birch
# does not take over, protection returns by itself, nothing is left behind.
# moments: capture.before capture.suspended capture.copied capture.marked capture.resumed primary.run
. "$(dirname "$0")/../lib/scenario.sh"
start_from protected
client_start "$WEB"
if [ "$MOMENT" = primary.run ]; then
    alder kill -9 "$(status_of alder web pid)" ||
        fail "the agent is not there"
else
    fault_arm alder "$MOMENT" kill 5
    await 6 fault_was_hit alder || fail "$MOMENT was not reached"
fi
was_restarted() { alder 'understudy events' | grep -q 'left output held'; }
await 12 was_restarted || fail "no successor found what was left"
await 60 state_is alder web Protected || fail "protection did not return"
client_goes_on 60 10 || fail "the guest does not go on"
[ "$(event_count birch '"TakenOver"')" = 0 ] || fail "birch took over"
client_end || fail "an answer or the connection was lost"
alder understudy unprotect web || fail "unprotect"
await 6 alder_is_clean || fail "something was left behind"
alder 'xl save web /srv/web.save && xl restore /srv/web.save && rm /srv/web.save' ||
    fail "xl save does not work afterwards"
