# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091,SC2031
# alder's clock is twenty years late, birch's twenty years early: keys, protect,
# takeover and the return are as ever. Nothing compares the time of day.
. "$(dirname "$0")/../lib/arbiter.sh"
"${CC:-cc}" -shared -fPIC -o "$WORK/clock.so" "$TOP/tests/fake/clock.c" ||
    fail "no compiler"
declare -A SHIFT=([alder]=-631152000 [birch]=631152000)
eval "plainly_$(declare -f on)"
on() { # HOST COMMAND...
    CLOCK_SHIFT_S=${SHIFT[$1]} LD_PRELOAD=$WORK/clock.so \
        ASAN_OPTIONS=verify_asan_link_order=0 plainly_on "$@"
}
year() { on "$1" date +%Y; }
three_protected
say "alder's year is $(year alder), birch's $(year birch)"
[ $(($(year birch) - $(year alder))) = 40 ] || fail "the clocks are not apart"
epochs_go_on alder web || fail "no epochs"
steps=$(steps_committed alder web) || fail "no epochs"
host_die alder
taken_over_well birch web "$steps"
await 5 record_is 2 birch true || fail "the witness has $(witness list)"
total=$(status_of birch web takeover.total_ms)
[ "$total" -ge $((T / 2)) ] && [ "$total" -lt $((T + 2000)) ] || fail "took over after $total ms"
guest_run alder web
daemon_start alder
await 10 state_is alder web Fenced || fail "alder is $(status_of alder web state)"
await 5 guest_goes_on birch web || fail "birch's guest does not go on"
never_twice
