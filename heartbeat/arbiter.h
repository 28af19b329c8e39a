// SPDX-License-Identifier: Apache-2.0
/* Arbiters: where the records of who may run a VM are kept, outside both hosts.
 * A seam: a const table of operations, one file a kind (arbiter_witness.c,
 * arbiter_etcd.c). `none` is the absence of one and has no table. An agent
 * opens one for its VM's lease (lease.h), the daemon opens one for `protect`
 * and for VMs whose agent can't ask.
 *
 * What a request does to a record is the same for all kinds and is written down
 * once: witness_apply() in witness.h, which is pure. An arbiter brings requests
 * and records together atomically and durably, no more: the witness holds the
 * records in its own memory; one with a store behind it reads the record,
 * applies, and writes it back on the condition that nobody else did meanwhile.
 *
 * Thread. Everything here belongs to the thread of the loop that open() got.
 * No call blocks: not on a network, not on a resolver, not on a disk but for
 * small local files (keys, certificates) in open(). Callbacks come from the
 * loop only, never from inside a call of this interface; all calls, close() of
 * this very arbiter included, are allowed in them.
 *
 * Retries. One submit() is one question. An arbiter repeats it by itself only
 * where a repetition can't be told from the first (a compare-and-set that lost
 * a race and changed nothing; the same request, with the same nonce, at the
 * next endpoint), and only within the deadline. To ask again is the lease's,
 * with a new submit(). Connections are the arbiter's own: it makes them, and
 * makes them again, from open() to close(), with pauses of at most 2 s.
 *
 * Fail closed. `done` with a record means that the record was read, or written
 * durably, after the question was asked. Everything else is no answer: the
 * outcome is unknown, whatever the error's kind, and nothing may be concluded
 * from it. */
#ifndef HEARTBEAT_ARBITER_H
#define HEARTBEAT_ARBITER_H

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "heartbeat/lease.h"
#include "heartbeat/witness.h"

#define ARBITER_LINE_MAX  512 /* a configuration line, with its NUL */
#define ARBITER_CALLS_MAX 64  /* questions without an answer, one arbiter */

struct ev_loop;
struct link_tls;
struct arbiter;
struct arbiter_call;

/* Who asks. The strings are copied; `loop` and `tls` outlive the arbiter. */
struct arbiter_host {
    struct ev_loop *loop;
    /* This host's key, for arbiters that are reached over link/. */
    struct link_tls *tls;
    /* Its pin: how this host is called in records, whatever the arbiter uses
     * to let it in. The caller knows that it is the one of `tls`. */
    uint8_t pin[WITNESS_PIN];
    char name[64]; /* for the arbiter's log; says nothing about who may ask */
    /* health()->up changed. May be NULL. */
    void (*changed)(void *arg, struct arbiter *a);
    void *arg;
};

/* How it stands with the arbiter; for status, and to know whether asking is of
 * any use now. */
struct arbiter_health {
    /* It can be asked now: connected, let in, not long silent (3 s at most;
     * an arbiter looks by itself, whether it is asked or not), and it would
     * grant (a sealed witness is not up). */
    bool up;
    uint64_t heard_ns; /* clock_ns() when it last said anything; 0: never */
    struct err why;    /* not up: the reason and what to do; else empty */
};

/* Exactly one call for each submit() that returned 0 and was not cancelled: `r`
 * is the record as the asker sees it, or NULL and `why` says what was wrong:
 * ERR_TIMEOUT (no answer within the deadline), ERR_GONE (the connection was
 * lost, or there is none), ERR_REFUSED (the arbiter does not serve this:
 * sealed, no such record, none of ours, wrong key), ERR_FAILED. The text names
 * the arbiter. Both pointers are valid during the call only. */
typedef void arbiter_done(void *arg, const struct lease_record *r,
                          const struct err *why);

struct arbiter_ops {
    /* What a line begins with, before the colon: "witness", "etcd". */
    const char *kind;
    /* Is this line well-formed? Looks at the text only. ERR_USAGE with a
     * sentence that shows the right form in its hint. */
    int (*check)(const char *line, struct err *e);
    /* Do two well-formed lines of this kind mean the same records? By what the
     * arbiter is (the witness's pin; an etcd's prefix and cluster ID, or
     * endpoints where that is not named), not by how a host reaches it. */
    bool (*same)(const char *a, const char *b);
    /* Start to be connected; an arbiter that can't be reached is no error.
     * ERR_USAGE as check(); ERR_FAILED when a local file is missing. */
    int (*open)(const char *line, const struct arbiter_host *host,
                struct arbiter **a, struct err *e);
    /* Ask. `ask` is copied; its `other` is set for REGISTER, else zeroes. It
     * may be on the wire when this returns, and may have an effect from then
     * on, also if it is cancelled or times out. When health() is not up it is
     * surely never sent, and `done` says ERR_GONE from the loop. deadline_ms
     * from now (1..60000). -1 (ERR_REFUSED): ARBITER_CALLS_MAX are under way,
     * nothing was sent and `done` is not called. *c is valid until `done` or
     * cancel(); c may be NULL. */
    int (*submit)(struct arbiter *a, const struct witness_ask *ask,
                  unsigned deadline_ms, arbiter_done *done, void *arg,
                  struct arbiter_call **c, struct err *e);
    /* `done` is not called any more. */
    void (*cancel)(struct arbiter_call *c);
    void (*health)(const struct arbiter *a, struct arbiter_health *out);
    /* Cancels all calls. No callback follows. */
    void (*close)(struct arbiter *a);
};

/* The head of each kind's own structure. */
struct arbiter {
    const struct arbiter_ops *ops;
};

extern const struct arbiter_ops arbiter_witness, arbiter_etcd;

/* The kind of a line, which is checked: *ops is NULL for "none". ERR_USAGE. */
int arbiter_find(const char *line, const struct arbiter_ops **ops,
                 struct err *e);
/* May one VM's two hosts have these? False when one is malformed. */
bool arbiter_same(const char *a, const char *b);
/* What a lease wants to be asked. */
void arbiter_ask_of(const struct lease_request *r, const uint8_t vm[16],
                    struct witness_ask *out);
/* An answer to what was asked with the nonce `asked`, as done() gives it: 0 and
 * the record, or -1 and ERR_REFUSED in the words of the arbiter `who`. */
int arbiter_answer_of(const struct witness_answer *in, uint64_t asked,
                      const char *who, struct lease_record *out, struct err *e);

#endif
