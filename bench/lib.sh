# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091,SC2016,SC2034,SC2154
#
# What the lab's benchmarks share: a guest that sends a datagram each
# millisecond, what its vif and the link show of it in a window, Understudy and
# `xl remus` beside each other, and a table of medians. They set `round`, `what`,
# `results`, `interval` and `seconds`, and start with bench_begin.
. "$(dirname "$0")/../tests/lib/scenario.sh"
valid=yes

# --- The guest -----------------------------------------------------------------

guest_new() { # VCPUS [WORD...]
    local vcpus=$1
    shift
    alder "sed 's|^extra = \"|&tick=10.0.5.100:7002 $* |; s|^vcpus.*|vcpus = $vcpus|' \
        /srv/guest/web.cfg >/tmp/bench.cfg && xl create -q /tmp/bench.cfg" ||
        fail "xl create"
    await 20 guest_serves "$WEB" || fail "web does not answer"
    domid=$(alder xl domid web) || fail "no web"
    control=/local/domain/$domid/control/shutdown
}

# Some epochs have passed: each writes this key twice, the request and the
# guest's answer to it.
key_changes() {
    alder timeout $((20 * SCALE)) xenstore-watch -n 9 "$control" >/dev/null
}

# --- One window ------------------------------------------------------------------

# In alder's dom0, by its clock: leaves /tmp/bench/ with the packets, the times
# at which the key changed, those at which Xen told Understudy that the guest had
# suspended (the interrupt of its event channel), and of both ends Understudy's
# status and the number of checkpoints in xl's log. The file `window`: ASKED START
# END ANSWERED BYTES, the status was asked for at ASKED and came at ANSWERED.
window() { # SECONDS
    alder bash -s -- "$domid" "$control" "$1" <<'DOM0'
mkdir -p /tmp/bench && cd /tmp/bench && rm -f -- * || exit 1
link_bytes() {
    local rx tx
    read -r rx </sys/class/net/replication/statistics/rx_bytes
    read -r tx </sys/class/net/replication/statistics/tx_bytes
    echo $((rx + tx))
}
accounts() { # start | end
    understudy status web --json >"status.$1" 2>/dev/null
    grep -c 'Domain now suspended' /tmp/bench.log >"log.$1" 2>/dev/null
}
trace=/sys/kernel/tracing
[ -e $trace/trace ] || mount -t tracefs tracefs $trace || exit 1
echo mono >$trace/trace_clock
echo 8192 >$trace/buffer_size_kb
echo 'name == "evtchn:understudyd"' >$trace/events/irq/irq_handler_entry/filter
echo 1 >$trace/events/irq/irq_handler_entry/enable
echo >$trace/trace
# its clock against ours
for ((i = 0; i < 5; i++)); do echo "now $EPOCHREALTIME" >$trace/trace_marker; done
tcpdump -n -Z root -B 8192 -s 96 -i "vif$1.0" -w packets \
    udp dst port 7002 2>tcpdump.log &
tap=$!
mkfifo watched
xenstore-watch "$2" >watched &
watch=$!
while read -r _; do echo "$EPOCHREALTIME"; done <watched >changes &
trap 'kill $tap $watch' EXIT
for ((i = 0; i < 100; i++)); do
    grep -q listening tcpdump.log && [ -s changes ] && break
    sleep 0.1
done
asked=$EPOCHREALTIME
accounts start
start=$EPOCHREALTIME bytes=$(link_bytes)
sleep "$3"
end=$EPOCHREALTIME bytes=$(($(link_bytes) - bytes))
accounts end
answered=$EPOCHREALTIME
# A guest that stands still at the end stands still until it sends again.
vif=/sys/class/net/vif$1.0/statistics/rx_packets
read -r sent <$vif
for ((i = 0; i < 600; i++)); do
    read -r now <$vif
    [ "$now" = "$sent" ] || break
    sleep 0.1
done
sleep 2 # what the kernel has seen reaches tcpdump a second later
echo 0 >$trace/events/irq/irq_handler_entry/enable
cp $trace/trace trace
trap - EXIT
kill "$tap" "$watch"
wait
rm watched
echo "$asked $start $end $answered $bytes" >window
DOM0
}

# Two changes of the key are an epoch, and an epoch has one stall: the longest gap
# that has its middle there. The guest answers before it stands still, so any
# change will do to tell epochs apart, but its first datagram afterwards may come
# when the next epoch was asked for already.
stalls() {
    awk -v start="$start" -v end="$end" '
        NR == FNR { if ($1 > start && $1 < end && n++ % 2 == 0) epoch[++epochs] = $1
            next }
        { middle = $1 - $2 / 2000 }
        at < epochs && middle >= epoch[at + 1] { if (at++) print gap; gap = 0 }
        at < epochs && $2 > gap { gap = $2 }' "$WORK/changes" "$WORK/gaps"
}

# The times at which the guest had suspended for Understudy: the least offset that
# was seen is the right one.
suspends() {
    awk '{ for (i = 1; i <= NF; i++) if ($i ~ /^[0-9]+[.][0-9]+:$/) { t = $i + 0; break } }
        / now [0-9.]+$/ { o = $NF - t; if (!n++ || o < offset) offset = o; next }
        /evtchn:understudyd/ { printf "%.6f\n", t + offset }' "$WORK/trace"
}
# At that moment the guest stands still: the gap around it is the epoch's stall.
stalls_around() { # FILE OF TIMES
    awk -v start="$start" -v end="$end" '
        NR == FNR { if ($1 > start && $1 < end) at[++n] = $1; next }
        { from = $1 - $2 / 1000
          while (i < n && at[i + 1] < from) i++
          if (i < n && at[i + 1] <= $1) { print $2; while (i < n && at[i + 1] <= $1) i++ } }' \
        "$1" "$WORK/gaps"
}

invalid() { # WHY
    say "INVALID: round $round, $what: $*"
    valid=no
}
quantile() { # FILE Q
    sort -g "$1" | awk -v q="$2" '{ v[NR] = $1 }
        END { print NR ? v[1 + int(q * (NR - 1) + 0.5)] : "-" }'
}
put() { # METRIC VALUE
    printf '%d\t%s\t%s\t%s\n' "$round" "$what" "$1" "$2" >>"$results"
}
per() { # NUMBER DIVISOR
    awk -v a="$1" -v b="$2" 'BEGIN { print b ? a / b : "-" }'
}

# What the tap saw has to be what the guest sent: in the window, each datagram
# once. Before it the capture only gets going.
check_datagrams() {
    grep -q '^0 packets dropped by kernel' "$WORK/tcpdump.log" ||
        invalid "the tap lost packets: $(tail -n 1 "$WORK/tcpdump.log")"
    awk -v start="$start" -v end="$end" '
        last && time >= start && $1 <= end && $2 != last + 1 {
            if ($2 > last) lost += $2 - last - 1; else again++
            where = where sprintf(" %.1f", $1 - start) }
        { time = $1; last = $2 }
        END { printf "%d not seen, %d again, at%s s; the last at %.1f s\n",
            lost, again, where, time - start
            exit time < end || lost || again }' \
        "$WORK/datagrams" >"$WORK/check" ||
        invalid "datagrams on the tap: $(cat "$WORK/check")"
}

own_count() { # KEY: how much it grew
    echo $(($(json "$1" <"$WORK/status.end") - $(json "$1" <"$WORK/status.start")))
}
changes() { # START END: of the key, two an epoch
    awk -v s="$1" -v e="$2" '$1 > s && $1 < e { n++ }
        END { print int(n / 2) }' "$WORK/changes"
}
# A window: sets asked, start, end, answered, bytes, taken; leaves in $WORK all that
# window() found, and the gaps between datagrams, with the time of their ends (gaps)
# and without (gaps.ms).
window_take() { # SECONDS
    window "$1" || fail "$what: no window"
    alder 'tar -c -C /tmp/bench .' </dev/null | tar -x -C "$WORK" ||
        fail "$what: no results of the window"
    read -r asked start end answered bytes <"$WORK/window"
    taken=$(awk -v s="$start" -v e="$end" 'BEGIN { print e - s }')
    datagrams "$WORK/packets" >"$WORK/datagrams"
    check_datagrams
    awk -v s="$start" -v e="$end" 'last && last >= s && $1 <= e {
        printf "%s %.3f\n", $1, ($1 - last) * 1000 } { last = $1 }' \
        "$WORK/datagrams" >"$WORK/gaps"
    cut -d' ' -f2 "$WORK/gaps" >"$WORK/gaps.ms"
}
put_stalls() { # after stalls, in their file
    put stall_median_ms "$(quantile "$WORK/stalls" 0.5)"
    put stall_p99_ms "$(quantile "$WORK/stalls" 0.99)"
    put stalled_percent "$(awk -v t="$taken" '{ ms += $1 }
        END { print NR ? ms / 10 / t : "-" }' "$WORK/stalls")"
}
put_own() {
    local key epochs
    epochs=$(own_count epochs)
    put own_epochs "$epochs"
    put own_bytes_epoch "$(per "$(own_count bytes_sent)" "$epochs")"
    for key in pause suspend copy state mark resume; do
        put own_${key}_ms \
            "$(per "$(json ${key}_us.median <"$WORK/status.end")" 1000)"
    done
}

# --- The two -----------------------------------------------------------------------

understudy_run() { # WHAT [OPTION...]
    local as=$1
    shift
    alder understudy protect web birch --arbiter none \
        --interval "${interval}ms" "$@" >"$WORK/protect" 2>&1 ||
        fail "protect: $(cat "$WORK/protect")"
    await 60 epochs_grow 4 || fail "understudy takes no epochs"
    measure "$as" "$seconds"
    alder understudy unprotect web || fail "unprotect"
}
epochs_grow() { # N
    [ "$(status_of alder web epochs)" -ge "$1" ]
}

remus_run() {
    birch 'setsid socat -b 262144 TCP-LISTEN:9000,reuseaddr \
        EXEC:"xl migrate-receive -r" </dev/null >/tmp/bench.log 2>&1 &
        echo $! >/tmp/bench.pid'
    alder "setsid xl remus -F -n -d -i $interval -s '' web \
        'socat -b 262144 - TCP:birch:9000,retry=50,interval=0.2' \
        </dev/null >/tmp/bench.log 2>&1 &
        echo \$! >/tmp/bench.pid"
    key_changes || {
        alder cat /tmp/bench.log
        birch cat /tmp/bench.log
        fail "xl remus takes no checkpoints"
    }
    measure xl-remus "$seconds"
    remus_end
}

# The receiver first, and by force: at the end of its stream it would start its copy.
remus_end() {
    local host
    for host in birch alder; do
        on $host '[ ! -s /tmp/bench.pid ] ||
            kill -KILL -- -"$(cat /tmp/bench.pid)"; rm -f /tmp/bench.pid' </dev/null
    done 2>/dev/null
    alder 'xl destroy web' 2>/dev/null
    birch 'xl destroy web--incoming' 2>/dev/null
}
only_dom0() { # HOST
    [ "$(on "$1" xl list </dev/null | wc -l)" = 2 ]
}

# --- The table -----------------------------------------------------------------------

column() { # WHAT METRIC
    awk -v what="$1" -v metric="$2" \
        '$2 == what && $3 == metric && $4 != "-" { print $4 }' "$results" \
        >"$WORK/column"
}
ratios() { # METRIC A B: of A to B, round by round
    awk -v metric="$1" -v a="$2" -v b="$3" '$3 == metric { v[$2, $1] = $4; if ($1 > n) n = $1 }
        END { for (i = 1; i <= n; i++) if (v[b, i] > 0)
            print v[a, i] / v[b, i] }' "$results" >"$WORK/column"
}
cell() { # DIVISOR Q WIDTH DIGITS
    local value
    value=$(quantile "$WORK/column" "$2")
    [ "$value" = - ] || value=$(awk -v v="$value" -v d="$1" -v n="$4" \
        'BEGIN { printf "%.*f", n, v / d }')
    printf "%$3s" "$value"
}
# A line of the table: a column for each of $columns, and the ratio of the two in
# $compared.
row() { # TEXT METRIC [DIVISOR [Q]]
    local compared_a compared_b
    printf '%-42s' "$1"
    for what in $columns; do
        column "$what" "$2"
        cell "${3:-1}" "${4:-0.5}" 12 1
    done
    read -r compared_a compared_b <<<"$compared"
    ratios "$2" "$compared_a" "$compared_b"
    cell 1 0.5 10 3
    echo
}

# --- The run -------------------------------------------------------------------------

bench_exit() {
    remus_end
    alder 'understudy unprotect web; xl destroy web; rm -rf /tmp/bench*' >/dev/null 2>&1
    birch 'rm -f /tmp/bench*' </dev/null
    kill "$(cat "$WORK/listener")"
    scenario_exit
}
bench_begin() {
    guest_answers 10.0.5.1 >/dev/null || fail "the lab is not up: make lab"
    only_dom0 alder && only_dom0 birch || fail "there are VMs in the lab already"
    printf 'round\twhat\tmetric\tvalue\n' >"$results"
    # Somebody has to listen, or the guest is told that nobody does.
    "$LAB" run outside sh -c "echo \$\$ >$WORK/listener; \
        exec $("$LAB" tools)/tick-listen 7002" >/dev/null &
    trap bench_exit EXIT
}
both_are_clean() {
    local host
    for host in alder birch; do
        await 3 only_dom0 $host || fail "$host is not clean"
    done
}
