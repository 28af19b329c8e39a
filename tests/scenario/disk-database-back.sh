# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091,SC2154
# PostgreSQL there and back, over the same connections: alder's plug is pulled
# under load, birch takes over; alder returns, and birch protects the VM with it;
# birch's plug is pulled under load, and on alder is all that the clients saw
# committed, once. rest: the clients wait meanwhile, and no more is copied than
# what differs between the images; busy: they do not.
# test-all only
# moments: rest busy
. "$(dirname "$0")/../lib/scenario.sh"
. "$(dirname "$0")/../lib/fast-suspend.sh"
. "$(dirname "$0")/../lib/database.sh"
alder_is_up() { birch understudy peer list | grep -q 'alder.*up'; }
epochs_grow() { [ "$(status_of birch database epoch)" -ge "$1" ]; }
db_start_protected
db_load_start
db_goes_on 2 20
"$LAB" kill alder
say "$(committed) transactions were seen committed when alder's plug was pulled"
await 20 state_is birch database TakenOver || fail "birch did not take over"
open=$(db_regions birch)
db_goes_on 3 30
"$LAB" start alder
await 30 alder_is_up || fail "birch does not see alder"
db_goes_on 2 30
if [ "$MOMENT" = rest ]; then
    db_load_hold
    sql CHECKPOINT || fail "no checkpoint"
    guest_ask birch database sync
    crashed=$(db_regions alder) written=$(db_regions birch)
    changed=$(db_blocks_differ) || fail "the images can't be compared"
    say "$changed blocks differ; regions: $crashed on alder, on birch $open and $written now"
fi
birch understudy protect database alder --arbiter none || fail "protect on birch"
await 30 state_is birch database Protected || fail "database is not Protected on birch"
copy=$(birch 'grep -a copied= /var/log/understudyd.log | tail -n 1')
say "$copy"
read -r copied compared of < <(sed -E 's/.*copied=([0-9]+) KiB compared=([0-9]+) KiB of=([0-9]+) KiB.*/\1 \2 \3/' <<<"$copy")
if [ "$MOMENT" = rest ]; then
    [ $((copied * 10)) -le $((changed * 4 * 11 + crashed * 64 * 10)) ] ||
        fail "$copied KiB were copied for $changed blocks and $crashed regions"
    [ "$compared" -le $(((crashed + written) * 64 + 1024)) ] ||
        fail "$compared KiB were looked at for $crashed and $written regions"
    db_load_go_on
fi
[ "$compared" -lt "$of" ] || fail "the whole image was looked at"
db_goes_on 3 30
await 20 epochs_grow $(($(status_of birch database epoch) + 5)) || fail "no epochs"
"$LAB" kill birch
say "$(committed) transactions were seen committed when birch's plug was pulled"
await 20 state_is alder database TakenOver || fail "alder did not take over"
db_goes_on 3 30
[ "$(event_count alder '"TakenOver"')" = 1 ] || fail "not exactly one takeover"
db_load_end
db_is_right alder
