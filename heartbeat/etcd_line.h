// SPDX-License-Identifier: Apache-2.0
/* The configuration line of the arbiter etcd, as text and taken apart. Pure:
 * no file is opened, no name resolved.
 *
 *   etcd:URL[,URL...] [prefix=/understudy/] [cluster=ID] [ca=FILE]
 *       [cert=FILE key=FILE] [plain]
 *
 * URL is https://HOST[:PORT] or http://HOST[:PORT], all of one scheme; 2379 is
 * the port when there is none. http is for loopback; `plain` allows it
 * elsewhere, where whoever can send a packet may write the records. Files are
 * absolute paths of PEM; without `ca` the system's authorities are trusted.
 *
 * ID is the cluster's, decimal as etcd's JSON has it, or with 0x. A loopback
 * address is another machine's on each host, so it needs one. */
#ifndef HEARTBEAT_ETCD_LINE_H
#define HEARTBEAT_ETCD_LINE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"

#define ETCD_ENDPOINTS_MAX 9
#define ETCD_PORT          2379

struct etcd_line {
    unsigned count;
    char endpoint[ETCD_ENDPOINTS_MAX][160]; /* "https://host:2379" */
    bool tls;
    char prefix[128];                  /* begins and ends with a slash */
    uint64_t cluster;                  /* 0: none was named */
    char ca[256], cert[256], key[256]; /* "": none */
};

/* ERR_USAGE, with the form of a line in its hint. */
int etcd_line_parse(const char *line, struct etcd_line *out, struct err *e);
/* The same records? Of one prefix; and of one cluster's ID when both name it,
 * else of the same endpoints in any order. */
bool etcd_line_same(const struct etcd_line *a, const struct etcd_line *b);

#endif
