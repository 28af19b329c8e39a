# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091
# An agent that hangs is seen, by `status` at once, and ended by its daemon: on
# the primary its successor lets the guest's output go and protects again. The
# only copy of a VM is not ended.
. "$(dirname "$0")/../lib/fake.sh"
start_protected
hung() { # HOST: says so, and nothing looks fine
    us "$1" status >"$WORK/table"
    [ $? = 3 ] && grep -q "agent .* does not answer" "$WORK/table" &&
        us "$1" status web | grep -q "^State:.*does not answer" &&
        [ "$(us "$1" status web --json | jq '.[0].answers')" = false ]
}
say "== the primary's =="
agent=$(agent_pid alder web)
since=$(now_ms)
kill -STOP "$agent"
await 5 hung alder || fail "alder's status: $(cat "$WORK/table")"
[ -d "/proc/$agent" ] || fail "killed at once"
say "$(cat "$WORK/table")"
birch_sees() { us birch status >"$WORK/table"; [ $? = 3 ] && grep -q 'no epoch came for' "$WORK/table"; }
await 5 birch_sees || fail "birch's status: $(cat "$WORK/table")"
say "$(cat "$WORK/table")"
another() { [ "$(agent_pid "$1" web)" -gt 1 ] && [ "$(agent_pid "$1" web)" != "$agent" ]; }
await 20 another alder || fail "it was not ended"
took=$(($(now_ms) - since))
say "another agent after $took ms"
[ $took -ge 9000 ] || fail "too early"
[ "$(event_count alder 'event=agent-hangs')" = 1 ] || fail "no event"
await 20 state_is alder web Protected || fail "protection did not return"
await 5 guest_goes_on alder web || fail "the guest does not go on"
us alder status || fail "it does not look fine again"
say "== the backup's =="
agent=$(agent_pid birch web)
kill -STOP "$agent"
await 5 hung birch || fail "birch's status: $(cat "$WORK/table")"
await 20 another birch || fail "it was not ended"
await 30 state_is alder web Protected || fail "protection did not return"
[ "$(state_count birch web TakenOver)" = 0 ] || fail "birch took over"
say "== birch stands still for longer, daemon and all =="
mapfile -t pids < <(pids_of birch)
kill -STOP "${pids[@]}"
sleep 11
kill -CONT "${pids[@]}"
await 30 state_is alder web Protected || fail "protection did not return"
[ "$(event_count birch 'event=agent-hangs')" = 1 ] || fail "birch ended a well one"
say "== the backup's, and alder dies =="
steps=$(steps_committed alder web) || fail "no epochs"
agent=$(agent_pid birch web)
kill -STOP "$agent"
host_die alder
told() { [ "$(event_count birch 'event=agent-hangs.*only copy')" = 1 ]; }
await 20 told || fail "birch says nothing"
holds 3 test -d "/proc/$agent" || fail "the only copy was ended"
kill -CONT "$agent"
taken_over_well birch web "$steps"
