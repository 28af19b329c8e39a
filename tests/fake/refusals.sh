# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091,SC2034,SC2154
# What can't be done is refused in one sentence that names the cause, with an
# exit status, and nothing is left behind on either host.
. "$(dirname "$0")/../lib/fake.sh"
hosts_make
guest_make alder web
refused() { # STATUS TEXT HOST ARGUMENT...
    local want=$1 text=$2 rc=0
    shift 2
    out=$(us "$@" 2>&1) || rc=$?
    say "$1# understudy ${*:2}" && say "$out"
    [ $rc = "$want" ] || fail "exit status $rc, not $want"
    grep -q -- "$text" <<<"$out" || fail "does not say '$text'"
    grep -q 'what to do:\|understudy .*--help' <<<"$out" ||
        fail "says nothing of what to do"
}
refused 1 'no domain nobody' alder protect nobody birch --arbiter none
refused 1 'cedar is no peer' alder protect web cedar --arbiter none
refused 1 'alder is this very host' alder protect web alder --arbiter none
refused 2 'arbiter' alder protect web birch
refused 2 '' alder protect web
refused 2 'paxos' alder protect web birch --arbiter paxos
refused 1 'not protected' alder takeover web
say "== a name that is not UTF-8, by itself and by its number =="
guest alder create "$(printf 'caf\351')" >/dev/null
refused 1 'is not UTF-8' alder protect "$(guest alder list | awk 'END { print $1 }')" birch --arbiter none
grep -q 'xl rename' <<<"$out" || fail "does not say what to do"
refused 2 'is not UTF-8' alder protect "$(printf 'caf\351')" birch --arbiter none
refused 2 'is not UTF-8' alder status "$(printf 'caf\351')"
guest alder destroy "$(printf 'caf\351')"
say "== the name is taken on birch =="
guest birch create web 100 500 2 >/dev/null
refused 1 'a domain web is there already' alder protect web birch --arbiter none
refused 1 'a domain web is there already' alder protect web birch --arbiter none --no-wait
await 5 host_is_clean alder || fail "something is left on alder"
await 10 host_is_clean birch || fail "something is left on birch"
guest birch destroy web
say "== another key than the one that is known =="
us alder peer add cedar --address "127.0.0.1:${PORT[birch]}" \
    --pin "$(printf 'ab%.0s' {1..32})" || fail "peer add"
refused 1 'key' alder protect web cedar --arbiter none
say "== nobody there =="
us alder peer add dogwood --address "127.0.0.1:$(port_take)" \
    --pin "$(us birch key show)0" 2>/dev/null && fail "a pin of 65 digits"
us alder peer add dogwood --address "127.0.0.1:$(port_take)" \
    --pin "$(printf 'cd%.0s' {1..32})" || fail "peer add"
refused 1 'dogwood' alder protect web dogwood --arbiter none
say "== its daemon hangs =="
kill -STOP "$(daemon_pid birch)"
refused 1 'no answer from birch: birch is silent\|birch did not answer in time' alder protect web birch --arbiter none
grep -q 'can be reached from here' <<<"$out" || fail "does not say what to do"
kill -CONT "$(daemon_pid birch)"
await 10 peer_is_up alder birch || fail "birch is not back"
say "== another version of the protocol =="
PORT[elm]=$(port_take)
on elm "$BUILD/fake/hostile" next "${PORT[elm]}" "$WORK/elm" \
    >"$WORK/pin" 2>"$WORK/elm.log" &
disown
await 5 test -s "$WORK/pin" || fail "no host of the next version"
us alder peer add elm --address "127.0.0.1:${PORT[elm]}" \
    --pin "$(cat "$WORK/pin")" || fail "peer add"
refused 1 'elm speaks protocol 2, alder speaks 1' alder protect web elm --arbiter none
if ! [ -e /proc/xen/capabilities ]; then
    say "== no Xen =="
    NO_XEN=fir
    host_make fir
    peer_add fir birch
    peer_add birch fir
    refused 1 'no Xen on this host' fir protect web birch --arbiter none
fi
await 5 host_is_clean alder || fail "something is left on alder"
host_is_clean birch || fail "something is left on birch"
await 5 guest_goes_on alder web || fail "the guest does not go on"
say "== protected already; and what belongs to the other host =="
protect alder web birch
refused 1 'already' alder protect web birch --arbiter none
refused 1 'replica\|already' birch protect web--replica alder --arbiter none
refused 1 'only its backup' birch unprotect web
refused 1 'nothing to take over' alder takeover web
state_is alder web Protected || fail "not Protected any more"
await 5 guest_goes_on alder web || fail "the guest does not go on"
