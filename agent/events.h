// SPDX-License-Identifier: Apache-2.0
/* The last events of a host, for `understudy events`, and whom to tell about
 * new ones. An event is a JSON object {"seq","time_ms","event","vm","text"},
 * changes of state also have "state" and "previous". Loop thread only. */
#ifndef AGENT_EVENTS_H
#define AGENT_EVENTS_H

#include <jansson.h>
#include <stdint.h>

#define EVENTS_KEPT 1000

struct events {
    json_t *ring[EVENTS_KEPT];
    uint64_t count; /* ever added; the next one's seq is count + 1 */
    void (*added)(void *arg, json_t *event); /* may be NULL */
    void *arg;
};

/* `event` is borrowed and copied; seq and, when it has none, time_ms are
 * set. */
void events_add(struct events *ev, const json_t *event);
/* A new array of the last `n` events, oldest first, of one VM or of all (vm
 * NULL). */
json_t *events_last(const struct events *ev, const char *vm, unsigned n);
void events_free(struct events *ev);

#endif
