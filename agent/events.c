// SPDX-License-Identifier: Apache-2.0
/* The ring of events; see events.h. */
#include "agent/events.h"

#include <string.h>

#include "agent/ipc.h"
#include "common/clock.h"

void events_add(struct events *ev, const json_t *event)
{
    json_t **slot = &ev->ring[ev->count % EVENTS_KEPT];
    json_t *mine = json_deep_copy(event);

    json_object_set_new(mine, "seq", json_integer((json_int_t)++ev->count));
    if (!json_object_get(mine, "time_ms"))
        json_object_set_new(mine, "time_ms",
                            json_integer((json_int_t)clock_wall_ms()));
    json_decref(*slot);
    *slot = mine;
    if (ev->added)
        ev->added(ev->arg, mine);
}

json_t *events_last(const struct events *ev, const char *vm, unsigned n)
{
    json_t *list = json_array();
    uint64_t kept = ev->count < EVENTS_KEPT ? ev->count : EVENTS_KEPT;

    for (uint64_t i = 0; i < kept && json_array_size(list) < n; i++) {
        json_t *event = ev->ring[(ev->count - 1 - i) % EVENTS_KEPT];
        if (!vm || !strcmp(json_text(event, "vm", ""), vm))
            json_array_insert(list, 0, event);
    }
    return list;
}

void events_free(struct events *ev)
{
    for (int i = 0; i < EVENTS_KEPT; i++)
        json_decref(ev->ring[i]);
    memset(ev, 0, sizeof *ev);
}
