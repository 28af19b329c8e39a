# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091
# The link is cut and the agent that asks the witness dies at a named moment
# around its claim: before it is written, before and after it is sent, with the
# answer in its hands, with the answer written down. Its successor finds out
# what came of it; the VM runs again, once, and is protected again when the
# link is back. birch asks because alder's processes stand still for a while;
# what it wins without its replica it hands back.
# moments: alder:lease.ask alder:lease.written alder:lease.sent alder:lease.answered alder:lease.decided birch:lease.ask birch:lease.written birch:lease.sent birch:lease.answered birch:lease.decided
. "$(dirname "$0")/../lib/arbiter.sh"
: "${MOMENT:=alder:lease.answered}"
host=${MOMENT%%:*}
three_protected
fault_arm "$host" "${MOMENT#*:}" kill
if [ "$host" = birch ]; then
    mapfile -t stopped < <(pids_of alder)
    kill -STOP "${stopped[@]}"
else
    cable_cut link
fi
await 10 test -e "$WORK/$host/run/understudy/faults.hit" || fail "$MOMENT is not reached"
say "== $host's agent died =="
if [ "$host" = birch ]; then
    settled() { lease_is birch web empty || lease_is birch web returning; }
    await 10 settled || fail "birch's lease is $(status_of birch web lease)"
    [ "$(state_count birch web TakenOver)" = 0 ] || fail "birch took over without a replica"
    case $MOMENT in
    *answered | *decided) await 5 record_is 3 alder || fail "not handed back: $(witness list)" ;;
    esac
    kill -CONT "${stopped[@]}"
    await 10 runs_free alder || await 10 state_is alder web Protected ||
        fail "alder is $(us alder status web)"
    await 5 guest_goes_on alder web || fail "the guest does not go on"
    await 20 state_is alder web Protected || fail "protection did not return: $(us alder status web)"
else
    await 10 runs_somewhere || fail "nobody runs it"
    holds 1 runs_somewhere || fail "it does not run on"
    never_twice
    cable_heal link
    if runs_free birch; then
        await 10 state_is alder web Fenced || fail "alder is $(us alder status web)"
        guest_stands alder web || fail "alder's copy runs"
    else
        await 20 state_is alder web Protected || fail "protection did not return: $(us alder status web)"
        await 5 guest_goes_on alder web || fail "the guest does not go on"
        steps=$(steps_committed alder web) || fail "no epochs"
        host_die alder
        taken_over_well birch web "$steps"
    fi
fi
never_twice
