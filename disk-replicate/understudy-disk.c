// SPDX-License-Identifier: Apache-2.0
/* The program understudy-disk: serves disks on the kernel's network block
 * devices, started and stopped by the Xen script block-understudy. Options and
 * verbs; what happens is in keeper.c and disk.c. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/fault.h"
#include "common/log.h"
#include "disk-replicate/disk.h"
#include "disk-replicate/guard.h"
#include "disk-replicate/record.h"

#define WORKERS      16
#define REQUEST_S    5
#define DEAD_S       600
#define LOCK_WAIT_MS 60000
#define STOP_WAIT_MS 20000

enum { EXIT_FINE, EXIT_ERROR, EXIT_USAGE };

static const char usage_text[] =
    "usage: understudy-disk serve [OPTION...] ID IMAGE\n"
    "       understudy-disk stop | resume ID\n"
    "       understudy-disk list\n"
    "\n"
    "  -r, --read-only          writes fail\n"
    "  -g, --guest              refuse an image that is a replica\n"
    "  -t, --request-timeout S  a request that takes longer is sent again (5)\n"
    "  -d, --dead-timeout S     without a server requests fail after this "
    "(600)\n"
    "  -w, --workers N          requests at once, 1 to 64 (16)\n"
    "  -V, --version; -h, --help\n";

static int fail(const struct err *e)
{
    fprintf(stderr, "understudy-disk: %s\n", e->text);
    if (e->hint[0])
        fprintf(stderr, "  what to do: %s\n", e->hint);
    return e->kind == ERR_USAGE ? EXIT_USAGE : EXIT_ERROR;
}

static int usage(void)
{
    fputs(usage_text, stderr);
    return EXIT_USAGE;
}

/* --- The keeper's process ------------------------------------------------- */

/* Standard error becomes the disk's log; nothing of the caller's stays open
 * but the pipe and the record's lock. */
static void background(const char *id, int ready_fd, int lock_fd)
{
    int null = open("/dev/null", O_RDWR), log = record_log_open(id);

    setsid();
    dup2(null, STDIN_FILENO);
    dup2(null, STDOUT_FILENO);
    dup2(log >= 0 ? log : null, STDERR_FILENO);
    for (int fd = STDERR_FILENO + 1; fd < 256; fd++)
        if (fd != ready_fd && fd != lock_fd)
            close(fd);
    if (chdir("/"))
        log_warn("disk=%s chdir: %s", id, strerror(errno));
}

static void faults_setup(void)
{
    const char *root = getenv("UNDERSTUDY_ROOT");
    char dir[PATH_MAX];

    snprintf(dir, sizeof dir, "%s/run/understudy", root ? root : "");
    fault_setup(dir);
}

static int keeper_process(const struct disk_config *c, int ready_fd,
                          int lock_fd)
{
    char name[DISK_ID + 8];

    snprintf(name, sizeof name, "disk %s", c->id);
    background(c->id, ready_fd, lock_fd);
    log_setup(name, LOG_INFO);
    faults_setup();
    int status = disk_keep(c, ready_fd);
    record_remove(c->id);
    return status;
}

/* What the keeper says: the device, or an error. */
static int ready_read(int fd, struct err *e)
{
    char text[2048];
    size_t len = 0;
    ssize_t r;

    while (len < sizeof text - 1 &&
           (r = read(fd, text + len, sizeof text - 1 - len)) > 0) {
        len += (size_t)r;
        if (text[0] == '/' && text[len - 1] == '\n')
            break;
    }
    text[len] = '\0';
    if (text[0] == '/') {
        fputs(text, stdout);
        return 0;
    }
    char *line = strtok(text, "\n");
    if (!line || strcmp(line, "error") != 0)
        return err_set(e, "the server ended without a word");
    line = strtok(NULL, "\n");
    err_set(e, "%s", line ? line : "");
    line = strtok(NULL, "\n");
    return line ? err_hint(e, "%s", line) : -1;
}

static int keeper_start(const struct disk_config *c, int lock_fd, struct err *e)
{
    int ready[2];

    if (pipe(ready))
        return err_sys(e, "pipe");
    pid_t pid = fork();
    if (pid == 0)
        _exit(keeper_process(c, ready[1], lock_fd));
    close(ready[1]);
    int rc = pid < 0 ? err_sys(e, "fork") : ready_read(ready[0], e);
    close(ready[0]);
    return rc;
}

/* --- Verbs ---------------------------------------------------------------- */

static int serve(struct disk_config *c, bool guest, struct err *e)
{
    CLEANUP_CLOSE int lock_fd = -1;
    char path[PATH_MAX];

    if (!record_id_valid(c->id))
        return err_kind(e, ERR_USAGE, "'%s' is no id of a disk", c->id);
    if (!realpath(c->image, path)) {
        bool missing = errno == ENOENT;
        err_sys(e, "disk image %s", c->image);
        return missing ? err_hint(e,
                                  "on a backup: understudy disk create %s "
                                  "PEER",
                                  c->image)
                       : -1;
    }
    if (strlen(path) >= sizeof c->image)
        return err_kind(e, ERR_USAGE, "the image's path is too long");
    strcpy(c->image, path);
    if (guard_check(c->image, c->read_only, guest, e))
        return -1;
    if (record_create(c, &lock_fd, e))
        return -1;
    return keeper_start(c, lock_fd, e);
}

static int resume(struct disk_config *c, struct err *e)
{
    CLEANUP_CLOSE int lock_fd = -1;
    char name[NBDLINK_NAME];
    long server;
    int index;

    if (record_load(c->id, c, &server, e) || record_lock(c->id, 0, &lock_fd, e))
        return -1;
    disk_name(c->id, name);
    if (c->link->ops->find(c->link, name, &index, e)) {
        record_remove(c->id);
        return -1;
    }
    c->again = true;
    return keeper_start(c, lock_fd, e);
}

/* The kernel tells the server to end, and the keeper ends with it. Where both
 * are gone there is only the device to free. */
static int stop(const struct disk_config *c, struct err *e)
{
    CLEANUP_CLOSE int lock_fd = -1;
    char name[NBDLINK_NAME];
    struct err why = ERR_INIT;
    int index;

    disk_name(c->id, name);
    if (!c->link->ops->find(c->link, name, &index, &why)) {
        if (c->link->ops->disconnect(c->link, name, index, e))
            return -1;
    } else if (why.kind != ERR_GONE) {
        *e = why;
        return -1;
    }
    err_clear(&why);
    if (!record_lock(c->id, STOP_WAIT_MS, &lock_fd, &why)) {
        record_remove(c->id);
        return 0;
    }
    if (why.kind == ERR_GONE)
        return 0;
    *e = why;
    return err_add(e, "after it was disconnected");
}

static void list_line(void *arg, const char *id)
{
    struct disk_config c = {.link = arg};
    char name[NBDLINK_NAME], device[32] = "-";
    int index, lock_fd = -1;
    struct err e = ERR_INIT;
    long server;

    if (record_load(id, &c, &server, &e))
        return;
    disk_name(id, name);
    if (!c.link->ops->find(c.link, name, &index, &e))
        snprintf(device, sizeof device, "/dev/nbd%d", index);
    bool alive = record_lock(id, 0, &lock_fd, &e) != 0;
    if (!alive)
        close(lock_fd);
    printf("%-20s %-11s %7ld  %s\n", id, device, alive ? server : 0, c.image);
}

static int list(const struct disk_config *c, struct err *e)
{
    return record_list(list_line, c->link, e) < 0 ? -1 : 0;
}

/* --- Options -------------------------------------------------------------- */

static bool number_read(const char *text, unsigned max, unsigned *out)
{
    char *end;
    unsigned long v = strtoul(text, &end, 10);

    *out = (unsigned)v;
    return *text && !*end && v > 0 && v <= max;
}

static bool option_take(int option, struct disk_config *c, bool *guest)
{
    switch (option) {
    case 'g':
        *guest = true;
        return true;
    case 'r':
        c->read_only = true;
        return true;
    case 't':
        return number_read(optarg, 3600, &c->request_s);
    case 'd':
        return number_read(optarg, 1u << 20, &c->dead_s);
    case 'w':
        return number_read(optarg, 64, &c->workers);
    default:
        return false;
    }
}

static int verb_do(struct disk_config *c, bool guest, int argc, char **argv)
{
    const char *verb = argc > 0 ? argv[0] : "";
    struct err e = ERR_INIT;
    int rc;

    if (argc > 1)
        snprintf(c->id, sizeof c->id, "%s", argv[1]);
    if (argc > 1 && strcmp(c->id, argv[1]) != 0)
        return usage();
    if (argc == 3 && !strcmp(verb, "serve")) {
        snprintf(c->image, sizeof c->image, "%s", argv[2]);
        rc = serve(c, guest, &e);
    } else if (argc == 2 && !strcmp(verb, "stop")) {
        rc = stop(c, &e);
    } else if (argc == 2 && !strcmp(verb, "resume")) {
        rc = resume(c, &e);
    } else if (argc == 1 && !strcmp(verb, "list")) {
        rc = list(c, &e);
    } else {
        return usage();
    }
    return rc ? fail(&e) : EXIT_FINE;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"read-only", no_argument, NULL, 'r'},
        {"guest", no_argument, NULL, 'g'},
        {"request-timeout", required_argument, NULL, 't'},
        {"dead-timeout", required_argument, NULL, 'd'},
        {"workers", required_argument, NULL, 'w'},
        {"version", no_argument, NULL, 'V'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0}};
    struct disk_config c = {.workers = WORKERS,
                            .request_s = REQUEST_S,
                            .dead_s = DEAD_S,
                            .lock_wait_ms = LOCK_WAIT_MS,
                            .link = &nbdlink_kernel};
    bool guest = false;
    int option;

    log_setup("understudy-disk", LOG_INFO);
    if (getenv("UNDERSTUDY_NBD"))
        c.link = &nbdlink_fake;
    signal(SIGPIPE, SIG_IGN);
    signal(SIGIO, SIG_IGN); /* guard.h */
    while ((option = getopt_long(argc, argv, "rgt:d:w:Vh", options, NULL)) !=
           -1) {
        if (option == 'V') {
            puts("understudy-disk " UNDERSTUDY_VERSION);
            return EXIT_FINE;
        }
        if (option == 'h') {
            fputs(usage_text, stdout);
            return EXIT_FINE;
        }
        if (!option_take(option, &c, &guest))
            return usage();
    }
    return verb_do(&c, guest, argc - optind, argv + optind);
}
