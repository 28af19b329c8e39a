# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091
# Two things fail, one after the other: hosts, the witness, the link, the way
# from one host to the witness. At most one host runs the VM, one does where two
# of the three are left and a whole epoch is among them; who can't know keeps
# still. When what can be healed is healed one runs it, where there is one left.
# moments: link+alder link+birch link+witness alder+witness alder+birch-witness birch+witness birch+alder-witness alder-witness+link birch-witness+link alder-witness+alder birch-witness+alder alder-witness+birch birch-witness+birch alder-witness+birch-witness witness+link witness+alder witness+birch
. "$(dirname "$0")/../lib/arbiter.sh"
: "${MOMENT:=alder-witness+link}"
three_protected
steps=$(steps_committed alder web) || fail "no epochs"
strike() {
    say "== $1 =="
    case $1 in
    alder | birch) host_die "$1" ;;
    witness) witness_kill ;;
    *) cable_cut "$1" ;;
    esac
}
# What each pair comes to: alder or birch runs it; held: alder's guest runs with
# its output held; protected: as before; nobody. Then the same when all but dead
# hosts is healed.
case $MOMENT in
link+alder) want=nobody later=nobody ;; # alder had won, birch's replica is void
link+birch | link+witness) want=alder later=alder ;;
alder+*) want=birch later=birch ;;
birch+*) want=alder later=alder ;;
alder-witness+link) want=birch later=birch ;;
birch-witness+link) want=alder later=alder ;;
alder-witness+alder) want=birch later=birch ;;
birch-witness+alder) want=nobody later=birch ;;
alder-witness+birch) want=held later=alder ;;
birch-witness+birch) want=alder later=alder ;;
alder-witness+birch-witness) want=protected later=protected ;;
witness+link) want=held later=one ;;
witness+alder) want=nobody later=birch ;;
witness+birch) want=held later=alder ;;
esac
is_so() {
    case $1 in
    alder) runs_free alder && ! runs_free birch && guest_goes_on alder web ;;
    birch) runs_free birch && ! runs_free alder ;;
    held) lease_is alder web asking && state_is alder web Degraded && guest_goes_on alder web && ! runs_free birch ;;
    protected) state_is alder web Protected && epochs_go_on alder web ;;
    nobody) ! runs_free birch && ! runs_free alder ;;
    one) runs_somewhere || state_is alder web Protected ;;
    esac
}
# After a heal alder may be protected again already.
comes_to() { is_so "$1" || { [ "$1" = alder ] && state_is alder web Protected; }; }
first=${MOMENT%%+*} second=${MOMENT#*+}
strike "$first"
case $first in
link) await 5 is_so alder || fail "alder did not win" ;;
alder) taken_over_well birch web "$steps" ;;
birch) await 5 is_so alder || fail "alder did not win" ;;
*) holds 2 state_is alder web Protected || fail "protection did not go on" ;;
esac
strike "$second"
await 8 is_so "$want" || fail "it came to $(us alder status web) and $(us birch status web)"
holds 2 is_so "$want" || fail "it did not stay so: $(us alder status web) and $(us birch status web)"
never_twice
say "== healed =="
for what in "$first" "$second"; do
    case $what in
    alder | birch) ;;
    witness) witness_start ;;
    *) cable_heal "$what" ;;
    esac
done
await 15 comes_to "$later" || fail "it came to $(us alder status web) and $(us birch status web)"
if [ "$want" = birch ] && [ "$first$second" = alder-witnesslink ]; then
    await 10 state_is alder web Fenced || fail "alder is $(us alder status web)"
    guest_stands alder web || fail "alder's copy runs"
    us alder status web | grep -q 'birch runs the VM now' || fail "it does not say why"
fi
[ "$(state_count birch web TakenOver)" -le 1 ] || fail "taken over more than once"
never_twice
