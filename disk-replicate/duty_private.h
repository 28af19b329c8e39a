// SPDX-License-Identifier: Apache-2.0
/* Inside of the duty: duty.c has the modes and the requests, duty_log.c the
 * primary's log, duty_copy.c the initial copy, duty_replica.c the backup's,
 * duty_apply.c its applying, duty_files.c what is on this host's disk. */
#ifndef DISK_REPLICATE_DUTY_PRIVATE_H
#define DISK_REPLICATE_DUTY_PRIVATE_H

#include <pthread.h>

#include "disk-replicate/duty.h"
#include "disk-replicate/epochlog.h"
#include "disk-replicate/intent.h"
#include "disk-replicate/journal.h"
#include "disk-replicate/touched.h"

enum duty_mode {
    DUTY_PLAIN,
    DUTY_LOG,     /* the primary's */
    DUTY_REPLICA, /* the backup's: nobody's request is served */
    DUTY_HELD,    /* there is a replica, of an earlier server: the same */
};

/* What KEY.replica says. */
enum duty_mark { MARK_NONE, MARK_SYNCING, MARK_WHOLE };

struct flight {
    uint64_t offset;
    uint32_t len;
    bool used;
};

/* The write-intent bitmap; see duty_intent.c. */
struct duty_intent {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    /* Under `lock`. */
    struct intent *bits; /* NULL: there is none */
    uint8_t base[INTENT_ID];
    bool flushing;
    /* The period: it began while `cut` was open; the image was synced since. */
    bool period, synced, cleared;
    bool first; /* of this log */
    uint64_t cut, began_ns, serial, tried;
    bool quit;

    struct store file[2]; /* that of `bits` is file[slot] */
    unsigned slot;
    pthread_t thread; /* syncs the image for a period */
    bool started;
};

/* Who applies; see duty_apply.c. */
struct duty_apply {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    /* Under `lock`. */
    bool busy; /* a step's I/O is under way */
    bool held; /* none is to begin */
    bool quit;
    /* What is applied at once: bytes of the journal, and since when; and how
     * long the last of these took. 0: not known. */
    uint64_t bytes, began_ns;
    uint64_t last_bytes, last_ns;

    pthread_t thread;
    bool started;
};

struct duty {
    struct server_watch watch; /* first */
    char id[DISK_ID];
    struct image *image;
    struct server *server;
    struct disk_page *page;

    pthread_mutex_t lock;
    pthread_cond_t room; /* on CLOCK_MONOTONIC */
    /* Under `lock`. */
    enum duty_mode mode;
    struct epochlog *log; /* LOG */
    struct touched touched;
    struct flight flight[SERVER_WORKERS_MAX]; /* writes under way */
    uint64_t pace_ns; /* no write is answered before; 0: no need to wait */
    bool exact;       /* KEY.epoch is there; atomic, changed under `lock` */

    /* The control thread's. */
    struct extents_builder piece;
    uint8_t *block; /* EXTENTS_DATA_MAX */
    enum duty_mark mark;
    struct store journal_file;
    bool same;                    /* REPLICA: our base is the primary's */
    uint8_t next_base[INTENT_ID]; /* from the first epoch on */

    struct duty_intent intent;

    struct duty_apply apply;
    /* Under `apply.lock`, as is `mode` where it is changed. */
    struct journal *journal; /* REPLICA */
    struct err broken;       /* why nothing can be applied; kind 0: it can */
};

void duty_mode_set(struct duty *d, enum duty_mode to);
/* Mode or mark changed: say it on the page. */
void duty_role_note(struct duty *d);

#define page_store(p, v) __atomic_store_n(p, v, __ATOMIC_SEQ_CST)

/* duty_log.c: the primary's; requests as disk_control.h has them. */
void duty_watch_init(struct server_watch *w);
int duty_log_begin(struct duty *d, struct reader *r, bool again, struct err *e);
/* There may be none. */
void duty_log_end(struct duty *d);
int duty_log_fetch(struct duty *d, uint64_t open, struct err *e);
int duty_log_next(struct duty *d, struct reader *r, struct buf *answer,
                  struct err *e);
int duty_log_rebuild(struct duty *d, struct reader *r, struct buf *answer,
                     struct err *e);
int duty_log_forget(struct duty *d, struct reader *r, struct err *e);
/* The log is there and lacks nothing. */
int duty_log_usable(const struct duty *d, struct err *e);
/* The log, if there is one, is of no more use; its agent sees that. */
void duty_log_lose(struct duty *d, enum disk_lost why);

/* duty_intent.c. What there is of an earlier server. */
void intent_duty_init(struct duty *d);
int intent_duty_open(struct duty *d, struct err *e);
/* `end`: the image is left in order, and others may write to it. */
void intent_duty_close(struct duty *d, bool end);
/* A write of a worker begins, and is in `flight`; waits until its bits are
 * durable. */
void intent_duty_write(struct duty *d, uint64_t offset, uint32_t len);
/* That would not wait. The bits are set then, but may not be durable. */
bool intent_duty_ready(struct duty *d, uint64_t offset, uint32_t len);
/* A log begins, empty. */
void intent_duty_begin(struct duty *d);
/* The control thread's. All zero: there is none. */
void intent_duty_base(struct duty *d, uint8_t base[INTENT_ID]);
int intent_duty_regions(struct duty *d, struct reader *r, struct buf *answer,
                        struct err *e);
/* A new bitmap instead of what there is. After an error there is none, which
 * is safe. */
int intent_duty_rebase(struct duty *d, const uint8_t base[INTENT_ID], bool all,
                       struct err *e);
/* None, durably. */
int intent_duty_remove(struct duty *d, struct err *e);
/* The other side has all up to `cut` on its disk; not 0. */
void intent_duty_kept(struct duty *d, uint64_t cut);

/* duty_copy.c: requests of the initial copy, and of comparing both sides. */
bool duty_is_zero(const uint8_t *p, size_t len);
int duty_copy(struct duty *d, struct reader *r, struct buf *answer,
              struct err *e);
int duty_digests(struct duty *d, struct reader *r, struct buf *answer,
                 struct err *e);
int duty_compare(struct duty *d, const void *p, size_t len, struct buf *answer,
                 struct err *e);

int duty_check(struct duty *d, struct reader *r, struct buf *answer,
               struct err *e);

/* duty_files.c */
#define DUTY_KEY 17 /* with its NUL */
/* The image's path is the one that the record has, a real one. */
void duty_path_of(const char *image, const char *suffix, char *out,
                  size_t size);
void duty_path(const struct duty *d, const char *suffix, char *out,
               size_t size);
int duty_directory_make(const char *path, struct err *e);
int duty_mark_read(struct duty *d, struct err *e);
/* The same of an image that nobody serves. */
int duty_mark_of(const char *image, enum duty_mark *mark, struct err *e);
/* Durable when it returns. */
int duty_mark_write(struct duty *d, enum duty_mark mark, struct err *e);
/* The journal's file, JOURNAL_FILE bytes of it on the disk. */
int duty_journal_file(struct duty *d, bool create, struct err *e);
/* What the journal of an image has that nobody serves. */
int duty_journal_look(const char *image, struct journal_found *found,
                      struct err *e);
void duty_journal_config(struct duty *d, struct journal_config *c);
void duty_journal_remove(struct duty *d);

/* duty_exact.c: of which epoch an image is that is no replica any more. */
struct duty_exact {
    uint64_t epoch, wall_ms;
};
/* Durable when it returns. */
int duty_exact_write(struct duty *d, uint64_t epoch, uint64_t wall_ms,
                     struct err *e);
void duty_exact_open(struct duty *d);
/* Somebody is about to write. Any thread. */
void duty_exact_forget(struct duty *d);
/* Of an image that nobody writes to. ERR_REFUSED: that is not known. */
int duty_exact_of(const char *image, struct duty_exact *x, struct err *e);

/* duty_apply.c. The control thread's: around each request. */
void apply_duty_lock(struct duty *d);
void apply_duty_unlock(struct duty *d);
/* The lock is held: until it is given up, no step of applying is under way. */
void apply_duty_hold(struct duty *d);
/* The lock is held, and given up in between: until all that is decided is
 * applied, or can't be. */
void apply_duty_wait(struct duty *d);
/* The same, until it is not far behind. */
void apply_duty_pace(struct duty *d);
void apply_duty_init(struct duty *d);
int apply_duty_start(struct duty *d, struct err *e);
/* From here on nobody applies, and there is no lock. */
void apply_duty_stop(struct duty *d);

/* duty_replica.c: with the lock held. */
int replica_duty_begin(struct duty *d, struct reader *r, struct err *e);
int replica_duty_live(struct duty *d, const void *p, size_t len, struct err *e);
int replica_duty_piece(struct duty *d, const void *p, size_t len,
                       struct err *e);
int replica_duty_prepare(struct duty *d, const struct journal_totals *t,
                         bool durable, struct buf *answer, struct err *e);
int replica_duty_secure(struct duty *d, struct err *e);
int replica_duty_decide(struct duty *d, struct err *e);
void replica_duty_drop(struct duty *d);
void replica_duty_hangup(struct duty *d);
int replica_duty_promote(struct duty *d, uint64_t epoch, struct err *e);
int replica_duty_start(struct duty *d, uint64_t epoch, struct err *e);
int replica_duty_again(struct duty *d, uint64_t epoch, struct err *e);
/* Apply all that is decided. Fine where nothing is. */
int replica_duty_settle(struct duty *d, struct err *e);
/* What was copied is on the medium. */
int replica_duty_sync(struct duty *d, struct err *e);
void replica_duty_end(struct duty *d, bool end);

#endif
