# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091,SC2034
# Two hosts with two paths between them: one lost is a warning and nothing else;
# with the replication link lost the backup knows that the other host lives, and
# asks for nothing; with both lost it takes over.
. "$(dirname "$0")/../lib/arbiter.sh"
cables_of() {
    case $1 in
    link) echo alder-birch birch-alder ;;
    second) echo alder-birch-2 birch-alder-2 ;;
    *) echo "$1" ;;
    esac
}
second() { # HOST PEER: ADDRESS
    echo "127.0.0.1:${CABLE[$1-$2-2]}"
}
T=3000
three_make
for pair in alder:birch birch:alder; do
    host=${pair%:*} peer=${pair#*:}
    cable_make "$host-$peer-2" "${PORT[$peer]}"
    us "$host" peer path add "$peer" "$(second "$host" "$peer")" || fail "path add on $host"
done

say "== what is refused =="
refused() { # TEXT ARGUMENT...
    local text=$1 out
    shift
    out=$(us alder peer path "$@" 2>&1) && fail "not refused: $*"
    grep -q "$text" <<<"$out" || fail "says: $out"
}
refused 'is a path to birch already' add birch "$(second alder birch)"
refused 'is where birch is replicated' remove birch "127.0.0.1:${CABLE[alder-birch]}"
refused 'is no path to birch' remove birch 127.0.0.1:1
refused 'no peer named oak' add oak 127.0.0.1
refused 'is not a port' add birch 127.0.0.1:0

guest_make alder web
protect_with_arbiter alder web birch
watch_start
paths_are() { # HOST TEXT: "true true", of the two heartbeat paths
    [ "$(us "$1" status web --json |
        jq -r '[.[0].paths[] | select(.path == "heartbeat") | .up] | join(" ")')" = "$2" ]
}
for host in alder birch; do
    await 5 paths_are $host 'true true' || fail "paths of $host: $(us $host status web)"
done

say "== the second path is cut =="
cable_cut second
for host in alder birch; do
    await 5 paths_are $host 'true false' || fail "$host shows its paths as fine"
    await 5 event_count $host 'event=path-down warning: ' || fail "$host tells nothing"
    us $host status | grep -q 'warning: heartbeat path 127.0.0.1:[0-9]* of .* is down, heard' ||
        fail "no warning on $host: $(us $host status)"
    us $host status >/dev/null || fail "$host: exit status $?"
done
epochs_go_on alder web || fail "no epochs"
[ "$(event_count alder 'paths that are left: 1')" = 1 ] || fail "$(us alder events)"
cable_heal second
for host in alder birch; do
    await 15 paths_are $host 'true true' || fail "the path of $host does not come back"
    await 5 event_count $host 'event=path-up' || fail "$host does not tell that it is back"
done
[ "$(state_count alder web Degraded)$(event_count birch 'asking for generation')" = 00 ] ||
    fail "one path lost did something"

say "== the replication link is cut: birch hears alder on the second path =="
cable_cut link
await 10 state_is alder web Degraded || fail "alder does not go on alone"
await 5 runs_free alder || fail "alder releases nothing"
nothing_of_birch() { [ "$(event_count birch 'asking for generation')" = 0 ]; }
holds $((5 * T / 1000)) nothing_of_birch || fail "birch asked, and hears alder"
record_is 2 alder || fail "generation $(record generation) of $(record holder)"
paths_are birch 'false true' || fail "birch: $(us birch status web)"
us birch status web | grep -q '^  replication: *down' || fail "birch: $(us birch status web)"
cable_heal link
await 30 state_is alder web Protected || fail "not Protected again"

say "== a daemon that was stopped finds its paths again =="
kill -KILL "$(daemon_pid birch)"
daemon_start birch
await 10 paths_are birch 'true true' || fail "the new daemon has no paths"
await 10 paths_are alder 'true true' || fail "alder does not find birch again"
await 30 state_is alder web Protected || fail "not Protected after a daemon's end"

say "== a path is forgotten, and known again =="
us alder peer path remove birch "$(second alder birch)" || fail "path remove"
[ "$(us alder peer list --json | jq '.[0].paths | length')" = 1 ] || fail "$(us alder peer list)"
us alder peer path add birch "$(second alder birch)" || fail "path add again"
await 5 paths_are alder 'true true' || fail "it is not used again"

say "== alder dies =="
steps=$(steps_committed alder web)
host_die alder
taken_over_well birch web "$steps"
never_twice
