# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091,SC2154
# Our processes on alder are killed at a named moment: the guest goes on, birch
# does not take over, protection returns by itself, nothing is left behind.
# `agent`, `daemon`, `both`: while epochs run. A capture's moment: there. A
# primary's phase: the agent, and then its successor in that phase.
# `leftovers.end`: the successor fails to take its plug away, and tries again.
# moments: leftovers.end agent daemon both capture.before capture.suspended capture.copied capture.marked capture.resumed primary.recover primary.prepare primary.connect primary.discard primary.describe primary.shell primary.sync
. "$(dirname "$0")/../lib/scenario.sh"
start_from protected
client_start "$WEB"
agent_kill() { alder kill -9 "$(status_of alder web pid)" || fail "no agent"; }
daemon_kill() { alder 'kill -9 "$(cat /run/lab/understudyd.pid)"' || fail "no daemon"; }
copies() { alder 'grep -c "event=sync copying" /var/log/understudyd.log'; }
before=$(copies)
case $MOMENT in
agent) agent_kill ;;
daemon) daemon_kill ;;
both) agent_kill && daemon_kill ;;
capture.*)
    fault_arm alder "$MOMENT" kill 5
    await 6 fault_was_hit alder || fail "$MOMENT was not reached"
    ;;
primary.* | leftovers.end)
    [ "$MOMENT" = leftovers.end ] && action=fail
    fault_arm alder "$MOMENT" "${action:-kill}"
    agent_kill
    await 30 fault_was_hit alder || fail "$MOMENT was not reached"
    ;;
esac
resynced() { [ "$(copies)" -gt "$before" ]; }
if [ "$MOMENT" = daemon ]; then
    await 12 status_json alder web || fail "no new daemon"
    resynced && fail "the copy began again, though the agent lived"
else
    await 60 resynced || fail "no successor began again"
fi
await 60 state_is alder web Protected || fail "protection did not return"
client_goes_on 60 10 || fail "the guest does not go on"
[ "$(event_count birch '"TakenOver"')" = 0 ] || fail "birch took over"
client_end || fail "an answer or the connection was lost"
alder understudy unprotect web || fail "unprotect"
await 6 alder_is_clean || fail "something was left behind"
alder 'xl save web /srv/web.save && xl restore /srv/web.save && rm /srv/web.save' ||
    fail "xl save does not work afterwards"
