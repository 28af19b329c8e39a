# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091
# Somebody destroys the replica's shell, or lets it run, or it shuts down: that
# is seen at once, said by name, and a new replica is made; the primary says
# Degraded meanwhile. A shell that ran is never taken over.
. "$(dirname "$0")/../lib/fake.sh"
start_protected
touched() { # WORD
    local before
    before=$(state_count alder web Degraded)
    "${@:2}" || fail "${*:2}"
    noticed() { [ "$(state_count alder web Degraded)" -gt "$before" ]; }
    await 10 noticed || fail "alder does not say Degraded"
    grep -q "backup/web: .*event=void .*$1" "$WORK/birch.log" ||
        fail "birch does not say '$1'"
    await 10 state_is alder web Protected || fail "not Protected again"
    await 10 state_is birch web Protected || fail "birch is not Protected again"
    domains_are birch "web--replica paused" || fail "birch has $(domains birch)"
    await 5 guest_goes_on alder web || fail "the guest does not go on"
}
say "== destroyed =="
touched 'is gone' guest birch destroy web--replica
say "== unpaused =="
touched 'let it run' guest birch unpause web--replica
say "== shut down =="
touched 'shut down' guest birch "do" web--replica shutdown 0
steps=$(steps_committed alder web) || fail "no epochs"
say "== and the last one is good =="
host_die alder
taken_over_well birch web "$steps"
