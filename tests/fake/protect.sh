# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091
# A VM is protected, what it does is shown, and unprotect leaves it running and
# nothing of ours on either host.
. "$(dirname "$0")/../lib/fake.sh"
hosts_make
guest_make alder web
say "== protect, and what is shown =="
us alder wait web --state Unprotected || fail "wait for what is already so"
(us alder wait web --state Protected && fail "waited for an unknown VM") 2>"$WORK/err"
grep -q 'not protected' "$WORK/err" || fail "wait does not say why: $(cat "$WORK/err")"
protect alder web birch
for host in alder birch; do
    await 5 state_is $host web Protected || fail "$host does not say Protected"
    for key in $(us $host status web --json | jq -r '.[0] | keys[]'); do
        grep -q "^=item .*\b$key\b" "$TOP/docs/understudy.pod" ||
            fail "understudy(1) does not tell what $key is"
    done
done
us alder wait web --state Protected --timeout 5 || fail "wait"
(us alder wait web --state Degraded --timeout 1 2>"$WORK/err") &&
    fail "waited for Degraded and got it"
grep -q 'not Degraded yet' "$WORK/err" || fail "wait: $(cat "$WORK/err")"
epochs_go_on alder web || fail "no epochs"
for key in role:primary peer:birch arbiter:none generation:1 timeout_ms:$T interval_ms:50 \
    suspend:'event channel'; do
    [ "$(status_of alder web "${key%%:*}")" = "${key#*:}" ] || fail "status: $key"
done
[ "$(status_of alder web pause_us.median)" -gt 0 ] || fail "no pause is measured"
[ "$(status_of birch web role)" = backup ] || fail "birch is no backup"
epochs_go_on birch web || fail "no epochs on birch"
us alder status >"$WORK/out" || fail "status"
grep -q 'web.*Protected.*birch' "$WORK/out" || fail "status says $(cat "$WORK/out")"
us alder events --json | jq -se 'map(select(.state == "Protected" and .vm == "web")) | length == 1' \
    >/dev/null || fail "events do not tell of Protected once"
us alder events | grep -q Protected || fail "events as text"
await 5 guest_goes_on alder web || fail "the guest does not run"
[ "$(domains birch)" = 'web--replica paused' ] || fail "birch has $(domains birch)"

say "== unprotect =="
us alder unprotect web || fail "unprotect"
await 5 host_is_clean alder || fail "something is left on alder"
await 5 host_is_clean birch || fail "something is left on birch"
domains_are birch '' || fail "birch has $(domains birch)"
await 5 guest_goes_on alder web || fail "the guest does not go on"
guest alder check web || fail "the guest is broken"
(us alder unprotect web 2>"$WORK/err") && fail "unprotect a second time"
grep -q 'web is not protected' "$WORK/err" || fail "unprotect: $(cat "$WORK/err")"
protect alder web birch
