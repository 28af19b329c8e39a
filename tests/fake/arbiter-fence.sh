# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091
# A fencing hook is configured on birch: it is called with alder's name before a
# takeover, which waits for it. When it fails nothing is taken over, and with the
# witness the generation goes back to alder, which may live.
# moments: works works-later fails fails-alder-lives none-works none-fails
. "$(dirname "$0")/../lib/arbiter.sh"
: "${MOMENT:=works}"
cat >"$WORK/hook" <<'HOOK'
#!/bin/sh
echo "$1 $2" >>"${0%/*}/fenced"
[ -e "${0%/*}/able" ]
HOOK
chmod 700 "$WORK/hook"
three_make
echo "fence=\"$WORK/hook\"" >>"$WORK/birch/etc/understudy/understudyd.conf"
guest_make alder web
case $MOMENT in
none-*) protect alder web birch ;;
*) protect_with_arbiter alder web birch ;;
esac
watch_start
calls() { [ "$(wc -l <"$WORK/fenced")" -ge "$1" ]; }
steps=$(steps_committed alder web) || fail "no epochs"
case $MOMENT in *works) touch "$WORK/able" ;; esac
if [ "$MOMENT" = fails-alder-lives ]; then
    mapfile -t stopped < <(pids_of alder)
    kill -STOP "${stopped[@]}"
else
    host_die alder
fi
await 10 calls 1 || fail "the hook is not called"
[ "$(head -n 1 "$WORK/fenced")" = 'alder web' ] || fail "it gets $(cat "$WORK/fenced")"
case $MOMENT in
*works)
    taken_over_well birch web "$steps"
    calls 2 && fail "fenced more than once"
    ;;
works-later)
    touch "$WORK/able"
    taken_over_well birch web "$steps"
    ;;
*fails*)
    await 5 calls 3 || fail "not tried again"
    await 5 event_count birch 'state=Failed was=Protected the takeover failed: .*could not fence alder' || fail "it does not say so"
    [ "$(state_count birch web TakenOver)" = 0 ] || fail "taken over all the same"
    calls 4 && fail "tried for ever"
    ;;
esac
case $MOMENT in
fails*) await 5 record_is 3 alder || fail "not handed back: $(witness list)" ;;
esac
if [ "$MOMENT" = fails-alder-lives ]; then
    kill -CONT "${stopped[@]}"
    protected_anew() { [ "$(state_count alder web Protected)" -ge 2 ] && state_is alder web Protected; }
    await 20 protected_anew || fail "alder is $(us alder status web)"
    await 5 guest_goes_on alder web || fail "the guest does not go on"
fi
never_twice
