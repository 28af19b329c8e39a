// SPDX-License-Identifier: Apache-2.0
/* Records of the disks being served; see record.h. */
#include "disk-replicate/record.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/clock.h"

#define LOOKED_MS 200 /* look.h has it for an instant */
#define RETRY_MS  10

struct path {
    char s[RECORD_PATH];
};

static struct path path_of(const char *id, const char *suffix)
{
    const char *root = getenv("UNDERSTUDY_ROOT");
    struct path p;

    snprintf(p.s, sizeof p.s, "%s/run/understudy/disk/%s%s", root ? root : "",
             id, suffix);
    return p;
}

bool record_id_valid(const char *id)
{
    size_t n = strlen(id);

    return n > 0 && n < DISK_ID && id[0] != '.' &&
           strspn(id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                      "0123456789._-") == n;
}

/* The daemon makes /run/understudy with the same mode. */
static int directory_make(struct err *e)
{
    struct path p = path_of("", "");
    char *last = strstr(p.s, "/disk/");

    for (int i = 0; i < 2; i++) {
        last[i ? 5 : 0] = '\0';
        if (mkdir(p.s, 0700) && errno != EEXIST)
            return err_sys(e, "make %s", p.s);
        last[i ? 5 : 0] = '/';
    }
    return 0;
}

static int lock_wait(int fd, unsigned wait_ms)
{
    const struct timespec pause = {.tv_nsec = RETRY_MS * (long)NS_PER_MS};
    uint64_t end = clock_ns() + wait_ms * NS_PER_MS;

    while (flock(fd, LOCK_EX | LOCK_NB)) {
        if (errno != EWOULDBLOCK || clock_ns() >= end)
            return -1;
        nanosleep(&pause, NULL);
    }
    return 0;
}

static int record_open(const char *id, int flags, unsigned wait_ms,
                       int *lock_fd, struct err *e)
{
    struct path p = path_of(id, "");
    CLEANUP_CLOSE int fd = open(p.s, O_RDWR | O_APPEND | flags, 0600);

    if (fd < 0 && errno == ENOENT)
        return err_kind(e, ERR_GONE, "there is no disk %s", id);
    if (fd < 0)
        return err_sys(e, "open %s", p.s);
    if (lock_wait(fd, wait_ms) && errno == EWOULDBLOCK)
        return err_kind(e, ERR_REFUSED, "disk %s is being served", id);
    *lock_fd = take_fd(&fd);
    return 0;
}

int record_create(const struct disk_config *c, int *lock_fd, struct err *e)
{
    CLEANUP_CLOSE int fd = -1;

    if (strchr(c->image, '\n'))
        return err_kind(e, ERR_USAGE, "the image's path has a line end in it");
    if (directory_make(e) || record_open(c->id, O_CREAT, LOOKED_MS, &fd, e))
        return -1;
    if (ftruncate(fd, 0) ||
        dprintf(fd,
                "image=%s\nread_only=%d\nworkers=%u\nrequest_s=%u\n"
                "dead_s=%u\n",
                c->image, c->read_only, c->workers, c->request_s,
                c->dead_s) < 0)
        return err_sys(e, "write the record of disk %s", c->id);
    *lock_fd = take_fd(&fd);
    return 0;
}

int record_lock(const char *id, unsigned wait_ms, int *lock_fd, struct err *e)
{
    return record_open(id, 0, wait_ms, lock_fd, e);
}

void record_server(const char *id)
{
    struct path p = path_of(id, "");
    CLEANUP_CLOSE int fd = open(p.s, O_WRONLY | O_APPEND | O_CLOEXEC);

    if (fd >= 0)
        (void)!dprintf(fd, "server=%d\n", getpid());
}

static void line_take(struct disk_config *c, long *server, char *line)
{
    char *value = strchr(line, '=');

    if (!value)
        return;
    *value++ = '\0';
    value[strcspn(value, "\n")] = '\0';
    unsigned number = (unsigned)strtoul(value, NULL, 10);
    if (!strcmp(line, "image"))
        snprintf(c->image, sizeof c->image, "%s", value);
    else if (!strcmp(line, "read_only"))
        c->read_only = number;
    else if (!strcmp(line, "workers"))
        c->workers = number;
    else if (!strcmp(line, "request_s"))
        c->request_s = number;
    else if (!strcmp(line, "dead_s"))
        c->dead_s = number;
    else if (!strcmp(line, "server"))
        *server = (long)number;
}

int record_load(const char *id, struct disk_config *c, long *server,
                struct err *e)
{
    struct path p = path_of(id, "");
    char line[DISK_PATH + 16];
    FILE *f = fopen(p.s, "re");

    if (!f && errno == ENOENT)
        return err_kind(e, ERR_GONE, "there is no disk %s", id);
    if (!f)
        return err_sys(e, "open %s", p.s);
    if (id != c->id)
        snprintf(c->id, sizeof c->id, "%s", id);
    *server = 0;
    while (fgets(line, sizeof line, f))
        line_take(c, server, line);
    fclose(f);
    if (!c->image[0] || !c->workers || !c->request_s || !c->dead_s)
        return err_set(e, "%s is not whole", p.s);
    return 0;
}

static const char *const beside[] = {".log", ".ctl", ".page", ".touched"};
#define BESIDE (sizeof beside / sizeof beside[0])

void record_path(const char *id, const char *suffix, char out[RECORD_PATH])
{
    snprintf(out, RECORD_PATH, "%s", path_of(id, suffix).s);
}

void record_remove(const char *id)
{
    unlink(path_of(id, "").s);
    for (size_t i = 0; i < BESIDE; i++)
        unlink(path_of(id, beside[i]).s);
}

int record_log_open(const char *id)
{
    return open(path_of(id, ".log").s,
                O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

static int is_record(const struct dirent *x)
{
    const char *dot = strrchr(x->d_name, '.');

    for (size_t i = 0; dot && i < BESIDE; i++)
        if (!strcmp(dot, beside[i]))
            return 0;
    return record_id_valid(x->d_name);
}

int record_list(void (*each)(void *arg, const char *id), void *arg,
                struct err *e)
{
    struct path p = path_of("", "");
    struct dirent **all;
    int n = scandir(p.s, &all, is_record, alphasort);

    if (n < 0 && errno == ENOENT)
        return 0;
    if (n < 0)
        return err_sys(e, "list %s", p.s);
    for (int i = 0; i < n; i++) {
        each(arg, all[i]->d_name);
        free(all[i]);
    }
    free(all);
    return n;
}
