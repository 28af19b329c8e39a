# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091
# Protecting the other way after a takeover, where it can't be: one sentence,
# and the VM stays taken over, as it was. When what was in the way is gone,
# `protect` is all that is needed.
. "$(dirname "$0")/../lib/fake.sh"
start_protected
refused() { # TEXT PEER
    local out
    out=$(us birch protect web "$2" --arbiter none 2>&1) && fail "protected"
    say "birch# understudy protect web $2" && say "$out"
    grep -q -- "$1" <<<"$out" || fail "does not say '$1'"
    await 5 state_is birch web TakenOver || fail "it is not TakenOver any more"
    [ "$(status_of birch web role)" = backup ] || fail "it is another role's"
    await 5 guest_goes_on birch web || fail "the guest does not go on"
}
protected_at_last() { us birch protect web alder --arbiter none; }
steps=$(steps_committed alder web) || fail "no epochs"
host_die alder
taken_over_well birch web "$steps"
say "== alder is dead =="
refused 'alder' alder
say "== another host than the one that it was taken over from =="
us birch peer add cedar --address "127.0.0.1:$(port_take)" \
    --pin "$(printf 'cd%.0s' {1..32})" || fail "peer add"
refused 'was taken over from alder' cedar
say "== alder still has the old copy, fenced, also for the next agent =="
guest_run alder web
daemon_start alder
await 10 state_is alder web Fenced || fail "alder's copy is not fenced"
refused 'xl destroy web' alder
state_is alder web Fenced || fail "it is not fenced any more"
agent=$(agent_pid alder web)
kill -9 "$agent"
another_agent() { [ "$(agent_pid alder web)" -ne "$agent" ]; }
await 5 another_agent || fail "no new agent"
await 5 state_is alder web Fenced || fail "it is not fenced any more"
refused 'xl destroy web' alder
guest_stands alder web || fail "alder's copy runs"
guest_stop alder web
guest alder destroy web
say "== the name is taken on alder =="
guest alder create web 100 500 2 >/dev/null
refused 'a domain web is there already' alder
await 10 host_is_clean alder || fail "something is left on alder"
guest alder destroy web
say "== nothing in the way: an agent dies on birch on the way =="
fault_arm birch turn.written kill
await 10 protected_at_last || fail "not protected"
state_is birch web Protected || fail "not Protected"
steps=$(steps_committed birch web) || fail "no epochs"
: >"$WORK/alder.log" # taken_over_well() counts
host_die birch
taken_over_well alder web "$steps"
guest birch destroy web
daemon_start birch
say "== and on the way of the next one =="
await 10 state_is birch web Unprotected || fail "birch does not say so"
fault_arm alder primary.shell kill
us alder protect web birch --arbiter none || fail "not protected"
state_is alder web Protected || fail "not Protected"
