# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091,SC2034
# A medium returns EIO, on one host: what fails is said by name, the guest goes
# on where it can, nothing is taken over by mistake, and as soon as the medium is
# good again the VM is protected, and taken over right.
# moments: copy compare apply sync journal local-read local-write local-sync local-verify
. "$(dirname "$0")/../lib/disk.sh"
: "${MOMENT:=apply}"
"${CC:-cc}" -shared -fPIC -o "$WORK/badmedium.so" "$TOP/tests/fake/badmedium.c" ||
    fail "no compiler"
disk_images_make
bad=birch file=/web.img what='write'
case $MOMENT in
compare) what='read' ;;
sync) what='sync' ;;
journal) file=.journal ;;
local-write) bad=alder ;;
local-sync) bad=alder what='sync' ;;
local-*) bad=alder what='read' ;;
esac
switch=$WORK/switch
sed -i "2i export LD_PRELOAD=$WORK/badmedium.so ASAN_OPTIONS=verify_asan_link_order=0 BADMEDIUM_SWITCH=$switch BADMEDIUM_FILE=$bad$file" \
    "$WORK/$bad/hv/devices"
[ "$MOMENT" != journal ] || sed -i "s/BADMEDIUM_FILE=birch/BADMEDIUM_FILE=/" "$WORK/birch/hv/devices"
breaks() { echo $what >"$switch"; }
mended() { rm "$switch"; }
void() { grep -q "event=void.*$1" "$WORK/alder.log" "$WORK/birch.log"; }
again() { [ "$(state_count alder web Protected)" -ge 2 ]; }
hosts_make
disk_guest_make alder web 2000 10000 # a hundred steps a second
case $MOMENT in
copy | compare | local-read) # before it is protected
    breaks
    us alder protect web birch --arbiter none >"$WORK/out" 2>&1 && fail "protected"
    grep -q '\(read\|write\|zero\) .*web.img at .*: Input/output error' "$WORK/out" || fail "it says $(cat "$WORK/out")"
    await 10 vm_is_unknown alder web || fail "alder still knows it"
    await 5 disk_goes_on alder web || fail "the guest does not write"
    mended
    await 10 host_is_clean birch || fail "something is left on birch"
    protect alder web birch
    ;;
local-verify) # what only looks at the medium harms nobody
    protect alder web birch
    breaks
    us alder disk verify web >"$WORK/out" 2>&1 && fail "compared"
    grep -q 'not compared to the end:.*Input/output error' "$WORK/out" || fail "it says $(cat "$WORK/out")"
    mended
    us alder disk verify web >"$WORK/out" || fail "it says $(cat "$WORK/out")"
    [ "$(event_count alder 'event=void')" = 0 ] || fail "the replica was void"
    ;;
*)
    protect alder web birch
    breaks
    case $MOMENT in
    local-write) await 10 void '51712: its image could not be written here' ;;
    local-sync) # heard when the bitmap has it synced, twice a minute
        await 45 void '51712: its image could not be synced here' ;;
    *) await 10 void 'Input/output error' ;;
    esac || fail "nobody says it"
    if [ "$MOMENT" = local-write ]; then # its own disk is broken, and says so
        await 5 grep -q 'Input/output error' "$WORK/guest.err" || fail "the guest is told nothing"
        await 5 guest_goes_on alder web || fail "the guest does not go on"
    else
        await 5 disk_goes_on alder web || fail "the guest does not write"
        [ ! -s "$WORK/guest.err" ] || fail "the guest saw $(cat "$WORK/guest.err")"
    fi
    [ "$(state_count birch web TakenOver)" = 0 ] || fail "birch took over"
    mended
    await 30 again || fail "protection did not return"
    : >"$WORK/guest.err"
    ;;
esac
await 10 disk_goes_on alder web || fail "the guest does not write"
[ "$MOMENT" = local-write ] || [ ! -s "$WORK/guest.err" ] || fail "the guest saw $(cat "$WORK/guest.err")"
us alder disk verify web >"$WORK/out" || fail "a difference: $(cat "$WORK/out")"
: >"$WORK/guest.err"
steps=$(steps_committed alder web) || fail "no epochs"
disk_host_die alder
disk_taken_over_well birch web "$steps"
