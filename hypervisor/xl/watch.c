// SPDX-License-Identifier: Apache-2.0
/* `understudy-xl watch`: what xl's own process of a domain would do. Waits
 * until the domain shuts down, acts as its configuration says, and goes on with
 * the domain that it started instead. A process of its own, outlives the one
 * that started it; SIGTERM ends it, between two actions only. One thread. */
#include "hypervisor/xl/xl.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <libxl_event.h>
#include <libxl_uuid.h>

#include "common/cleanup.h"
#include "common/log.h"
#include "hypervisor/watcher.h"

#define DUMPS        "/var/lib/xen/dump"
#define CREATE_TRIES 5
#define GONE_TRIES   50 /* of 100 ms */

static int lock_fd = -1;
static volatile sig_atomic_t acting, ending;

static void on_term(int sig)
{
    (void)sig;
    if (!acting)
        _exit(0);
    ending = 1;
}

/* What is half done would be a VM that is gone. */
static void act_begin(void)
{
    struct flock l = watcher_flock(F_WRLCK, WATCHER_ACTS);

    acting = 1;
    if (fcntl(lock_fd, F_SETLK, &l))
        log_warn("lock: %m");
}

static void act_end(void)
{
    struct flock l = watcher_flock(F_UNLCK, WATCHER_ACTS);

    fcntl(lock_fd, F_SETLK, &l);
    acting = 0;
    if (ending)
        _exit(0);
}

void watch_detach(void)
{
    pid_t pid = fork();

    if (pid < 0) {
        log_error("fork: %m");
        _exit(1);
    }
    if (pid)
        _exit(0);
    setsid();
}

/* --- Acting ----------------------------------------------------------------
 */

static libxl_action_on_shutdown action_of(const libxl_domain_config *c,
                                          libxl_shutdown_reason reason)
{
    switch (reason) {
    case LIBXL_SHUTDOWN_REASON_POWEROFF:
        return c->on_poweroff;
    case LIBXL_SHUTDOWN_REASON_REBOOT:
        return c->on_reboot;
    case LIBXL_SHUTDOWN_REASON_CRASH:
        return c->on_crash;
    case LIBXL_SHUTDOWN_REASON_WATCHDOG:
        return c->on_watchdog;
    case LIBXL_SHUTDOWN_REASON_SOFT_RESET:
        return c->on_soft_reset;
    default:
        return LIBXL_ACTION_ON_SHUTDOWN_DESTROY;
    }
}

static void core_dump(struct xl *x, uint32_t domid, const char *name)
{
    char path[256];

    snprintf(path, sizeof path, DUMPS "/%s", name);
    log_info("dom=%s dumping its memory to %s", name, path);
    if (libxl_domain_core_dump(x->ctx, domid, path, NULL))
        log_error("dom=%s no dump: %s", name, x->said);
}

static void wait_100ms(void)
{
    struct timespec ts = {.tv_nsec = 100000000};

    nanosleep(&ts, NULL);
}

static void destroy(struct xl *x, uint32_t domid)
{
    libxl_dominfo info;
    int rc = 0;

    said_clear(x);
    if (libxl_domain_destroy(x->ctx, domid, NULL))
        log_error("domain %u: destroy: %s", domid, x->said);
    /* Its memory is wanted for the next one. */
    for (int i = 0; i < GONE_TRIES && !rc; i++) {
        libxl_dominfo_init(&info);
        rc = libxl_domain_info(x->ctx, &info, domid);
        libxl_dominfo_dispose(&info);
        if (!rc)
            wait_100ms();
    }
}

/* on_...="rename-restart": the dead domain stays, under another name. */
static bool rename_away(struct xl *x, uint32_t domid, libxl_domain_config *c)
{
    time_t now = time(NULL);
    struct tm tm;
    libxl_uuid uuid;
    char suffix[32];

    gmtime_r(&now, &tm);
    strftime(suffix, sizeof suffix, "-%Y%m%dT%H%MZ", &tm);
    libxl_uuid_generate(&uuid);
    said_clear(x);
    if (!libxl_domain_preserve(x->ctx, domid, &c->c_info, suffix, uuid))
        return true;
    log_error("dom=%s can't be renamed: %s", c->c_info.name, x->said);
    return false;
}

/* Returns the new domain, 0 when there is none. */
static uint32_t start_again(struct xl *x, libxl_domain_config *c)
{
    uint32_t domid = 0;
    struct err e = ERR_INIT;

    /* After a takeover it is another host's word what it is started from. */
    if (files_check(c, &e)) {
        log_error("dom=%s was not started again: %s; %s", c->c_info.name,
                  e.text, e.hint);
        return 0;
    }
    for (int tries = 0; tries < CREATE_TRIES; tries++) {
        said_clear(x);
        if (tries)
            sleep(2);
        if (libxl_domain_create_new(x->ctx, c, &domid, NULL, NULL))
            continue;
        if (!libxl_domain_unpause(x->ctx, domid, NULL)) {
            log_info("dom=%s started again as domain %u", c->c_info.name,
                     domid);
            return domid;
        }
        libxl_domain_destroy(x->ctx, domid, NULL);
    }
    log_error("dom=%s was not started again: %s", c->c_info.name, x->said);
    return 0;
}

static uint32_t act_as(struct xl *x, uint32_t domid, libxl_domain_config *c,
                       libxl_action_on_shutdown action)
{
    switch (action) {
    case LIBXL_ACTION_ON_SHUTDOWN_COREDUMP_DESTROY:
    case LIBXL_ACTION_ON_SHUTDOWN_COREDUMP_RESTART:
        core_dump(x, domid, c->c_info.name);
        break;
    case LIBXL_ACTION_ON_SHUTDOWN_PRESERVE:
        return 0;
    case LIBXL_ACTION_ON_SHUTDOWN_RESTART_RENAME:
        return rename_away(x, domid, c) ? start_again(x, c) : 0;
    default:
        break;
    }
    destroy(x, domid);
    if (action == LIBXL_ACTION_ON_SHUTDOWN_RESTART ||
        action == LIBXL_ACTION_ON_SHUTDOWN_COREDUMP_RESTART ||
        action == LIBXL_ACTION_ON_SHUTDOWN_SOFT_RESET)
        return start_again(x, c);
    return 0;
}

/* The domain has shut down. Returns the one that runs in its place, or 0. */
static uint32_t act(struct xl *x, uint32_t domid, libxl_shutdown_reason reason)
{
    libxl_domain_config config;
    uint32_t next = 0;

    act_begin();
    libxl_domain_config_init(&config);
    said_clear(x);
    if (libxl_retrieve_domain_configuration(x->ctx, domid, &config, NULL)) {
        log_error("domain %u: its configuration can't be read: %s", domid,
                  x->said);
    } else {
        libxl_action_on_shutdown action = action_of(&config, reason);
        log_info("dom=%s domain %u shut down (%s): %s", config.c_info.name,
                 domid, libxl_shutdown_reason_to_string(reason),
                 libxl_action_on_shutdown_to_string(action));
        next = act_as(x, domid, &config, action);
    }
    libxl_domain_config_dispose(&config);
    return next;
}

/* --- Waiting ---------------------------------------------------------------
 */

static int lock_take(const char *path, struct err *e)
{
    struct flock l = watcher_flock(F_WRLCK, WATCHER_LIVES);

    lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (lock_fd < 0)
        return err_sys(e, "open %s", path);
    if (fcntl(lock_fd, F_SETLK, &l))
        return errno == EAGAIN || errno == EACCES ? 1
                                                  : err_sys(e, "lock %s", path);
    return 0;
}

/* The answer is out: nobody listens any more. */
static void quiet(void)
{
    int fd = open("/dev/null", O_RDWR | O_CLOEXEC);

    dup2(fd, 0);
    dup2(fd, 1);
    close(fd);
    if (chdir("/"))
        log_warn("chdir: %m");
}

/* The next event of `domid`: false when the domain is gone. A guest that is
 * suspended is being saved, and may go on: wait with a new registration that
 * overlaps the old one, else the same suspend would be reported again. */
static bool shutdown_wait(struct xl *x, uint32_t domid,
                          libxl_evgen_domain_death **death,
                          libxl_shutdown_reason *reason)
{
    for (;;) {
        libxl_evgen_domain_death *next = NULL;
        libxl_event *ev;
        if (libxl_event_wait(x->ctx, &ev, LIBXL_EVENTMASK_ALL, NULL, NULL))
            return false;
        libxl_event_type type = ev->type;
        bool ours = ev->domid == domid;
        *reason = LIBXL_SHUTDOWN_REASON_UNKNOWN;
        if (type == LIBXL_EVENT_TYPE_DOMAIN_SHUTDOWN)
            *reason = ev->u.domain_shutdown.shutdown_reason;
        libxl_event_free(x->ctx, ev);
        if (ours && type == LIBXL_EVENT_TYPE_DOMAIN_DEATH)
            return false;
        if (!ours || type != LIBXL_EVENT_TYPE_DOMAIN_SHUTDOWN)
            continue;
        if (*reason != LIBXL_SHUTDOWN_REASON_SUSPEND)
            return true;
        if (libxl_evenable_domain_death(x->ctx, domid, 0, &next))
            return false;
        libxl_evdisable_domain_death(x->ctx, *death);
        *death = next;
    }
}

static int arm(struct xl *x, uint32_t domid, libxl_evgen_domain_death **death,
               struct err *e)
{
    said_clear(x);
    if (libxl_evenable_domain_death(x->ctx, domid, 0, death))
        return xl_err(x, e, "watch domain %u", domid);
    return 0;
}

int watch(struct xl *x, uint32_t domid, const char *lock, struct err *e)
{
    struct sigaction sa = {.sa_handler = on_term};
    libxl_evgen_domain_death *death = NULL;
    libxl_shutdown_reason reason;

    sigaction(SIGTERM, &sa, NULL);
    int rc = lock_take(lock, e);
    if (rc > 0)
        answer_ok(domid, NULL, 0); /* another one watches */
    if (rc || arm(x, domid, &death, e))
        return rc > 0 ? 0 : -1;
    answer_ok(domid, NULL, 0);
    quiet();
    log_info("watching domain %u", domid);
    while (shutdown_wait(x, domid, &death, &reason)) {
        uint32_t next = act(x, domid, reason);
        libxl_evdisable_domain_death(x->ctx, death);
        death = NULL;
        if (next && arm(x, next, &death, e))
            log_error("%s", e->text);
        act_end();
        if (!death)
            break;
        domid = next;
    }
    if (death)
        libxl_evdisable_domain_death(x->ctx, death);
    return 0;
}
