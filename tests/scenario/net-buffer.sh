# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091,SC2016
# Holding back output on a real kernel: every protocol, epochs, overflow, hot
# plug, a crash and its successor, other people's rules, a flood (see
# tests/lab/netbuf-test.c); then the vif of a real guest.
. "$(dirname "$0")/../lib/scenario.sh"
start_from running
cd "$TOP" || exit 1
PROGS=${BUILD:-build}/lab
make -s BUILD="${BUILD:-build}" labprogs || fail "make labprogs"
for prog in netbuf-test netbuf-hold; do
    birch "cat >/tmp/$prog; chmod +x /tmp/$prog" <"$PROGS/$prog" ||
        fail "copy $prog"
done
out=$(birch /tmp/netbuf-test 2>&1)
rc=$?
say "$out"
[ $rc = 0 ] || fail "netbuf-test: $(grep -c '^not ok' <<<"$out") failed"

# Nothing of the guest's gets out for a while, IPv6 neither, then everything.
vif=$(alder 'echo vif$(xl domid web).0')
alder "cat >/tmp/netbuf-hold; chmod +x /tmp/netbuf-hold" <"$PROGS/netbuf-hold" ||
    fail "copy netbuf-hold"
alder "/tmp/netbuf-hold t1 $vif $((4000 + 500 * SCALE)) 0" >"$WORK/hold" 2>&1 &
hold=$!
await 4 grep -q holding "$WORK/hold" || fail "$(cat "$WORK/hold")"
"$LAB" run outside ping -c 1 -W 1 $WEB >/dev/null && fail "an answer got out"
"$LAB" run outside ping -c 1 -W 1 fd00:5::11 >/dev/null && fail "IPv6 got out"
grep -q released "$WORK/hold" && fail "held too short to tell"
wait $hold || fail "$(cat "$WORK/hold")"
say "$(cat "$WORK/hold")"
await 4 guest_answers $WEB || fail "web does not answer"
alder '! ip -o link | grep -q " t1-"' || fail "an ifb was left"
