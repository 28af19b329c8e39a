// SPDX-License-Identifier: Apache-2.0
/* Where everything lies; see paths.h. Any thread. */
#include "agent/paths.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

__attribute__((format(printf, 1, 2))) static struct path rooted(const char *fmt,
                                                                ...)
{
    struct path p;
    const char *root = getenv("UNDERSTUDY_ROOT");
    va_list ap;

    int n = snprintf(p.s, sizeof p.s, "%s", root ? root : "");
    if (n < 0 || (size_t)n >= sizeof p.s)
        n = (int)sizeof p.s - 1;
    va_start(ap, fmt);
    vsnprintf(p.s + n, sizeof p.s - (size_t)n, fmt, ap);
    va_end(ap);
    return p;
}

struct path path_etc(void)
{
    return rooted("/etc/understudy");
}

struct path path_vms(void)
{
    return rooted("/var/lib/understudy/vms");
}

struct path path_run(void)
{
    return rooted("/run/understudy");
}

struct path path_config(void)
{
    const char *other = getenv("UNDERSTUDY_CONFIG");
    struct path p;

    if (!other || !other[0])
        return rooted("/etc/understudy/understudyd.conf");
    snprintf(p.s, sizeof p.s, "%s", other);
    return p;
}

struct path path_peers(void)
{
    return rooted("/etc/understudy/peers");
}

struct path path_arbiter(void)
{
    return rooted("/etc/understudy/arbiter");
}

struct path path_record(const char *uuid)
{
    return rooted("/var/lib/understudy/vms/%s.json", uuid);
}

struct path path_cold(const char *uuid)
{
    return rooted("/var/lib/understudy/cold/%s", uuid);
}

struct path path_lock(void)
{
    return rooted("/run/understudy/understudyd.lock");
}

struct path path_control(void)
{
    return rooted("/run/understudy/control.sock");
}

struct path path_watchdog(void)
{
    return rooted("/run/understudy/watchdog");
}

struct path path_vm(const char *uuid)
{
    return rooted("/run/understudy/vm/%s.sock", uuid);
}

struct path path_agent(const char *uuid)
{
    return rooted("/run/understudy/%s.agent", uuid);
}

struct path path_flag(const char *uuid)
{
    return rooted("/run/understudy/%s.suspend", uuid);
}

struct path path_watch(const char *uuid)
{
    return rooted("/run/understudy/%s.watch", uuid);
}

struct path path_here(const char *uuid)
{
    return rooted("/run/understudy/%s.here", uuid);
}

struct path path_takeover(const char *uuid)
{
    return rooted("/run/understudy/%s.takeover", uuid);
}

/* mkdir -p; the parents get 0755. */
static int dir_make(const char *path, mode_t mode, struct err *e)
{
    char part[sizeof(struct path)];

    snprintf(part, sizeof part, "%s", path);
    for (char *p = part + 1; *p; p++) {
        if (*p != '/')
            continue;
        *p = '\0';
        if (mkdir(part, 0755) && errno != EEXIST)
            return err_sys(e, "create directory %s", part);
        *p = '/';
    }
    if (mkdir(part, mode) && errno != EEXIST)
        return err_sys(e, "create directory %s", part);
    /* umask may have taken bits away, an older version given too many. */
    if (mode == 0700 && chmod(part, mode))
        return err_sys(e, "chmod %s", part);
    return 0;
}

int paths_setup(struct err *e)
{
    struct path root = rooted("%s", "");

    if (root.s[0] && root.s[0] != '/')
        return err_kind(e, ERR_USAGE, "UNDERSTUDY_ROOT is not absolute: %s",
                        root.s);
    if (dir_make(path_etc().s, 0755, e) || dir_make(path_vms().s, 0700, e) ||
        dir_make(rooted("/var/lib/understudy/cold").s, 0700, e) ||
        dir_make(path_run().s, 0700, e) ||
        dir_make(rooted("/run/understudy/vm").s, 0700, e))
        return -1;
    return 0;
}
