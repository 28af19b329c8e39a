# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091,SC2154
# The backup has another CPU: one by another vendor, or one without a feature
# that the guest was told it has. Refused by name, before anything is built.
# moments: vendor feature
. "$(dirname "$0")/../lib/scenario.sh"
[ "$SCALE" != 1 ] || {
    say "without emulation the hosts have this machine's CPU"
    exit 77
}
start_from running
case $MOMENT in
vendor) model=vendor=HygonGenuine why='a CPU by AuthenticAMD, this host has one by HygonGenuine' ;;
feature) model=-pni why='lacks SSE3' ;;
esac
"$LAB" kill birch
"$LAB" up --cpu "birch=qemu64,+svm,+npt,$model" || fail "birch does not boot"
birch_up() { alder understudy peer list | grep -q 'birch.*up'; }
await 10 birch_up || fail "no session to birch"
refused 1 "$why" understudy protect web birch --arbiter none
await 6 alder_is_clean || fail "something was left on alder"
guest_answers "$WEB" || fail "web does not answer"
birch xl list | grep replica && fail "a shell was left on birch"
exit 0
