// SPDX-License-Identifier: Apache-2.0
/* Ranges being written; see ranges.h. The list is in order of arrival, and as
 * long as a disk's queue is deep. */
#include "disk-replicate/ranges.h"

#include <stddef.h>

static bool overlap(const struct range *a, const struct range *b)
{
    uint64_t low = a->offset < b->offset ? a->offset : b->offset;
    const struct range *at_low = a->offset < b->offset ? a : b;
    const struct range *other = at_low == a ? b : a;

    return a->length && b->length && other->offset - low < at_low->length;
}

/* No range that came before r overlaps it. */
static bool free_of_earlier(const struct ranges *all, const struct range *r)
{
    for (const struct range *x = all->first; x != r; x = x->next)
        if (overlap(x, r))
            return false;
    return true;
}

bool ranges_take(struct ranges *all, struct range *r)
{
    struct range **end = &all->first;

    while (*end)
        end = &(*end)->next;
    r->next = NULL;
    *end = r;
    r->granted = free_of_earlier(all, r);
    return r->granted;
}

bool ranges_give(struct ranges *all, struct range *r)
{
    struct range **at = &all->first;
    bool any = false;

    while (*at != r)
        at = &(*at)->next;
    *at = r->next;
    for (struct range *x = r->next; x; x = x->next)
        if (!x->granted && overlap(x, r) && free_of_earlier(all, x))
            any = x->granted = true;
    return any;
}
