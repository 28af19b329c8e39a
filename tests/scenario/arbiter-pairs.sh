# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091,SC2154
# With a witness on a third machine, under load: one thing is lost, or two, one
# after the other: a host's power, the witness, the link between the hosts, the
# way from one host to the witness. At most one host runs the VM, one does where
# two of the three are connected and a whole epoch is among them, who can't know
# keeps still; and in the end the outside client has lost nothing. alder-way+link
# is arbiter-isolated.sh.
# test-all only
# moments: link alder birch witness alder-way birch-way link+witness witness+link link+birch birch+witness birch+alder-way birch-way+link birch-way+alder alder+witness alder+birch-way alder-way+alder witness+alder
. "$(dirname "$0")/../lib/scenario.sh"
. "$(dirname "$0")/../lib/witness.sh"
: "${MOMENT:=link}"
start_from running
witness_make
protect_with_witness alder web birch
client_start "$WEB"
record_is 1 alder || fail "the witness has $(witness list)"

# Either of them has won, or they have met again before.
runs_or_protected() {
    state_is alder web Protected || record_is 2 alder || state_is birch web TakenOver
}
strike() {
    say "== $1 is lost =="
    case $1 in
    alder | birch) "$LAB" kill "$1" ;;
    witness) witness_kill ;;
    link) link_cut ;;
    *-way) way_cut "${1%-way}" ;;
    esac
}
repair() {
    case $1 in
    witness) witness_start ;;
    link) link_heal ;;
    *-way) way_heal "${1%-way}" ;;
    esac
}
reason_says() { # HOST TEXT
    on "$1" understudy status web | grep -q -- "$2"
}
# alder runs it alone; birch has taken it over; alder's guest runs with its
# output held; as before; nobody runs it.
comes_to() {
    case $1 in
    alder) await 20 state_is alder web Degraded && await 6 record_is 2 alder &&
        client_goes_on 20 20 ;;
    birch) await 20 state_is birch web TakenOver && await 6 record_is 2 birch &&
        client_goes_on 20 20 ;;
    held) await 20 reason_says alder 'its output is held' ;;
    protected) client_goes_on 40 10 && state_is alder web Protected && record_is 1 alder ;;
    nobody) await 20 reason_says birch 'Generation:.*held by unknown' ;;
    esac
}
case $MOMENT in
link | birch | link+* | birch+* | birch-way+link) want=alder ;;
alder | alder+* | alder-way+*) want=birch ;;
witness | alder-way | birch-way) want=protected ;;
birch-way+alder | witness+alder) want=nobody ;;
witness+link) want=held ;;
esac
first=${MOMENT%%+*} second=${MOMENT#*+}
strike "$first"
if [ "$second" != "$MOMENT" ]; then
    case $first in
    link | birch) comes_to alder || fail "alder does not run it" ;;
    alder) comes_to birch || fail "birch does not run it" ;;
    *) comes_to protected || fail "protection does not go on" ;;
    esac
    strike "$second"
fi
comes_to $want || fail "it did not come to: $want"
runs_once || fail "both run it"
say "== healed =="
[ "$first" = alder ] || [ "$first" = birch ] || repair "$first"
[ "$second" = alder ] || [ "$second" = birch ] || [ "$second" = "$MOMENT" ] || repair "$second"
case $MOMENT in
*alder) await 30 state_is birch web TakenOver || fail "birch does not take it over" ;;
alder+*) state_is birch web TakenOver || fail "birch does not run it any more" ;;
birch+* | *birch) state_is alder web Degraded || fail "alder is $(status_of alder web state)" ;;
witness+link) await 30 runs_or_protected || fail "nobody runs it" ;;
*) await 30 state_is alder web Protected || fail "alder is $(status_of alder web state)" ;;
esac
runs_once || fail "both run it"
client_goes_on 40 20 || fail "the client did not go on"
client_end || fail "an answer or the connection was lost"
