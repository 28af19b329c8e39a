// SPDX-License-Identifier: Apache-2.0
/* What this host's disk remembers of a replica's image; see duty.h. The control
 * thread's, and the server's at its start. */
#include "disk-replicate/duty_private.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "common/cleanup.h"
#include "common/file.h"

/* Twice the largest log of a primary, and what describes it. */
#define JOURNAL_FILE ((160ull << 20) + JOURNAL_START)

static const char *const marks[] = {
    [MARK_SYNCING] = "syncing\n", [MARK_WHOLE] = "whole\n"};

void duty_path_of(const char *image, const char *suffix, char *out, size_t size)
{
    const char *root = getenv("UNDERSTUDY_ROOT");

    snprintf(out, size, "%s/var/lib/understudy/disk/%016lx%s", root ? root : "",
             XXH3_64bits(image, strlen(image)), suffix);
}

void duty_path(const struct duty *d, const char *suffix, char *out, size_t size)
{
    duty_path_of(d->image->path, suffix, out, size);
}

/* /var/lib/understudy is the daemon's; in a lab it may come after us. */
int duty_directory_make(const char *path, struct err *e)
{
    char dir[512];

    for (const char *p = strstr(path, "/var/lib/"); p; p = strchr(p + 1, '/')) {
        snprintf(dir, sizeof dir, "%.*s", (int)(p - path), path);
        if (*dir && mkdir(dir, 0700) && errno != EEXIST)
            return err_sys(e, "make %s", dir);
    }
    return 0;
}

int duty_mark_of(const char *image, enum duty_mark *mark, struct err *e)
{
    struct buf b = {0};
    char path[512];
    struct err why = ERR_INIT;

    duty_path_of(image, ".replica", path, sizeof path);
    *mark = MARK_NONE;
    int rc = file_load(path, 64, &b, &why);
    if (rc && why.kind == ERR_GONE)
        return 0;
    if (rc) {
        *e = why;
        return -1;
    }
    /* Damage is no reason to trust the image. */
    bool whole = b.len == strlen(marks[MARK_WHOLE]) &&
                 !memcmp(b.data, marks[MARK_WHOLE], b.len);
    *mark = whole ? MARK_WHOLE : MARK_SYNCING;
    buf_free(&b);
    return 0;
}

int duty_mark_read(struct duty *d, struct err *e)
{
    return duty_mark_of(d->image->path, &d->mark, e);
}

int duty_mark_write(struct duty *d, enum duty_mark mark, struct err *e)
{
    char path[512];

    duty_path(d, ".replica", path, sizeof path);
    if (mark == MARK_NONE) {
        if (unlink(path) && errno != ENOENT)
            return err_sys(e, "remove %s", path);
        if (file_sync_dir(path, e))
            return -1;
    } else if (duty_directory_make(path, e) ||
               file_replace(path, marks[mark], strlen(marks[mark]), true, e)) {
        return -1;
    }
    d->mark = mark;
    duty_role_note(d);
    return 0;
}

static void journal_id(const char *image, uint8_t id[JOURNAL_ID])
{
    XXH128_hash_t h = XXH3_128bits(image, strlen(image));

    put_le64(id, h.low64);
    put_le64(id + 8, h.high64);
}

int duty_journal_look(const char *image, struct journal_found *found,
                      struct err *e)
{
    struct store file = {&store_fd_ops, -1, "journal"};
    struct journal_config c = {.log = &file, .log_bytes = JOURNAL_FILE};
    char path[512];

    duty_path_of(image, ".journal", path, sizeof path);
    CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return err_sys(e, "open %s", path);
    file.fd = fd;
    journal_id(image, c.id);
    return journal_look(&c, found, e);
}

int duty_journal_file(struct duty *d, bool create, struct err *e)
{
    char path[512];
    int flags = O_RDWR | O_CLOEXEC | (create ? O_CREAT : 0);

    duty_path(d, ".journal", path, sizeof path);
    if (create && duty_directory_make(path, e))
        return -1;
    CLEANUP_CLOSE int fd = open(path, flags, 0600);
    if (fd < 0)
        return err_sys(e, "open %s", path);
    int r = create ? posix_fallocate(fd, 0, (off_t)JOURNAL_FILE) : 0;
    if (r) {
        errno = r;
        return err_sys(e, "the disk's journal, %s, of %llu MiB", path,
                       JOURNAL_FILE >> 20);
    }
    if (d->journal_file.fd >= 0)
        close(d->journal_file.fd);
    d->journal_file = (struct store){&store_fd_ops, take_fd(&fd), "journal"};
    return 0;
}

void duty_journal_config(struct duty *d, struct journal_config *c)
{
    *c = (struct journal_config){.log = &d->journal_file,
                                 .image = &d->image->store,
                                 .log_bytes = JOURNAL_FILE,
                                 .image_bytes = d->image->bytes};
    journal_id(d->image->path, c->id);
}

void duty_journal_remove(struct duty *d)
{
    char path[512];

    duty_path(d, ".journal", path, sizeof path);
    unlink(path);
    if (d->journal_file.fd >= 0)
        close(d->journal_file.fd);
    d->journal_file.fd = -1;
}
