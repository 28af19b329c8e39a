# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091
# What `protect` refuses with an arbiter, by name, and leaves nothing behind:
# none that is set, one that can't be reached from here or from the peer, one
# with another key, one that does not know us, one that is sealed, two that are
# not the same, a VM that the arbiter knows as somebody else's.
. "$(dirname "$0")/../lib/arbiter.sh"
three_make
guest_make alder web
refused() { # TEXT ARGUMENT...: protect fails and says TEXT
    local text=$1
    shift
    us alder protect web birch "$@" >"$WORK/out" 2>&1 && fail "not refused: $text"
    grep -q "$text" "$WORK/out" || fail "expected '$text', it says: $(cat "$WORK/out")"
    host_is_clean alder || fail "something is left on alder: $text"
    await 5 guest_goes_on alder web || fail "the guest stands: $text"
}
W="witness:127.0.0.1:${CABLE[alder-witness]}"
say "== none is set =="
us alder arbiter set none >/dev/null || fail "unset"
refused 'an arbiter has to be named'
us alder arbiter show | grep -q 'no arbiter is set' || fail "show"
refused 'its arbiter is\|the arbiter of alder is not set' --arbiter "$W pin=$PIN"
say "== what is no line =="
us alder arbiter set "witness:w pin=12" 2>&1 | grep -q '64 hex digits' || fail "a bad pin is set"
us alder arbiter set "oracle:w" 2>&1 | grep -q 'no arbiter' || fail "an oracle is set"
say "== another key =="
us alder arbiter set "$W pin=$(us alder key show)" >/dev/null || fail "set"
refused 'presented the key'
say "== not the same =="
us alder arbiter set "$(arbiter_line alder)" >/dev/null || fail "set"
us birch arbiter set none >/dev/null || fail "unset"
refused 'birch: its arbiter is not set'
us birch arbiter set "$W pin=$(us alder key show)" >/dev/null || fail "set"
refused 'birch: its arbiter is witness:'
us birch arbiter set "$(arbiter_line birch)" >/dev/null || fail "set"
await 5 arbiter_is_up birch || fail "birch does not find it"
say "== the peer can't reach it =="
cable_cut birch-witness
birch_lost() { ! arbiter_is_up birch; }
await 6 birch_lost || fail "birch does not notice"
refused "birch can't ask the arbiter"
cable_heal birch-witness
await 6 arbiter_is_up birch || fail "birch does not find it"
say "== it does not know us =="
witness pin remove alder || fail "remove"
refused "does not know this host's key\|not known any more"
witness pin add alder "$(us alder key show)" || fail "add"
await 6 arbiter_is_up alder || fail "alder is not let in"
say "== sealed =="
witness seal "for a look" || fail "seal"
refused 'sealed: for a look'
witness unseal >/dev/null || fail "unseal"
await 6 arbiter_is_up alder || fail "not unsealed"
await 6 arbiter_is_up birch || fail "not unsealed for birch"
say "== it does not run =="
witness_kill
refused "alder can't ask the arbiter"
us alder protect web birch --arbiter none >>"$WORK/protect.out" 2>&1 || fail "none is a choice, and was not taken"
us alder unprotect web >/dev/null || fail "unprotect"
await 5 host_is_clean alder || fail "something is left on alder"
witness_start
await 6 arbiter_is_up alder || fail "alder does not find it"
await 6 arbiter_is_up birch || fail "birch does not find it"
say "== somebody else's =="
protect_with_arbiter alder web birch
us alder unprotect web >/dev/null || fail "unprotect"
await 5 host_is_clean alder || fail "something is left on alder"
await 3 record_is 2 nobody || fail "alder did not leave: $(witness list)"
protect_with_arbiter alder web birch
record_is 3 alder true || fail "the witness has $(witness list)"
host_die alder
await 10 state_is birch web TakenOver || fail "birch did not take over"
await 5 record_is 4 birch true || fail "the witness has $(witness list)"
rm "$WORK"/alder/var/lib/understudy/vms/*.json
guest_run alder web
daemon_start alder
await 6 arbiter_is_up alder || fail "alder does not find it"
await 6 peer_is_up alder birch || fail "alder does not find birch"
us alder protect web birch >"$WORK/out" 2>&1 && fail "not refused: birch's"
grep -q 'held by the other host, with generation 4' "$WORK/out" || fail "it says: $(cat "$WORK/out")"
vm_is_unknown alder web || fail "something is left on alder"
record_is 4 birch true || fail "the witness has $(witness list)"
