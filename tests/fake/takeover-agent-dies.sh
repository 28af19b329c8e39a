# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091
# The backup's agent dies in the middle of the takeover, once the shell holds
# the epoch: its successor finishes, once, and never throws that away. Then the
# VM is protected the other way.
# moments: takeover.marked takeover.state_set takeover.recorded takeover.unpaused
. "$(dirname "$0")/../lib/fake.sh"
: "${MOMENT:=takeover.marked}"
start_protected
steps=$(steps_committed alder web) || fail "no epochs"
fault_arm birch "$MOMENT" kill
host_die alder
await 10 test -e "$WORK/birch/run/understudy/faults.hit" || fail "no takeover"
taken_over_well birch web "$steps"
[ "$(status_of birch web generation)" = 2 ] || fail "not the generation that was won"
no_mark() { ! ls "$WORK"/birch/run/understudy/*.takeover; }
await 3 no_mark || fail "the takeover is still marked as unfinished"
guest alder destroy web
daemon_start alder
await 5 state_is alder web Unprotected || fail "alder does not look"
protect birch web alder
