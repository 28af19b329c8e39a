# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC1091,SC2016,SC2154
#
# For the lab's scenarios disk-database*, beside scenario.sh and fast-suspend.sh:
# a guest `database` with PostgreSQL on a disk of block-understudy and the
# fast-suspend module, and outside clients that note what they saw committed,
# with pgbench beside them.
DATABASE=10.0.5.13
DB_IMAGE=/srv/database.img
DB_CLIENTS=3
DB=$WORK/database
DB_DIR=$("$LAB" database) || fail "no database image"

sql() { # STATEMENT
    "$LAB" run outside "$DB_DIR/bin/psql" -X -q -A -t -v ON_ERROR_STOP=1 \
        -h $DATABASE -U postgres -c "$1"
}
db_says() { # HOST REGEX: its console, also when it was taken over
    guest_log "$1" database | grep -aE -- "$2"
}

# --- Starting point -----------------------------------------------------------

# The guest boots on alder; birch has a disk of the same size and nothing on it.
# Made once, then a snapshot.
db_start_protected() {
    if "$LAB" status | grep -qw running-database; then
        start_from running-database
    else
        db_prepare
        "$LAB" save running-database || fail "no snapshot of it"
    fi
    await 6 state_is alder database Protected || fail "database is not Protected"
    await 3 sql 'SELECT 1' || fail "the database does not answer"
    guest_listen alder database
    fast_suspend_is_used alder database
}
db_prepare() {
    local begin=$SECONDS
    start_from running
    alder "zstd -q -d -f -o $DB_IMAGE && sync" <"$DB_DIR/database.img.zst" ||
        fail "no image on alder"
    birch "truncate -s $(alder stat -c %s $DB_IMAGE) $DB_IMAGE"
    say "the image is there after $((SECONDS - begin)) s"
    alder xl create -q /srv/guest/database.cfg || fail "xl create database"
    await 12 guest_serves $DATABASE || fail "the guest does not answer"
    await 12 sql 'SELECT 1' || fail "the database does not answer"
    begin=$SECONDS
    on alder understudy protect database birch --arbiter none ||
        fail "protect database"
    await 20 state_is alder database Protected || fail "database is not Protected"
    say "protected after $((SECONDS - begin)) s: $(alder 'grep copied= /var/log/understudyd.log')"
}

# --- Clients --------------------------------------------------------------------

outside_start() { # NAME CMD...: its pid is in $DB/NAME.pid
    local name=$1
    shift
    "$LAB" run outside sh -c 'echo $$ >"$0"; exec "$@"' "$DB/$name.pid" "$@" \
        >"$DB/$name.log" 2>&1 &
}
db_load_start() {
    local n
    mkdir "$DB"
    outside_start pgbench "$DB_DIR/bin/pgbench" -h $DATABASE -U postgres -n \
        -c 1 -T 3000 -P 5 postgres
    await 12 pgbench_commits 1 || fail "pgbench gets nothing done: $(db_failures)"
    for n in $(seq $DB_CLIENTS); do
        outside_start "client$n" bash "$TOP/tests/lib/database_client.sh" \
            "$DB_DIR/bin/psql" $DATABASE "$n" "$DB"
    done
    await 12 all_committed 1 || fail "the clients get no answers: $(db_failures)"
}
pgbench_commits() { # AT-LEAST
    [ "$(sql "SELECT count(*) >= $1 FROM pgbench_history")" = t ]
}
db_failures() { cat "$DB"/failed.* "$DB"/*.log 2>/dev/null; }
committed() { cat "$DB"/ledger.* | wc -l; }
all_committed() { # AT-LEAST: by each of them
    local n
    for n in $(seq $DB_CLIENTS); do
        [ "$(cat "$DB/ledger.$n" 2>/dev/null | wc -l)" -ge "$1" ] || return 1
    done
}
# Each of the clients commits N more from now on, pgbench some, and none has lost
# anything. After a takeover a connection may wait as long again as the guest was
# away: TCP's retransmissions get rarer.
db_goes_on() { # N SECONDS
    local n most=0 have
    for n in $(seq $DB_CLIENTS); do
        have=$(wc -l <"$DB/ledger.$n")
        [ "$have" -le $most ] || most=$have
    done
    await "$2" all_committed $((most + $1)) || fail "clients do not go on: $(db_failures)"
    ! cat "$DB"/failed.* 2>/dev/null || fail "a client saw an error"
    n=$(sql 'SELECT count(*) FROM pgbench_history') || fail "the database does not answer"
    await "$2" pgbench_commits $((n + 1)) || fail "pgbench does not go on: $(tail "$DB/pgbench.log")"
    kill -0 "$(<"$DB/pgbench.pid")" || fail "pgbench has ended: $(tail "$DB/pgbench.log")"
}
db_clients_held() { [ "$(find "$DB" -name 'held.*' | wc -l)" = $DB_CLIENTS ]; }
db_clients_gone() {
    local n
    for n in $(seq $DB_CLIENTS); do
        ! kill -0 "$(<"$DB/client$n.pid")" 2>/dev/null || return 1
    done
}
# Nobody writes but the database itself; connections stay.
db_load_hold() {
    touch "$DB/hold"
    kill -STOP "$(<"$DB/pgbench.pid")"
    await 6 db_clients_held || fail "the clients do not rest: $(db_failures)"
}
db_load_go_on() {
    rm "$DB/hold"
    kill -CONT "$(<"$DB/pgbench.pid")"
}
# The clients finish what they have begun. The longest time in which none of them
# saw a commit is how long the database was away.
db_load_end() {
    touch "$DB/end"
    await 12 db_clients_gone || fail "the clients do not end: $(db_failures)"
    ! cat "$DB"/failed.* 2>/dev/null || fail "a client saw an error"
    kill -TERM "$(<"$DB/pgbench.pid")" || fail "pgbench has ended: $(tail "$DB/pgbench.log")"
    ! grep -iE 'error|abort|fatal' "$DB/pgbench.log" || fail "pgbench saw an error"
    cat "$DB"/ledger.* | sort -k 4 | awk '$4 - last > most && NR > 1 { most = $4 - last }
        NR == 1 { first = $4 } { last = $4 } END {
        printf "%d transactions in %.1f s, longest gap %.1f s\n", NR, last - first, most }'
}

# --- What has to hold -------------------------------------------------------------

# A transaction of pgbench adds the same to an account, a teller, the branch and the
# history.
db_pgbench_is_whole() {
    local sums
    sums=$(sql 'SELECT (SELECT sum(abalance) FROM pgbench_accounts),
        (SELECT sum(tbalance) FROM pgbench_tellers), sum(bbalance),
        (SELECT coalesce(sum(delta), 0) FROM pgbench_history) FROM pgbench_branches')
    awk -F'|' 'NF != 4 || $1 != $2 || $1 != $3 || $1 != $4 { exit 1 }' <<<"$sums" ||
        fail "pgbench's sums differ: $sums; $(tail -n 20 "$DB/pgbench.log")"
}
# On HOST, after the load's end: what the clients saw is there, once, and nothing
# else; transactions are whole; PostgreSQL finds its pages in order, read from this
# host's image; and nobody saw an error.
db_is_right() { # HOST
    sort -k 1n -k 2n <(cut -d ' ' -f 1-3 "$DB"/ledger.*) >"$DB/want"
    sql "COPY (SELECT * FROM ledger ORDER BY client, seq) TO STDOUT (DELIMITER ' ')" \
        >"$DB/have" || fail "the ledger can't be read"
    cmp "$DB/want" "$DB/have" || fail "the ledger differs: $(diff "$DB/want" "$DB/have" | head)"
    [ "$(sql 'SELECT sum(seq) FROM total')" = "$(wc -l <"$DB/want")" ] ||
        fail "a transaction is not whole"
    db_pgbench_is_whole
    say "$(wc -l <"$DB/want") transactions of ours, $(sql 'SELECT count(*) FROM pgbench_history') of pgbench"
    guest_ask "$1" database 'sync; echo 3 >/proc/sys/vm/drop_caches'
    "$LAB" run outside "$DB_DIR/bin/pg_amcheck" -h $DATABASE -U postgres \
        --heapallindexed postgres || fail "pg_amcheck found something"
    ! db_says "$1" 'I/O error|EXT4-fs (error|warning)|JBD2.*rror|PANIC:|ERROR:|could not (read|write|fsync)' ||
        fail "the guest's console says so"
    guest_is_well "$1" database
}

# --- Both hosts' images -----------------------------------------------------------

# Regions of 64 KiB that are set in a host's write-intent bitmap; of 512 bytes of
# it the last 8 are a checksum.
db_regions() { # HOST
    on "$1" 'cat /var/lib/understudy/disk/*.intent' | od -A n -v -t u1 -w512 -j 4096 | awk '
        { for (i = 1; i <= 504; i++) for (b = $i; b; b = int(b / 2)) n += b % 2 }
        END { print n + 0 }'
}
# Of the images as they are, so for when nobody writes.
db_blocks_differ() {
    local host
    gcc -std=gnu11 -Wall -Wextra -O2 -static -o "$WORK/block-digests" \
        "$TOP/tests/lab/block-digests.c" || return
    for host in alder birch; do
        on "$host" 'cat >/tmp/block-digests && chmod +x /tmp/block-digests' \
            <"$WORK/block-digests" || return
        on "$host" /tmp/block-digests $DB_IMAGE </dev/null |
            od -A n -v -t x8 -w8 >"$WORK/$host.digests"
        [ "$(wc -l <"$WORK/$host.digests")" -gt 1000 ] || return
    done
    paste "$WORK/alder.digests" "$WORK/birch.digests" | awk '
        NF != 2 || $1 != $2 { n++ } END { print n + 0 }'
}
