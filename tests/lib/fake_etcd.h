// SPDX-License-Identifier: Apache-2.0
/* For tests: something on loopback that speaks as an etcd does, one key of one
 * cluster, or as no etcd should. On the default loop. */
#ifndef TESTS_FAKE_ETCD_H
#define TESTS_FAKE_ETCD_H

#include <ev.h>
#include <stdbool.h>
#include <stdint.h>

enum fake_mood {
    FAKE_GOOD,
    FAKE_SILENT,    /* takes what is said, and says nothing */
    FAKE_SLOW,      /* a byte every 20 ms, for ever */
    FAKE_HANGS_UP,  /* closes instead of answering */
    FAKE_LOSES_TXN, /* does one transaction, and hangs up instead of saying so;
                     * then good */
    FAKE_OVERSIZE,  /* a body without end */
    FAKE_HEADERS,   /* headers without end */
    FAKE_TRUNCATED, /* half a body */
    FAKE_NO_JSON,   /* 200, and HTML */
    FAKE_NO_HTTP,   /* not even that */
    FAKE_UNHAPPY,   /* 503 and a complaint */
    FAKE_ELSEWHERE, /* redirects */
    FAKE_OTHER_ID,  /* another cluster's */
    FAKE_OTHER_KEY, /* answers what was not asked for */
    FAKE_GARBAGE,   /* a value that is no record */
    FAKE_RACES,     /* somebody is always faster, and changes nothing */
    FAKE_MOODS
};

struct fake_store {
    char *key, *value; /* base64 */
    uint64_t revision; /* 0: not there */
    unsigned ranges, puts;
};

struct fake_etcd {
    struct fake_store *store; /* members of a cluster share one */
    enum fake_mood mood;
    uint16_t port;
    unsigned requests;
    ev_io accepting;
    struct fake_client *clients;
};

void fake_etcd_start(struct fake_etcd *f, struct fake_store *store);
void fake_etcd_stop(struct fake_etcd *f);
void fake_store_free(struct fake_store *s);

#endif
