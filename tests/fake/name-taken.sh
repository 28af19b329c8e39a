# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091
# Two hosts have a VM of the same name, and the same backup: the second is
# refused by name, and the replica of the first is left alone. Nor does a peer
# that means harm get a shell with a name or a uuid that is not its VM's.
. "$(dirname "$0")/../lib/fake.sh"
hosts_make
host_make cedar
peer_add cedar birch
peer_add birch cedar
guest_make alder web
guest_make cedar web 2000 500 9
guest_make cedar cat
protect alder web birch
web=$(status_of alder web uuid)
left_alone() {
    domains_are birch "$1" || fail "birch has $(domains birch | paste -sd,)"
    state_is alder web Protected && epochs_go_on alder web ||
        fail "web is not protected any more"
    [ "$(state_count alder web Degraded)" = 0 ] || fail "web was Degraded"
}
refused() { # TEXT COMMAND...
    local text=$1 out
    shift
    out=$("$@" 2>&1) && fail "not refused: $*"
    grep -q "$text" <<<"$out" || fail "does not say '$text': $out"
    say "$out"
}
say "== another VM's record has the name =="
refused 'birch has another VM web on record' us cedar protect web birch --arbiter none
left_alone "web--replica paused"
[ "$(us birch status --json | jq length)" = 1 ] || fail "birch has a record of it"
say "== a domain has it =="
guest_make birch dog 100
guest_make cedar dog 2000 500 9
refused 'a domain dog' us cedar protect dog birch --arbiter none
[ "$(us birch status --json | jq length)" = 1 ] || fail "birch has a record of it"
say "== a peer that means harm =="
protect cedar cat birch
cat=$(status_of cedar cat uuid)
wants() { # NAME UUID
    "$BUILD/fake/hostile" blueprint "${PORT[birch]}" "$cat" \
        "$WORK/cedar/etc/understudy" "$(us birch key show)" "$1" "$2"
}
# cedar's own session may come and end the other one before it is answered.
answered() {
    wants "$@" >"$WORK/out"
    grep 'is not the VM\|of another VM\|READY' "$WORK/out"
}
for pair in evil:$cat cat:$web web:$web; do
    await 10 answered "${pair%:*}" "${pair#*:}" || fail "no answer: $(cat "$WORK/out")"
    say "$(cat "$WORK/out")"
    grep -q READY "$WORK/out" && fail "not refused"
    domains birch | grep evil && fail "a shell was built"
done
cat_is_back() { state_is cedar cat Protected && epochs_go_on cedar cat; }
await 20 cat_is_back || fail "cat is not protected again"
left_alone "web--replica paused,dog running,cat--replica paused"
steps=$(steps_committed alder web) || fail "no epochs"
host_die alder
taken_over_well birch web "$steps"
