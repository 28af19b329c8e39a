// SPDX-License-Identifier: Apache-2.0
/* What is said to an etcd, and what it says: the bodies of its v3 JSON gateway
 * (etcd 3.4 and later: POST /v3/kv/range and /v3/kv/txn, keys and values in
 * base64, 64-bit numbers as strings), and the record of a VM as its value.
 * Pure. Everything that comes from outside is checked: what is not exactly as
 * expected is an error, never a guess.
 *
 * The record is JSON, so that `etcdctl get` shows it to a person:
 *   {"understudy": 1, "vm": UUID, "members": [PIN, PIN], "holder": PIN or null,
 *    "running": BOOL, "sealed": BOOL, "generation": N, "nonce": 16 HEX DIGITS}
 * under the key PREFIX + UUID. */
#ifndef HEARTBEAT_ETCD_CODEC_H
#define HEARTBEAT_ETCD_CODEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "heartbeat/witness.h"

#define ETCD_KEY_MAX   200
#define ETCD_REPLY_MAX 65536 /* bytes; ours have less than 2,000 */

struct etcd_record {
    struct witness_record r;
    /* A host knew a later generation than this: the cluster was set back to
     * what it once was. Nothing is granted from this record any more. */
    bool sealed;
};

/* What the cluster has under one key. */
struct etcd_found {
    uint64_t cluster; /* its ID, out of every reply */
    bool there;
    uint64_t revision; /* the key's last modification; 0: not there */
    struct etcd_record record;
};

/* "PREFIXxxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx" */
void etcd_key(const char *prefix, const uint8_t vm[16], char out[ETCD_KEY_MAX]);

/* Bodies of requests; the caller frees them. A range without an option is a
 * linearizable read. The transaction puts the record on the condition that the
 * key's modification is still `revision` (0: that it is not there), and reads
 * it where it is not. */
char *etcd_range(const char *key);
char *etcd_txn(const char *key, uint64_t revision,
               const struct etcd_record *record);

/* The reply to a range of the key `key` of this VM. -1 and ERR_FAILED: that is
 * no such reply; ERR_REFUSED: it is, and the value is no record of ours. */
int etcd_range_reply(const void *data, size_t len, const char *key,
                     const uint8_t vm[16], struct etcd_found *out,
                     struct err *e);
/* The same for a transaction. *put: it took effect, and the rest but `cluster`
 * is not set; else what is there instead. */
int etcd_txn_reply(const void *data, size_t len, const char *key,
                   const uint8_t vm[16], bool *put, struct etcd_found *out,
                   struct err *e);
/* The reply to a range where only being answered counts. */
int etcd_probe_reply(const void *data, size_t len, uint64_t *cluster,
                     struct err *e);
/* What an answer with another status than 200 says, printable; maybe "". */
void etcd_complaint(const void *data, size_t len, char *out, size_t size);

/* The value of a record; the caller frees it. And back, strictly. ERR_REFUSED.
 */
char *etcd_record_put(const struct etcd_record *record);
int etcd_record_get(const void *data, size_t len, const uint8_t vm[16],
                    struct etcd_record *out, struct err *e);

/* witness_apply(), and the seal: see struct etcd_record. */
bool etcd_apply(struct etcd_record *record, bool there,
                const uint8_t asker[WITNESS_PIN], const struct witness_ask *ask,
                struct witness_answer *out);

#endif
