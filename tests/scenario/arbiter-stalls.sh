# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091,SC2154
# Twenty times a process stands still for up to 0.8 of the timeout, under load and
# with a witness: an agent or the daemon of either host, both of alder's at once,
# or the witness. Nobody takes over or goes on alone, the witness never has to
# decide. (Both of birch's at once are silence, and after half the timeout alder
# may do without it: that is fake/arbiter-stalls.) STALLS=N takes so many; SEED=N
# repeats the choice.
# test-all only
. "$(dirname "$0")/../lib/scenario.sh"
. "$(dirname "$0")/../lib/witness.sh"
start_from running
witness_make
protect_with_witness alder web birch
client_start "$WEB"
most=$(($(status_of alder web timeout_ms) * 8 / 10))
RANDOM=$((${SEED:=$$} % 32768))
say "seed $SEED, stalls of up to $most ms"

# On the host itself, in one line: the way there takes time.
stall() { # HOST SECONDS PID...
    on "$1" "kill -STOP ${*:3}; sleep $2; kill -CONT ${*:3}" || fail "no stall on $1"
}
daemon_of() { on "$1" cat /run/understudy/understudyd.lock; }
all_is_well() {
    client_goes_on 10 5 || fail "the service does not answer"
    await 4 state_is alder web Protected || fail "alder is $(status_of alder web state)"
    record_is 1 alder || fail "the witness has: $(witness list)"
    host_runs_web birch && fail "birch runs it"
    return 0
}
for i in $(seq "${STALLS:=20}"); do
    ms=$((RANDOM * 32768 + RANDOM))
    ms=$((most / 4 + ms % (most * 3 / 4 + 1)))
    s=$((ms / 1000)).$(printf '%03d' $((ms % 1000)))
    which=$((RANDOM % 6))
    case $which in
    0) name="alder's agent" ;;
    1) name="alder's daemon" ;;
    2) name="alder's agent and daemon" ;;
    3) name="birch's agent" ;;
    4) name="birch's daemon" ;;
    5) name="the witness" ;;
    esac
    say "$i: $name, $ms ms"
    case $which in
    0) stall alder $s "$(status_of alder web pid)" ;;
    1) stall alder $s "$(daemon_of alder)" ;;
    2) stall alder $s "$(status_of alder web pid)" "$(daemon_of alder)" ;;
    3) stall birch $s "$(status_of birch web pid)" ;;
    4) stall birch $s "$(daemon_of birch)" ;;
    5) stall outside $s "$(cat "$WITNESS_DIR/pid")" ;;
    esac
    all_is_well
done
[ "$(event_count birch 'asking for generation')" = 0 ] || fail "birch asked"
[ "$(event_count birch '"TakenOver"')" = 0 ] || fail "birch took over"
say "events on alder: $(event_count alder '"Degraded"') Degraded," \
    "$(event_count alder 'asking for generation') claims"
client_end || fail "an answer or the connection was lost"
