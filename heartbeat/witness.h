// SPDX-License-Identifier: Apache-2.0
/* The witness's memory: one record a VM, {generation, holder, nonce, running}
 * and the two hosts that may ask. Pure besides `save`, which has to be durable
 * before it returns: an answer is given after that. Called by the program
 * understudy-witness on its loop, and by the simulator.
 *
 * A generation only goes up. A claim names the generation that it comes from
 * and is granted when the record has that one; the same claim (holder and
 * nonce) gets the same answer again. Who was granted a generation and can't
 * use it returns it: the other host then holds the next one. Protection that
 * begins anew (REGISTER) or ends (LEAVE) at the holder is a new generation
 * too, so that no older replica can win any more. */
#ifndef HEARTBEAT_WITNESS_H
#define HEARTBEAT_WITNESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/bytes.h"
#include "common/err.h"

#define WITNESS_VMS_MAX 4096
#define WITNESS_PIN     32 /* bytes; a host is its pin */

#define WITNESS_NOBODY 2 /* as a holder */

enum witness_op {
    /* The VM runs here and `other` is its backup from now on: the first
     * record; or generation + 1, when `generation` is the record's and I hold
     * it, or nobody does. So one that arrives late, after others were typed,
     * ends nobody's protection. */
    WITNESS_REGISTER = 1,
    WITNESS_CLAIM,   /* generation + 1, when `generation` is the record's */
    WITNESS_RUNNING, /* I hold `generation`, and the VM runs */
    WITNESS_RETURN,  /* I hold `generation`, and can't run it */
    WITNESS_QUERY,
    WITNESS_LEAVE, /* I hold `generation`, and protection ends: generation + 1
                    * is nobody's */
};

struct witness_ask {
    uint32_t op; /* enum witness_op */
    uint8_t vm[16];
    uint64_t generation;        /* the asker's own, for all of them */
    uint64_t nonce;             /* of its last claim or this REGISTER, where it
                                 * is random and not 0; 0: none */
    uint8_t other[WITNESS_PIN]; /* REGISTER; else zeroes */
};

enum witness_status {
    WITNESS_RECORD = 1, /* the rest is the record, after what was asked for
                         * was done or not done */
    WITNESS_UNKNOWN,    /* no record of this VM */
    WITNESS_STRANGER,   /* the asker is none of the record's two hosts */
    WITNESS_SEALED,     /* it grants nothing until an operator says so */
    WITNESS_FULL,
};

struct witness_answer {
    uint32_t status; /* enum witness_status */
    uint64_t generation;
    bool mine;    /* the asker holds it: by what it asked with this nonce, or it
                   * was handed over */
    bool running; /* the holder said so */
};

struct witness_record {
    uint8_t vm[16];
    uint8_t member[2][WITNESS_PIN];
    uint8_t holder; /* index of a member, or WITNESS_NOBODY */
    bool running;
    uint64_t generation;
    uint64_t nonce; /* 0: handed over, or nobody's */
};

/* What `ask` makes of the record of ask->vm, which is there or not: pure, for
 * every arbiter that keeps such records. True: *r is new or has changed, and
 * has to be durable before *out is said. out->status is RECORD, UNKNOWN or
 * STRANGER. */
bool witness_apply(struct witness_record *r, bool there,
                   const uint8_t asker[WITNESS_PIN],
                   const struct witness_ask *ask, struct witness_answer *out);

struct witness {
    struct witness_record *list;
    size_t count;
    bool sealed;
    char why[256]; /* it is sealed */
    bool broken;   /* a save failed: what the disk has is not known, so nothing
                    * is answered any more. Start again and load. */
    /* Make this durable, whole or not at all. */
    int (*save)(void *arg, const struct buf *state, struct err *e);
    void *arg;
};

void witness_free(struct witness *w);

/* Do it. -1: there is no answer (`broken`, or an op that is none). */
int witness_ask(struct witness *w, const uint8_t asker[WITNESS_PIN],
                const struct witness_ask *ask, struct witness_answer *out,
                struct err *e);

/* Grant nothing from now on, durably. */
int witness_seal(struct witness *w, const char *why, struct err *e);
/* An operator has looked at both hosts and says that no record is older than
 * what they know. */
int witness_unseal(struct witness *w, struct err *e);
/* An operator says that this VM is nobody's any more. ERR_GONE. */
int witness_forget(struct witness *w, const uint8_t vm[16], struct err *e);

/* The state as bytes, and back; strict. `save` gets what witness_put() makes.
 * *w has to be zeroed, or freed. */
void witness_put(const struct witness *w, struct buf *out);
int witness_get(struct witness *w, const void *data, size_t len, struct err *e);

#endif
