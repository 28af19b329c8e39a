# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091
# A thousand epochs in a row by event channel (by hand EPOCHS=, ALONE= seconds
# without protection), under a load of all kinds: computing, forks, tmpfs, TCP both
# ways, xenstore transactions of user space, direct writes and reads of a disk. The kernel and the load have nothing to
# complain of, no epoch is skipped, the client loses nothing, and the guest's clocks
# drift no more than without protection.
# test-all only
. "$(dirname "$0")/../lib/scenario.sh"
. "$(dirname "$0")/../lib/fast-suspend.sh"
: "${EPOCHS:=1000}" "${ALONE:=60}"
start_from running
web_of_load 1
guest_listen alder web
guest_load alder web
client_start "$WEB" --rate 5/s # so busy a guest answers no more than some ten a second
clocks_start "$WEB"
begin=$(clocks_moment alder web) || exit 1
sleep "$ALONE"
middle=$(clocks_moment alder web) || exit 1
protect alder web birch
fast_suspend_is_used alder web
from=$(uptime_s)
await $((EPOCHS / 20 + 6)) epochs_are alder web "$EPOCHS" || fail "not $EPOCHS epochs in time"
to=$(uptime_s)
status=$(status_json alder web)
alder understudy status web
client_goes_on 20 12 || fail "the client does not go on"
end=$(clocks_moment alder web) || exit 1
clocks_end
guest_ask alder web 'grep . /sys/module/fast_suspend/stats/*'
taken=$(json epochs <<<"$status") skipped=$(json skipped <<<"$status")
counted=$(fast_suspend_count alder web count) || exit 1
# shellcheck disable=SC2086 # words are wanted
alone=$(drift $begin $middle) || fail "too few answers of the clocks alone"
# shellcheck disable=SC2086
kept=$(drift $middle $end) || fail "too few answers of the clocks under protection"
say "drift in ppm (MONOTONIC, REALTIME, may be wrong by): alone $alone; protected $kept"
say "$taken epochs in $((to - from)) s, $skipped skipped; the guest counts $counted"
guest_is_well alder web
guest_said alder web 'of another domain' && fail "a transaction was lost"
[ "$counted" -ge "$taken" ] || fail "the guest counts $counted suspends, we $taken"
[ "${skipped:-0}" = 0 ] || fail "$skipped epochs were skipped"
# (A suspend of the kernel's own shows as some 100,000 ppm of CLOCK_MONOTONIC.)
awk -v a="$alone" -v k="$kept" 'BEGIN {
    split(a, u); split(k, p); room = 10 + u[3] + p[3]
    for (c = 1; c <= 2; c++) {
        d = p[c] - u[c]
        if (d > room || d < -room) exit 1 } }' || fail "the clocks drift"
client_end || fail "an answer or the connection was lost"
