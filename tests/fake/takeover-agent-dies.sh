# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091
# The backup's agent dies in the middle of the takeover: its successor goes on
# where the shell is the VM already, and never throws that away.
. "$(dirname "$0")/../lib/fake.sh"
start_protected
steps=$(steps_committed alder web) || fail "no epochs"
fault_arm birch takeover.recorded kill
host_die alder
await 10 test -e "$WORK/birch/run/understudy/faults.hit" || fail "no takeover"
taken_over_well birch web "$steps"
