# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091,SC2154
# Somebody opens connections to both hosts and says nothing on them, always
# more than may shake hands at a time: peers find each other all the same, and
# the log does not grow with every one of them.
. "$(dirname "$0")/../lib/fake.sh"
hosts_make
guest_make alder web
await 5 peer_is_up birch alder || fail "no peer"
idle() { # PORT: 150 connections that begin as a host's does, in turns
    local i n fds=()
    for i in $(seq 1500); do
        exec {fd}<>"/dev/tcp/127.0.0.1/$1" || { sleep 0.05; continue; }
        printf 'UNDRSTDY\1\0\1\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0' >&"$fd"
        fds+=("$fd")
        [ ${#fds[@]} -le 150 ] || {
            n=${fds[0]}
            exec {n}>&-
            fds=("${fds[@]:1}")
        }
        [ $((i % 50)) != 0 ] || sleep 0.2
    done
}
idle "${PORT[alder]}" 2>/dev/null &
idlers=($!)
idle "${PORT[birch]}" 2>/dev/null &
idlers+=($!)
sleep 1
kill -9 "$(daemon_pid birch)"
daemon_start birch
await 5 peer_is_up birch alder || fail "birch does not find alder"
await 5 peer_is_up alder birch || fail "alder does not find birch"
protect alder web birch
state_is alder web Protected || fail "not Protected"
for host in alder birch; do
    lines=$(grep -cv 'epoch=\|state of step' "$WORK/$host.log")
    say "$host logged $lines lines"
    [ "$lines" -lt 150 ] || fail "the log of $host grows with every stranger"
done
kill "${idlers[@]}" 2>/dev/null # or they go on trying dead hosts
exit 0
