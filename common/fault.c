// SPDX-License-Identifier: Apache-2.0
/* Fault points; see fault.h. Any thread of any process of ours; several share
 * the mapped page, so taking a point is one atomic exchange of its first
 * byte. */
#include "common/fault.h"
#include "common/cleanup.h"
#include "common/log.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define FAULT_BYTES 4096

const volatile char *fault_page;
static char *page;
static char hit_path[256];
static unsigned seen;

void fault_setup(const char *dir)
{
    char path[256];

    snprintf(path, sizeof path, "%s/faults", dir);
    snprintf(hit_path, sizeof hit_path, "%s/faults.hit", dir);
    CLEANUP_CLOSE int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || ftruncate(fd, FAULT_BYTES)) {
        log_warn("fault points are off: %s: %m", path);
        return;
    }
    void *p =
        mmap(NULL, FAULT_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED)
        return;
    page = p;
    fault_page = p;
}

static void hit_record(const char *name)
{
    CLEANUP_CLOSE int fd =
        open(hit_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd >= 0)
        dprintf(fd, "%s\n", name);
}

/* The process goes on, this thread does not. */
static void hold(void)
{
    const struct timespec slice = {.tv_nsec = 5000000};

    for (int i = 0; i < 12000 && !access(hit_path, F_OK); i++)
        nanosleep(&slice, NULL);
}

bool fault_hit(const char *name)
{
    char line[128] = "", want[64] = "", action[16] = "";
    unsigned skip = 0;

    memcpy(line, page, sizeof line - 1);
    if (sscanf(line, "%63s %15s %u", want, action, &skip) < 2 ||
        strcmp(want, name) != 0)
        return false;
    if (__atomic_fetch_add(&seen, 1, __ATOMIC_RELAXED) < skip)
        return false;
    if (!__atomic_exchange_n(page, 0, __ATOMIC_SEQ_CST))
        return false; /* another process was first */
    __atomic_store_n(&seen, 0, __ATOMIC_RELAXED);
    hit_record(name);
    if (!strcmp(action, "stop"))
        raise(SIGSTOP); /* stops all threads of the process */
    else if (!strcmp(action, "kill"))
        raise(SIGKILL);
    else if (!strcmp(action, "hold"))
        hold();
    return !strcmp(action, "fail");
}
