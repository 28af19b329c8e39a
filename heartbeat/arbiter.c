// SPDX-License-Identifier: Apache-2.0
/* The kinds of arbiters, and what they have in common; see arbiter.h. Pure. */
#include "heartbeat/arbiter.h"

#include <string.h>

static const struct arbiter_ops *const kinds[] = {
    &arbiter_witness,
    &arbiter_etcd,
    NULL,
};

int arbiter_find(const char *line, const struct arbiter_ops **ops,
                 struct err *e)
{
    size_t n = strcspn(line, ":");

    *ops = NULL;
    if (!strcmp(line, "none"))
        return 0;
    if (strlen(line) >= ARBITER_LINE_MAX)
        return err_kind(e, ERR_USAGE, "the arbiter's line is too long");
    for (size_t i = 0; kinds[i]; i++) {
        if (strlen(kinds[i]->kind) != n || memcmp(kinds[i]->kind, line, n))
            continue;
        if (kinds[i]->check(line, e))
            return -1;
        *ops = kinds[i];
        return 0;
    }
    err_kind(e, ERR_USAGE, "%.64s is no arbiter", line);
    return err_hint(
        e, "\"witness:HOST:PORT pin=PIN\" or \"etcd:URL,URL,URL ...\", "
           "or none: but then a cut link between the hosts can "
           "make both run the VM");
}

bool arbiter_same(const char *a, const char *b)
{
    const struct arbiter_ops *x, *y;

    if (arbiter_find(a, &x, NULL) || arbiter_find(b, &y, NULL) || x != y)
        return false;
    return !x || x->same(a, b);
}

void arbiter_ask_of(const struct lease_request *r, const uint8_t vm[16],
                    struct witness_ask *out)
{
    static const enum witness_op ops[] = {
        [LEASE_OP_CLAIM] = WITNESS_CLAIM,
        [LEASE_OP_RUNNING] = WITNESS_RUNNING,
        [LEASE_OP_RETURN] = WITNESS_RETURN,
        [LEASE_OP_QUERY] = WITNESS_QUERY,
    };

    memset(out, 0, sizeof *out);
    out->op = ops[r->op];
    memcpy(out->vm, vm, sizeof out->vm);
    out->generation = r->generation;
    out->nonce = r->nonce;
}

int arbiter_answer_of(const struct witness_answer *in, uint64_t asked,
                      const char *who, struct lease_record *out, struct err *e)
{
    switch (in->status) {
    case WITNESS_RECORD:
        *out =
            (struct lease_record){asked, in->generation, in->mine, in->running};
        return 0;
    case WITNESS_UNKNOWN:
        err_kind(e, ERR_REFUSED, "the arbiter %s has no record of this VM",
                 who);
        return err_hint(e, "it has lost its memory, or is another one: see "
                           "understudy-witness(8)");
    case WITNESS_STRANGER:
        err_kind(e, ERR_REFUSED,
                 "in the arbiter %s this VM belongs to other hosts", who);
        return err_hint(e, "unprotect it there, or `understudy-witness forget` "
                           "it when those hosts are no more");
    case WITNESS_SEALED:
        err_kind(e, ERR_REFUSED, "the arbiter %s is sealed: it grants nothing",
                 who);
        return err_hint(e, "`understudy-witness status` there says why, and "
                           "what to look at before `unseal`");
    case WITNESS_FULL:
        return err_kind(e, ERR_REFUSED, "the arbiter %s has no more room", who);
    default:
        return err_set(e, "the arbiter %s gave an answer that is none", who);
    }
}
