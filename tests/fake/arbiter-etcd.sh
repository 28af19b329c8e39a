# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091,SC2034
# Debian's etcd decides, three members of it. One of them, the leader or another,
# is killed during a takeover, or when the link is cut: one host wins and runs
# the VM; while there is a leader that is alder, which asks first, else whoever
# meets the new one first. Two are killed: nobody can know, so nobody goes on alone, until one of
# the two is back. A wrong certificate and an authority that is not the
# cluster's are refused by name.
# moments: takeover-leader takeover-member link-leader link-member two-link two-alder refusals
. "$(dirname "$0")/../lib/etcd.sh"
: "${MOMENT:=takeover-leader}"
[ "$MOMENT" != link-member ] || T=3000 # alder, which asks first, is slower then
command -v etcd >/dev/null || {
    say "no etcd (etcd-server) on this machine"
    exit 77
}
lost() { [ "$(us "$1" status web --json | jq '.[0].arbiter_up')" = false ]; }
held() {
    state_is alder web Degraded && lease_is alder web asking &&
        us alder status web | grep -q 'its output is held'
}
one_won() { record_is 2 alder true && lease_is alder web free; }
other_than() { # NUMBER
    if [ "$1" = 1 ]; then echo 2; else echo 1; fi
}
two_kill() {
    FIRST=$(leader) || fail "no leader"
    SECOND=$(other_than "$FIRST")
    member_kill "$FIRST"
    member_kill "$SECOND"
    await 8 lost alder || fail "alder does not notice"
    await 8 lost birch || fail "birch does not notice"
    said() { us alder events | grep -q 'the arbiter is lost'; }
    await 3 said || fail "no event says so"
}
takeover() { # MEMBER: it is killed as well
    local steps
    steps=$(steps_committed alder web) || fail "no epochs"
    host_die alder
    # The claim comes after T of silence, and meets a cluster that has just
    # lost a member.
    sleep "$(printf '0.%03d' $((T * 8 / 10)))"
    member_kill "$1"
    taken_over_well birch web "$steps"
    say "took over in $(status_of birch web takeover.total_ms) ms"
    await 5 record_is 2 birch true || fail "the etcd has $(record_now)"
}
case $MOMENT in refusals) etcd_make && etcd_hosts_make && guest_make alder web ;; *) etcd_protected ;; esac
case $MOMENT in
takeover-leader) takeover "$(leader)" ;;
takeover-member) takeover "$(other_than "$(leader)")" ;;
link-member)
    member_kill "$(other_than "$(leader)")"
    cable_cut link
    await 10 one_won || fail "alder did not go on alone: $(us alder status web)"
    await 5 guest_goes_on alder web || fail "the guest does not go on"
    await 5 lease_is birch web empty || fail "birch's lease is $(status_of birch web lease)"
    [ "$(state_count birch web TakenOver)" = 0 ] || fail "birch took over"
    cable_heal link
    await 20 state_is alder web Protected || fail "protection did not return"
    record_is 2 alder true || fail "the etcd has $(record_now)"
    ;;
link-leader)
    member_kill "$(leader)"
    cable_cut link
    settled() {
        if runs_free alder; then
            record_is 2 alder true && lease_is birch web empty
        else
            runs_free birch && record_is 2 birch true && state_is alder web Fenced
        fi
    }
    await 12 settled || fail "it came to $(us alder status web) and $(us birch status web)"
    holds 2 settled || fail "it did not stay so: $(us alder status web) and $(us birch status web)"
    say "generation 2 is held by $(runs_free alder && echo alder || echo birch)"
    ;;
two-link)
    two_kill
    epochs_go_on alder web || fail "protection did not go on"
    cable_cut link
    await 5 held || fail "alder is $(us alder status web)"
    holds 2 held || fail "alder does not hold out"
    await 5 guest_goes_on alder web || fail "the guest does not go on"
    [ "$(state_count birch web TakenOver)" = 0 ] || fail "birch took over"
    member_start "$FIRST"
    await 12 runs_somewhere || fail "nobody runs it"
    ;;
two-alder)
    two_kill
    steps=$(steps_committed alder web) || fail "no epochs"
    host_die alder
    await 5 lease_is birch web claiming || fail "birch is $(status_of birch web lease)"
    holds 2 lease_is birch web claiming || fail "birch does not wait: $(us birch status web)"
    [ "$(state_count birch web TakenOver)" = 0 ] || fail "birch took over"
    member_start "$SECOND"
    taken_over_well birch web "$steps"
    await 5 record_is 2 birch true || fail "the etcd has $(record_now)"
    ;;
refusals)
    refused() { # TEXT LINE
        us alder arbiter set "$2" >"$WORK/out" 2>&1 || fail "set: $(cat "$WORK/out")"
        us alder protect web birch >"$WORK/out" 2>&1 && fail "not refused: $1"
        grep -q "$1" "$WORK/out" || fail "expected '$1', it says: $(cat "$WORK/out")"
        host_is_clean alder || fail "something is left on alder"
    }
    line=$(etcd_line)
    refused "alder can't ask the arbiter.*certificate" "${line/tls\/ca.pem/tls\/stranger.pem}"
    refused "does not take this host's certificate" \
        "${line/tls\/host.pem key=$WORK\/tls\/host.key/tls\/stranger.pem key=$WORK\/tls\/stranger.key}"
    refused "not of 17" "${line/cluster=$ETCD_ID/cluster=17}"
    refused "its arbiter is" "${line/prefix=\/u\//prefix=\/other\/}"
    us alder arbiter set "${line/host.key/member.key}" >"$WORK/out" 2>&1 && fail "another's key is set"
    grep -q 'is not the one of the certificate' "$WORK/out" || fail "it says: $(cat "$WORK/out")"
    us alder arbiter set "$line" >/dev/null || fail "set"
    await 5 arbiter_is_up alder || fail "alder can't ask"
    protect_with_arbiter alder web birch
    us alder unprotect web >/dev/null || fail "unprotect"
    await 3 record_is 2 nobody || fail "alder did not leave: $(record_now)"
    ;;
esac
never_twice
