# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091,SC2016,SC2154
# The backup's agent hangs (SIGSTOP): the guest is never frozen by it, its output
# is held until alder goes on alone after T, and birch, when it wakes, does not
# take over. The guest sends a datagram each millisecond; the largest gap between
# them is taken on its vif in dom0, before the redirect, and what each is held for
# until it leaves dom0 apart from that. One suspends as stock Linux does it, one by
# event channel.
# moments: xenstore fast
. "$(dirname "$0")/../lib/scenario.sh"
start_from running
deadline=2000 extra=
if [ "$MOMENT" = fast ]; then
    deadline=1000 extra=fast_suspend=1
fi
alder "printf 'suspend_xenstore_ms=2000\n' >>/etc/understudy/understudyd.conf
    xl destroy web && sed 's|^extra = \"|&tick=10.0.5.100:7002 $extra |' \
    /srv/guest/web.cfg >/srv/web.cfg && xl create -q /srv/web.cfg" ||
    fail "xl create web"
await 12 guest_serves "$WEB" || fail "web does not answer"
# Somebody has to listen, or the guest is told that nobody does.
"$LAB" run outside sh -c "echo \$\$ >$WORK/listener; \
    exec $("$LAB" tools)/tick-listen 7002" >/dev/null &
trap 'kill "$(cat "$WORK/listener")"; scenario_exit' EXIT
protect alder web birch
client_start "$WEB"

# --- The captures ------------------------------------------------------------------

tap() { # INTERFACE FILE
    alder "cd /tmp; tcpdump -n -Z root -B 8192 -s 96 -U -i $1 -w $2 \
        udp dst port 7002 2>$2.log </dev/null >/dev/null & echo \$! >$2.pid"
    await 6 alder grep -q listening "/tmp/$2.log" || fail "no capture of $1"
}
tap_end() { # FILE
    alder "kill \$(cat /tmp/$1.pid)"
    await 6 alder grep -q 'dropped by kernel' "/tmp/$1.log" || fail "no end of $1"
    alder grep -q '^0 packets dropped by kernel' "/tmp/$1.log" ||
        fail "the capture $1 lost packets"
    alder cat "/tmp/$1" >"$WORK/$1.pcap"
    datagrams "$WORK/$1.pcap" >"$WORK/$1"
}
dom0_time() { alder 'echo $EPOCHREALTIME'; }
largest_gap_ms() { # FROM TO: also one that begins before, or ends after
    awk -v from="$1" -v to="$2" '
        last && $1 >= from && last <= to && $1 - last > gap { gap = $1 - last }
        { last = $1 } END { printf "%d", gap * 1000 }' "$WORK/sent"
}
# Of the datagrams that were sent between FROM and TO: how many, how many of them
# did not leave, and the median and the most that one was held, in ms.
held_ms() { # FROM TO
    awk -v from="$1" -v to="$2" '
        NR == FNR { if (!($2 in left)) left[$2] = $1; next }
        $1 >= from && $1 <= to { if ($2 in left) print (left[$2] - $1) * 1000
            else lost++; n++ }
        END { print n + 0, lost + 0 >"/dev/stderr" }' \
        "$WORK/left" "$WORK/sent" 2>"$WORK/count" | sort -g |
        awk '{ v[NR] = $1 } END { printf "%d %d ", v[int((NR + 1) / 2)], v[NR] }'
    cat "$WORK/count"
}

tap "vif$(alder xl domid web).0" sent
tap public left
T=$(status_of alder web timeout_ms)
began=$(dom0_time)
client_goes_on 200 20 || fail "the guest does not go on"
pid=$(status_of birch web pid)
hung=$(dom0_time)
birch kill -STOP "$pid" || fail "no agent on birch"
await 12 state_is alder web Degraded || fail "alder is not Degraded"
alone=$(dom0_time)
client_goes_on 60 10 || fail "the guest does not go on"
birch kill -CONT "$pid"
await 60 state_is alder web Protected || fail "protection did not return"
[ "$(event_count birch '"TakenOver"')" = 0 ] || fail "birch took over"
client_end || fail "an answer or the connection was lost"
tap_end sent
tap_end left

# --- What they saw -----------------------------------------------------------------

usual=$(largest_gap_ms "$began" "$hung")
gap=$(largest_gap_ms "$hung" "$alone")
say "largest gap while protected $usual ms, while the backup hung $gap ms;" \
    "the suspend's deadline is $deadline ms"
# What is sent shortly before the agent hangs is held with the rest.
read -r median most sent lost < <(held_ms "$began" \
    "$(awk -v h="$hung" 'BEGIN { printf "%f", h - 2 }')")
say "held while protected: median $median ms, at most $most ms" \
    "($sent datagrams, $lost lost)"
[ "$sent" -gt 100 ] && [ "$lost" = 0 ] || fail "the captures don't fit"
read -r median most sent lost < <(held_ms "$hung" "$alone")
say "held while the backup hung: median $median ms, at most $most ms" \
    "($sent datagrams, $lost lost); T is $T ms"
[ "$sent" -gt 100 ] && [ "$lost" = 0 ] || fail "the captures don't fit"
[ "$gap" -le $((deadline + 200 * SCALE)) ] || fail "the guest was frozen"
[ "$most" -le $((T + T / 2)) ] || fail "output was held for too long"
[ "$most" -ge $((T / 4)) ] || fail "output was not held"
