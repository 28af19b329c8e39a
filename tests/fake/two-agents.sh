# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091,SC2034
# of a dead one, one of them lives; and nothing is left of them in the end.
. "$(dirname "$0")/../lib/fake.sh"
T=10000
start_protected
uuid=$(status_of alder web uuid)
agents() {
    local pid
    for pid in $(pids_of alder); do
        tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline" | grep -q 'agent primary' && echo "$pid"
    done
    return 0
}
one_lives() { [ "$(agents | wc -l)" = 1 ]; }
# The other two gave up because of it.
settled() { one_lives && [ "$(event_count alder 'holds .*\.agent$')" = $((2 * round)) ]; }
for round in $(seq 10); do
    mapfile -t old < <(agents)
    [ "$round" != 1 ] || old+=("$(daemon_pid alder)")
    kill -9 "${old[@]}"
    await 5 processes_ended "${old[@]}" || fail "round $round: ${old[*]} can't be killed"
    for _ in 1 2 3; do
        on alder "$BUILD/understudyd" agent primary "$uuid" >>"$WORK/alder.log" 2>&1 &
        disown
    done
    await 5 settled || fail "round $round: agents $(agents | paste -sd' ')"
done
daemon_start alder
await 20 state_is alder web Protected || fail "not protected in the end"
one_lives || fail "agents in the end: $(agents | paste -sd' ')"
us alder unprotect web || fail "unprotect"
await 5 host_is_clean alder || fail "something is left on alder"
await 10 host_is_clean birch || fail "something is left on birch"
[ -z "$(find "$WORK"/*/run -name '*.agent')" ] || fail "a lock is left"
