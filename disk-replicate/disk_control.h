// SPDX-License-Identifier: Apache-2.0
/* How a VM's agent speaks to the block server of one disk: a socket beside the
 * disk's record, one request and its answer at a time, and a shared page, which
 * never waits for anybody.
 *
 *     request  4 type  4 length  payload
 *     answer   4 status: 0, or an err_kind  4 length  payload, or the error's
 *              text
 *
 * Little-endian. A server talks to one agent at a time; when the connection
 * ends, a log is given up, and so is what a journal holds of an epoch that is
 * not prepared. A request that can't be done changes nothing. */
#ifndef DISK_REPLICATE_DISK_CONTROL_H
#define DISK_REPLICATE_DISK_CONTROL_H

#include <stdbool.h>
#include <stdint.h>

#include "common/bytes.h"
#include "common/err.h"
#include "disk-replicate/disk.h"
#include "disk-replicate/extents.h"

#define DISKCTL_HEAD    8u
#define DISKCTL_MAX     (EXTENTS_BYTES_MAX + 64u) /* of a payload */
#define DISKCTL_MS      10000 /* an answer takes no longer; else it is hung */
#define DISKCTL_SYNC_MS 60000 /* of what waits for the disk */
#define DISKS_MAX       16    /* of a VM */

enum diskctl_type {
    DISKCTL_INFO = 1, /* -> 8 bytes of the image, 16 base of its bitmap, 0:
                       * it has none */
    /* 8 first region, 4 regions, 4 zero -> a bit a region, the lowest first:
     * set, see intent.h; nothing: there is no such bitmap, or, on a backup, it
     * is not of the primary's base. Take all for set */
    DISKCTL_REGIONS,
    /* The primary's. LOG: 4 pages, 4 entries of the log, which begins empty. */
    DISKCTL_LOG,
    DISKCTL_UNLOG,
    /* The log of a predecessor that died, while the backup follows: as LOG,
     * then 8 the open cut. It lacks what was touched (touched.h), until REBUILD
     * has put it in: 8 region -> 8 where to go on, or all ones: it is
     * whole, for cuts from now on. ERR_REFUSED: it can't be had. */
    DISKCTL_RELOG,
    DISKCTL_REBUILD,
    DISKCTL_REBASE, /* 16 base: a new bitmap, with all regions set */
    DISKCTL_DOUBT,  /* no bitmap: the next copy is a whole one */
    /* 8 sector, 4 sectors at most (0: any number) -> 8 the next sector, then a
     * piece (extents.h) */
    DISKCTL_COPY,
    /* 8 sector, 8 seed, 8 end -> 8 the next sector, then digests as COMPARE
     * has them, of blocks before the sector `end` */
    DISKCTL_DIGESTS,
    DISKCTL_FETCH, /* 8 open cut: epochlog_fetch() */
    DISKCTL_NEXT,  /* 8 epoch, 4 sequence -> a piece, or nothing */
    /* 8 cut: epochlog_commit(); 8 cut, or 0: the backup has all up to that on
     * its disk for good */
    DISKCTL_FORGET,
    /* The backup's. REPLICA: 8 bytes of the primary's image, 16 base of its
     * bitmap, 16 a new base, for when ours is another one, then the name of its
     * medium; what is here is overwritten from now on, and of no use until the
     * first epoch. The same medium: ERR_REFUSED. */
    DISKCTL_REPLICA,
    DISKCTL_LIVE, /* a piece of the initial copy */
    /* digests -> a bit a block, the lowest first: differs. Of a replica that
     * follows, what was decided is applied before. None, from sector 0 -> when
     * the image is synced. */
    DISKCTL_COMPARE,
    DISKCTL_PIECE, /* one of the next epoch */
    /* 8 epoch, 4 pieces, 4 durable: 0 or 1, 8 bytes, 8 which coming of this
     * epoch it is -> 8 the last epoch that is in the image, synced */
    DISKCTL_PREPARE,
    DISKCTL_DECIDE,
    DISKCTL_DROP,
    DISKCTL_PROMOTE, /* 8 epoch: the image is exactly that, durably, and is
                      * the VM's disk from now on. Done before: fine */
    /* The primary's. 8 sector, 4 blocks (1 to DIGEST_BLOCKS, in the image), 4
     * which, 8 seed -> digests as COMPARE has them, then a bit a block, the
     * lowest first: what it held then is not known. `which` 0: at the last
     * commit; 1: at the cut that was fetched. */
    DISKCTL_CHECK,
    DISKCTL_MEDIUM, /* -> the name of its medium, medium.h */
    DISKCTL_SECURE, /* what is prepared is on the disk for good */
    /* 8 epoch that is committed: the successor of a replica's server goes on
     * with it. Nothing is left of what is behind that epoch. */
    DISKCTL_AGAIN,
    /* 8 epoch: as PROMOTE, for a VM that is started anew; of which epoch the
     * image is stays known until somebody writes to it. An image that is no
     * replica any more has to be known to be of it: ERR_REFUSED. */
    DISKCTL_START,
};

#define REGIONS_MAX 16384u /* at once */

/* Digests of an image's blocks of 4 KiB, the last one may be shorter: 8 first
 * sector, 4 blocks (1 to DIGEST_BLOCKS), 4 zero, 8 seed, then XXH3-128 with
 * that seed of each, low 64 bits first. The seed is random: nobody inside of a
 * guest can make two blocks that look the same. */
#define DIGEST_BLOCKS 256u
#define DIGEST_BYTES  16u
#define DIGEST_HEAD   24u

/* What a disk is at the moment. */
enum disk_role {
    DISK_PLAIN,    /* served, and nothing else */
    DISK_PRIMARY,  /* logged for the other host */
    DISK_COPYING,  /* a replica that is being made, and of no use yet */
    DISK_FOLLOWS,  /* a replica, exactly of some epoch */
    DISK_HELD,     /* a replica that nobody feeds: of its last epoch */
    DISK_UNUSABLE, /* a replica whose copy did not come to its end */
};

/* Why the log lacks something. */
enum disk_lost {
    DISK_LOST_NOTHING,
    DISK_LOST_ALL, /* there is none, of this server */
    DISK_LOST_ROOM,
    DISK_LOST_WRITE, /* the image could not be written */
    DISK_LOST_SYNC,
};
/* For people. */
const char *diskctl_lost(enum disk_lost why);

/* Mapped by the server and by its agent. Every field is atomic. */
struct disk_page {
    uint64_t cut;   /* the agent: the open cut, from 1 */
    uint32_t early; /* the server: an epoch is wanted soon */
    uint32_t lost;  /* the server: enum disk_lost */
    uint64_t held_bytes;
    /* For whoever looks (look.h). The server: */
    uint64_t bytes; /* of the image */
    uint32_t role;  /* enum disk_role */
    /* The server's, for its successor: image.h. */
    uint32_t unsaid;
    /* The agent of a primary, the server of a replica: how far the initial
     * copy is, in the image. */
    uint64_t copied;
    /* The agent: bytes that a log may hold before its writers are slowed down;
     * 0, or more than it can: what it can. */
    uint64_t limit;
};

/* --- The agent's side: blocks, any one thread -------------------------------
 */

struct diskctl {
    int fd; /* -1: closed */
    char id[DISK_ID];
    uint64_t until_ns; /* diskctl_ask()'s: the answer has to be there */
};

/* `id` may be c->id. */
int diskctl_open(struct diskctl *c, const char *id, struct err *e);
void diskctl_close(struct diskctl *c);
/* The server is there, as far as can be seen without waiting. */
bool diskctl_alive(const struct diskctl *c);
/* ERR_TIMEOUT, ERR_GONE: the connection is closed. Others: the server's
 * refusal. *answer may be NULL. */
int diskctl_call(struct diskctl *c, enum diskctl_type type, const void *p,
                 size_t len, struct buf *answer, struct err *e);
/* The same in two parts, so that several servers do it at once. An error of the
 * first: there is no second; else that is to come before anything else. */
int diskctl_ask(struct diskctl *c, enum diskctl_type type, const void *p,
                size_t len, struct err *e);
int diskctl_answer(struct diskctl *c, struct buf *answer, struct err *e);
/* The server's page, unmapped with munmap(); NULL with *e. */
struct disk_page *diskctl_page(const char *id, struct err *e);

/* The writable disks of a domain that are served by us: their ids, by number of
 * the device. Returns how many, or -1. */
int diskctl_disks(uint32_t domid, char ids[DISKS_MAX][DISK_ID], struct err *e);
/* The device's number out of such an id. */
uint32_t diskctl_device(const char *id);

/* --- The server's side -------------------------------------------------------
 */

struct duty;
struct diskctl_server;

/* Listen, on a thread of its own, and do what is asked with `duty`. */
int diskctl_start(struct diskctl_server **s, const char *id, struct duty *duty,
                  struct err *e);
void diskctl_stop(struct diskctl_server *s);

#endif
