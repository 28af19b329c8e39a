# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091,SC2034
# birch has lost its record of the VM with its replica: alder does not wait for
# the timeout, nor win a generation, but makes a new replica at once.
. "$(dirname "$0")/../lib/fake.sh"
T=20000
start_protected
since=$(now_ms)
host_kill birch
rm "$WORK"/birch/var/lib/understudy/vms/*.json
daemon_start birch
protected_anew() { [ "$(state_count alder web Protected)" -ge 2 ] && state_is alder web Protected; }
await 8 protected_anew || fail "protection did not return at once"
took=$(($(now_ms) - since))
say "Protected again after $took ms"
[ $took -lt $((T / 2)) ] || fail "not before the lease let go"
[ "$(status_of alder web generation)" = 1 ] || fail "a generation was won for it"
await 5 guest_goes_on alder web || fail "the guest does not go on"
