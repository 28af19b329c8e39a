# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091,SC2034
# unprotect, and a discard, while an epoch is on its way: what comes after them
# is dropped without a word, and no session breaks for it.
. "$(dirname "$0")/../lib/fake.sh"
T=3000
hosts_make
guest_make alder web 20000 20
for round in 1 2 3 4 5 6 7 8; do
    protect alder web birch
    epochs_go_on alder web || fail "no epochs in round $round"
    us alder unprotect web || fail "unprotect"
done
grep -h 'violation' "$WORK/birch.log" && fail "it was taken for a violation"
grep -c 'event=generation' "$WORK/alder.log" >/dev/null &&
    fail "alder had to win a generation to be rid of birch"
await 5 guest_goes_on alder web || fail "the guest does not go on"
