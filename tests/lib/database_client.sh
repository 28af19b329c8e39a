#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# A client of the guest's database, outside: one connection, which is never made
# again, and one transaction after the other. What it saw committed is a line
# "CLIENT SEQ NONCE TIME" in DIR/ledger.CLIENT, written when COMMIT has returned.
# It rests while DIR/hold is there, and DIR/held.CLIENT says so; it ends with
# DIR/end, or with a word in DIR/failed.CLIENT.
#
# database_client.sh PSQL ADDRESS CLIENT DIR
set -u
psql=$1 address=$2 client=$3 dir=$4

# What fails ends psql, and nothing is said to be committed.
coproc DB { exec "$psql" -X -q -A -t -v ON_ERROR_STOP=1 -h "$address" -U postgres 2>&1; }
in=${DB[1]} out=${DB[0]}
seq=0
rest() {
    touch "$dir/held.$client"
    while [ -e "$dir/hold" ] && ! [ -e "$dir/end" ]; do sleep 0.1; done
    rm "$dir/held.$client"
}
until [ -e "$dir/end" ]; do
    if [ -e "$dir/hold" ]; then
        rest
        continue
    fi
    seq=$((seq + 1)) nonce=$SRANDOM$SRANDOM answer=
    printf '%s\n' 'BEGIN;' \
        "INSERT INTO ledger VALUES ($client, $seq, '$nonce');" \
        "UPDATE total SET seq = seq + 1 WHERE client = $client;" \
        'COMMIT;' "\\echo committed $seq" >&"$in"
    read -r -t 300 answer <&"$out"
    if [ "$answer" != "committed $seq" ]; then
        echo "client $client at $seq: ${answer:-no answer}" >"$dir/failed.$client"
        exit 1
    fi
    echo "$client $seq $nonce $EPOCHREALTIME" >>"$dir/ledger.$client"
done
