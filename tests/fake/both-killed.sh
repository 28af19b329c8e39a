# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091,SC2034
# Daemon and agent of the primary die together and are back before the
# timeout: no takeover, protection returns.
. "$(dirname "$0")/../lib/fake.sh"
T=4000
start_protected
host_kill alder
daemon_start alder
protected_anew() { [ "$(state_count alder web Protected)" -ge 2 ] && state_is alder web Protected; }
await 15 protected_anew || fail "protection did not return"
await 5 guest_goes_on alder web || fail "the guest does not go on"
[ "$(state_count birch web TakenOver)" = 0 ] || fail "birch took over"
steps=$(steps_committed alder web) || fail "no epochs"
host_die alder
taken_over_well birch web "$steps"
