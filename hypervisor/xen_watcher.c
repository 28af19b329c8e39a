// SPDX-License-Identifier: Apache-2.0
/* Who acts when a domain shuts down: finding, starting and ending watchers.
 * Ours is `understudy-xl watch` (hypervisor/xl/watch.c), known by its lock
 * file; xl's is the process that `xl create` and `xl restore` leave behind,
 * known by what it wrote into its log. Called by jobs and by the loop. */
#include "hypervisor/xen.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/log.h"
#include "hypervisor/watcher.h"

#define START_S  30
#define LOG_TAIL 65536
#define XL_LOGS  "/var/log/xen/xl-"

/* --- Other people's processes -------------------------------------------- */

static bool link_read(char *out, size_t size, int pid, const char *name)
{
    char path[64];

    snprintf(path, sizeof path, "/proc/%d/%s", pid, name);
    ssize_t n = readlink(path, out, size - 1);
    if (n < 0)
        return false;
    out[n] = '\0';
    return true;
}

static bool runs_program(int pid, const char *program)
{
    char exe[512], *gone;

    if (!link_read(exe, sizeof exe, pid, "exe"))
        return false;
    gone = strstr(exe, " (deleted)"); /* the package was upgraded */
    if (gone)
        *gone = '\0';
    const char *name = strrchr(exe, '/');
    return name && !strcmp(name + 1, program);
}

/* The pid of a process for which `is` holds; 0: there is none. */
static int process_find(bool (*is)(int pid, uint32_t domid), uint32_t domid)
{
    DIR *dir = opendir("/proc");
    struct dirent *entry;
    int found = 0;

    while (dir && !found && (entry = readdir(dir))) {
        int pid = atoi(entry->d_name);
        if (isdigit((unsigned char)entry->d_name[0]) && is(pid, domid))
            found = pid;
    }
    if (dir)
        closedir(dir);
    return found;
}

/* xl's watcher tells its log whom it waits for, and again after each reboot:
 * "Waiting for domain NAME (domid N) to die [pid P]". */
static bool waits_for(int pid, uint32_t domid)
{
    char path[64], *at, *last = NULL;
    unsigned id;
    int writer;
    struct stat st;

    snprintf(path, sizeof path, "/proc/%d/fd/1", pid);
    CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 || fstat(fd, &st) || !S_ISREG(st.st_mode))
        return false;
    CLEANUP_FREE char *text = calloc(1, LOG_TAIL + 1);
    off_t from = st.st_size > LOG_TAIL ? st.st_size - LOG_TAIL : 0;
    if (!text || pread(fd, text, LOG_TAIL, from) <= 0)
        return false;
    for (at = text; (at = strstr(at, "Waiting for domain ")); at++)
        last = at;
    at = last ? strstr(last, " (domid ") : NULL;
    return at && sscanf(at, " (domid %u) to die [pid %d]", &id, &writer) == 2 &&
           id == domid && writer == pid;
}

static bool is_xl_watcher(int pid, uint32_t domid)
{
    char log[512];

    return runs_program(pid, "xl") && link_read(log, sizeof log, pid, "fd/1") &&
           !strncmp(log, XL_LOGS, strlen(XL_LOGS)) && waits_for(pid, domid);
}

/* libxl saves in a process of its own, started with "--save-domain", two
 * descriptors and the domain's number. */
static bool is_saver(int pid, uint32_t domid)
{
    char path[64], args[256] = "", *arg = args;

    if (!runs_program(pid, "libxl-save-helper"))
        return false;
    snprintf(path, sizeof path, "/proc/%d/cmdline", pid);
    CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || read(fd, args, sizeof args - 1) <= 0)
        return false;
    for (int i = 0; i < 4; i++) {
        if (i == 1 && strcmp(arg, "--save-domain"))
            return false;
        arg += strlen(arg) + 1;
        if (arg >= args + sizeof args)
            return false;
    }
    return strtoul(arg, NULL, 10) == domid;
}

bool xen_is_saved(uint32_t domid)
{
    return process_find(is_saver, domid) != 0;
}

/* --- Watchers --------------------------------------------------------------
 */

int xen_watcher_start(struct hv *hv, uint32_t domid, const char *lock,
                      struct err *e)
{
    char id[16];

    (void)hv;
    if (process_find(is_xl_watcher, domid))
        return 0;
    snprintf(id, sizeof id, "%u", domid);
    const char *argv[] = {"watch", id, lock, NULL};
    if (xen_xl(argv, NULL, 0, START_S, NULL, NULL, e))
        return err_add(e, "start a watcher of domain %u", domid);
    return 0;
}

/* A process that is what it seems also after its descriptor was opened. */
static bool end_process(int pid, bool (*is)(int pid, uint32_t domid),
                        uint32_t domid)
{
    CLEANUP_CLOSE int fd = (int)syscall(SYS_pidfd_open, pid, 0);

    return fd >= 0 && (!is || is(pid, domid)) &&
           !syscall(SYS_pidfd_send_signal, fd, SIGTERM, NULL, 0);
}

int xen_watcher_end(struct hv *hv, uint32_t domid, const char *lock,
                    struct err *e)
{
    int pid = watcher_holder(lock, WATCHER_LIVES);

    (void)hv;
    (void)e;
    if (pid > 0 && end_process(pid, NULL, 0))
        log_info("domain %u: ended our watcher, pid %d", domid, pid);
    pid = process_find(is_xl_watcher, domid);
    if (pid && end_process(pid, is_xl_watcher, domid))
        log_info("domain %u: ended xl's watcher, pid %d", domid, pid);
    return 0;
}

enum hv_watcher xen_watcher(struct hv *hv, uint32_t domid, const char *lock)
{
    (void)hv;
    if (watcher_holder(lock, WATCHER_ACTS) > 0)
        return HV_WATCHER_ACTS;
    if (watcher_holder(lock, WATCHER_LIVES) > 0 ||
        process_find(is_xl_watcher, domid))
        return HV_WATCHER_WAITS;
    return HV_WATCHER_NONE;
}
