// SPDX-License-Identifier: Apache-2.0
/* Serving one image on a connected socket, with the transmission phase of NBD
 * (nbd.h): some workers, each of which takes a request off the socket, does it
 * and answers. Small writes that don't have to wait for anything are done by
 * the one who receives, several in a row, and answered together. Writes that
 * overlap are done in the order in which they came. Who else has to know of
 * each request is a server_watch. */
#ifndef DISK_REPLICATE_SERVER_H
#define DISK_REPLICATE_SERVER_H

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "disk-replicate/image.h"
#include "disk-replicate/ranges.h"

#define SERVER_WORKERS_MAX 64

struct server;

enum server_end {
    SERVER_LOST,         /* the socket ended, or the peer talks nonsense */
    SERVER_DISCONNECTED, /* the peer said so, and everything is synced */
};

/* What it did so far. */
struct server_counts {
    uint64_t reads, writes, flushes, trims;
    uint64_t read_bytes, write_bytes;
    uint64_t errors; /* answered with an error */
};

/* Called by the workers, several at once; a request's own range is theirs. */
struct server_watch {
    /* Before each; an errno refuses it. May wait. */
    int (*ask)(struct server_watch *w, bool writes, uint64_t offset,
               uint32_t len);
    /* Before that, by whoever receives, so it must not wait: for this write
     * neither ask() nor wrote() is going to wait, as far as can be seen. */
    bool (*ready)(struct server_watch *w, uint64_t offset, uint32_t len);
    /* After each that wrote, before it is answered and before an overlapping
     * one begins. `data` NULL: zeroes. Until when it is not to be answered, as
     * clock_ns(), since the writer is too fast; 0: at once. */
    uint64_t (*wrote)(struct server_watch *w, uint64_t offset, uint32_t len,
                      const void *data);
    /* That wait, by one who holds nothing; it may end early. */
    void (*rest)(struct server_watch *w, uint64_t until_ns);
    /* Instead, after each that was to write, or to flush, and could not. */
    void (*failed)(struct server_watch *w, bool writes);
    /* After each that writes and was not refused, behind `wrote`. */
    void (*end)(struct server_watch *w, uint64_t offset, uint32_t len);
    /* Discards have to read as zeroes; else they are hints, nobody is told of
     * them, and what they leave is seen by reading. Atomic. */
    bool discards_zero;
};

/* `workers`: 1 to 64; memory for their buffers is got and touched here. The
 * image stays the caller's. */
int server_open(struct server **s, struct image *image, unsigned workers,
                struct err *e);
void server_close(struct server *s);

/* Serve until the connection ends. When it returns, no request is under way
 * any more: a new connection may repeat what was not answered. Blocks; one call
 * at a time. The descriptor stays the caller's. -1: threads could not be
 * started. *why says how a lost one ended. */
int server_run(struct server *s, int fd, enum server_end *end, struct err *why);

/* Before the first run. */
void server_set_watch(struct server *s, struct server_watch *w);

/* From here on nobody writes in r->offset and r->length, until it is given
 * back. Any thread but a worker. */
void server_hold(struct server *s, struct range *r);
void server_give(struct server *s, struct range *r);
/* Read while nobody writes there; *hole: all of it is zeroes, and `p` is as it
 * was. The same threads. Returns 0 or an errno. */
int server_read_still(struct server *s, uint64_t offset, void *p, uint32_t len,
                      bool *hole);

/* Any thread. */
void server_counts(struct server *s, struct server_counts *out);

#endif
