// SPDX-License-Identifier: Apache-2.0
/* The directory of a witness, and serving it; see witness_service.h. */
#include "heartbeat/witness_service.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/log.h"
#include "common/notify.h"

/* --- The directory ------------------------------------------------------- */

static int hosts_load(struct witness_service *s, struct err *e)
{
    char path[300];

    snprintf(path, sizeof path, "%s/hosts", s->path);
    return peers_load(&s->hosts, path, e);
}

/* A verb has it for some milliseconds. */
static int dir_lock(struct witness_dir *d, const char *path, struct err *e)
{
    for (int i = 0; i < 100; i++) {
        if (!witness_dir_open(d, path, e))
            return 0;
        if (e->kind != ERR_REFUSED)
            return -1;
        usleep(20000);
    }
    return -1;
}

static int dir_open(struct witness_service *s, const char *path, bool make,
                    struct err *e)
{
    memset(s, 0, sizeof *s);
    s->control = s->dir.dir = s->dir.fd = -1;
    if (snprintf(s->path, sizeof s->path, "%s", path) >= (int)sizeof s->path)
        return err_kind(e, ERR_USAGE, "the path %.64s.. is too long", path);
    return dir_lock(&s->dir, path, e) ||
                   link_key_load(path, make, &s->key, e) || hosts_load(s, e)
               ? -1
               : 0;
}

int witness_service_init(struct witness_service *s, const char *path,
                         struct err *e)
{
    if (mkdir(path, 0700) && access(path, F_OK))
        return err_sys(e, "make %s", path);
    return dir_open(s, path, true, e) || witness_file_init(&s->dir, &s->w, e)
               ? -1
               : 0;
}

int witness_service_open(struct witness_service *s, const char *path,
                         struct err *e)
{
    if (!dir_open(s, path, false, e) && !witness_file_load(&s->dir, &s->w, e))
        return 0;
    if (access(path, F_OK) == 0 && e->kind != ERR_GONE)
        return -1;
    return err_hint(e, "understudy-witness init makes a new one; it knows no "
                       "VM, so that all have to be protected anew");
}

void witness_service_close(struct witness_service *s)
{
    witness_free(&s->w);
    peers_free(&s->hosts);
    link_key_free(s->key);
    witness_dir_close(&s->dir);
}

/* --- Serving ------------------------------------------------------------- */

static void on_signal(struct ev_loop *loop, ev_signal *w, int events)
{
    (void)events;
    log_info("signal %d: the witness ends", w->signum);
    ev_break(loop, EVBREAK_ALL);
}

static void files_allow(void)
{
    struct rlimit l;

    if (getrlimit(RLIMIT_NOFILE, &l) || l.rlim_cur >= 2048)
        return;
    l.rlim_cur = l.rlim_max < 2048 ? l.rlim_max : 2048;
    setrlimit(RLIMIT_NOFILE, &l);
}

int witness_service_run(struct witness_service *s, const char *address,
                        uint16_t port, struct err *e)
{
    ev_signal term, interrupt;

    files_allow();
    s->loop = ev_default_loop(EVFLAG_AUTO);
    ev_signal_init(&term, on_signal, SIGTERM);
    ev_signal_init(&interrupt, on_signal, SIGINT);
    ev_signal_start(s->loop, &term);
    ev_signal_start(s->loop, &interrupt);
    int rc = witness_server_start(s, address, port, e) ||
             witness_control_start(s, e);
    if (!rc) {
        notify("READY=1");
        ev_run(s->loop, 0);
        notify("STOPPING=1");
    }
    witness_control_stop(s);
    witness_server_stop(s);
    if (rc || !s->failure.kind)
        return rc ? -1 : 0;
    *e = s->failure;
    return -1;
}
