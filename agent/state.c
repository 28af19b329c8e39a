// SPDX-License-Identifier: Apache-2.0
/* The table of states; see state.h. Pure. */
#include "agent/state.h"

#include <string.h>

#define TO(s) (1u << (s))

/* Which states may follow. Unprotected (unprotect) and Failed may come from
 * anywhere. Syncing leaves every state: a resync, a new protection, or a lost
 * host that becomes the backup. */
static const struct {
    const char *name;
    unsigned next;
} table[VM_STATES] = {
    /* Fenced: started by hand, and it runs elsewhere since a takeover. */
    [VM_UNPROTECTED] = {"Unprotected",
                        TO(VM_SYNCING) | TO(VM_FENCED) | TO(VM_FAILED)},
    [VM_SYNCING] = {"Syncing", TO(VM_UNPROTECTED) | TO(VM_PROTECTED) |
                                   TO(VM_DEGRADED) | TO(VM_FENCED) |
                                   TO(VM_FAILED)},
    [VM_PROTECTED] = {"Protected", TO(VM_UNPROTECTED) | TO(VM_SYNCING) |
                                       TO(VM_DEGRADED) | TO(VM_MIGRATING) |
                                       TO(VM_TAKEN_OVER) | TO(VM_FENCED) |
                                       TO(VM_FAILED)},
    /* Protected again without a copy: the session came back and the backup
     * still held the last epoch. TakenOver: a backup that lost its session. */
    [VM_DEGRADED] = {"Degraded", TO(VM_UNPROTECTED) | TO(VM_SYNCING) |
                                     TO(VM_PROTECTED) | TO(VM_TAKEN_OVER) |
                                     TO(VM_FENCED) | TO(VM_FAILED)},
    [VM_MIGRATING] = {"Migrating", TO(VM_UNPROTECTED) | TO(VM_SYNCING) |
                                       TO(VM_PROTECTED) | TO(VM_DEGRADED) |
                                       TO(VM_FAILED)},
    /* Fenced: it met a higher generation. */
    [VM_TAKEN_OVER] = {"TakenOver", TO(VM_UNPROTECTED) | TO(VM_SYNCING) |
                                        TO(VM_FENCED) | TO(VM_FAILED)},
    [VM_FENCED] = {"Fenced",
                   TO(VM_UNPROTECTED) | TO(VM_SYNCING) | TO(VM_FAILED)},
    [VM_FAILED] = {"Failed", TO(VM_UNPROTECTED) | TO(VM_SYNCING)},
};

const char *vm_state_name(enum vm_state s)
{
    return (unsigned)s < VM_STATES ? table[s].name : "?";
}

bool vm_state_parse(const char *name, enum vm_state *s)
{
    for (unsigned i = 0; name && i < VM_STATES; i++) {
        if (!strcmp(name, table[i].name)) {
            *s = (enum vm_state)i;
            return true;
        }
    }
    return false;
}

bool vm_state_legal(enum vm_state from, enum vm_state to)
{
    if ((unsigned)from >= VM_STATES || (unsigned)to >= VM_STATES)
        return false;
    return from == to || (table[from].next & TO(to));
}

void state_load(struct state *s, enum vm_state now, uint64_t now_ns)
{
    s->now = s->before = now;
    s->since_ns = now_ns;
}

int state_move(struct state *s, enum vm_state to, const char *why,
               uint64_t now_ns, struct err *e)
{
    enum vm_state from = s->now;

    if (!vm_state_legal(from, to))
        return err_kind(e, ERR_REFUSED, "illegal change of state: %s to %s",
                        vm_state_name(from), vm_state_name(to));
    if (from == to)
        return 0;
    s->before = from;
    s->now = to;
    s->since_ns = now_ns;
    if (s->changed)
        s->changed(s->arg, from, to, why ? why : "");
    return 0;
}
