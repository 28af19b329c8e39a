// SPDX-License-Identifier: Apache-2.0
/* The daemon's main(): options, the single instance, start and end; or, as
 * `understudyd agent ROLE UUID`, one VM's agent. */
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "agent/agent.h"
#include "agent/control.h"
#include "agent/daemon_arbiter.h"
#include "agent/hosts.h"
#include "agent/lock.h"
#include "agent/paths.h"
#include "agent/reprotect.h"
#include "agent/supervise.h"
#include "agent/watchdog.h"
#include "common/cleanup.h"
#include "common/fault.h"
#include "common/log.h"
#include "common/notify.h"
#include "net-buffer/netbuf.h"

static const char usage[] =
    "usage: understudyd [-f] [-c FILE]\n"
    "  -f, --foreground   stay in the foreground (the default; for services)\n"
    "  -d, --daemon       go to the background\n"
    "  -c, --config FILE  instead of /etc/understudy/understudyd.conf\n"
    "  -V, --version      print the version\n"
    "  -h, --help         print this\n";

/* --- Start and end ------------------------------------------------------ */

static int instance_lock(struct err *e)
{
    if (lock_take(path_lock().s, e) >= 0)
        return 0;
    if (e->kind != ERR_REFUSED)
        return -1;
    err_add(e, "understudyd runs already");
    return err_hint(e, "`understudy version` talks to it");
}

static void on_signal(struct ev_loop *loop, ev_signal *w, int events)
{
    (void)events;
    log_info("signal %d: the daemon ends, agents go on", w->signum);
    ev_break(loop, EVBREAK_ALL);
}

static int daemon_setup(struct daemon *d, const char *config, struct err *e)
{
    const char *name = getenv("UNDERSTUDY_NAME");

    if (paths_setup(e) || instance_lock(e))
        return -1;
    fault_setup(path_run().s);
    watchdog_adopt();
    if (config_load(&d->cfg, config, e))
        return -1;
    watchdog_start(d);
    log_setup("understudyd", d->cfg.log);
    config_export(&d->cfg);
    if (name && name[0])
        snprintf(d->name, sizeof d->name, "%s", name);
    else if (gethostname(d->name, sizeof d->name - 1))
        return err_sys(e, "gethostname");
    d->name[strcspn(d->name, ".")] = '\0';
    if (!d->name[0])
        return err_set(e, "this host has no name");
    if (link_key_load(path_etc().s, true, &d->key, e) ||
        link_tls_new(d->key, &d->tls, e) ||
        peers_load(&d->peers, path_peers().s, e))
        return -1;
    return hosts_start(d, e) || darbiter_start(d, e) || control_start(d, e) ||
                   supervise_start(d, e)
               ? -1
               : 0;
}

static void daemon_end(struct daemon *d)
{
    watchdog_stop(d);
    control_stop(d);
    supervise_stop(d);
    darbiter_stop(d);
    if (d->loop)
        hosts_stop(d);
    link_tls_free(d->tls);
    link_key_free(d->key);
    peers_free(&d->peers);
    events_free(&d->events);
}

/* Of checks, which agents do. The fake hypervisor's guests have no network. */
static void sweep(void)
{
    struct err e = ERR_INIT;

    if (!getenv("UNDERSTUDY_HV") && netbuf_check_sweep(&e))
        log_warn("%s", e.text);
}

static int daemon_run(const char *config)
{
    /* Not the default loop: that would reap children that are not libev's. */
    struct daemon d = {.loop = ev_loop_new(EVFLAG_AUTO)};
    struct err e = ERR_INIT;
    ev_signal term, interrupt;
    char pin[PIN_TEXT];

    signal(SIGPIPE, SIG_IGN);
    ev_init(&d.beat, NULL);
    /* A daemon that is told to end while it starts ends in order, too. */
    ev_signal_init(&term, on_signal, SIGTERM);
    ev_signal_init(&interrupt, on_signal, SIGINT);
    ev_signal_start(d.loop, &term);
    ev_signal_start(d.loop, &interrupt);
    if (daemon_setup(&d, config, &e)) {
        log_error("%s", e.text);
        if (e.hint[0])
            log_error("what to do: %s", e.hint);
        daemon_end(&d);
        return 1;
    }
    sweep();
    pin_format(link_key_pin(d.key), pin);
    log_info("understudyd %s on %s, port %u, %u VMs, key %s",
             UNDERSTUDY_VERSION, d.name, link_listener_port(d.listener),
             d.vm_count, pin);
    reprotect_start(&d);
    notify("READY=1");
    ev_run(d.loop, 0);
    notify("STOPPING=1");
    reprotect_stop(&d);
    daemon_end(&d);
    ev_loop_destroy(d.loop);
    return 0;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"foreground", no_argument, NULL, 'f'},
        {"daemon", no_argument, NULL, 'd'},
        {"config", required_argument, NULL, 'c'},
        {"version", no_argument, NULL, 'V'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    const char *config = NULL;
    bool background = false;
    int c;

    log_setup("understudyd", LOG_INFO);
    if (argc == 4 && !strcmp(argv[1], "agent"))
        return agent_main(argv[2], argv[3]);
    while ((c = getopt_long(argc, argv, "fdc:Vh", options, NULL)) != -1) {
        if (c == 'c') {
            config = optarg;
        } else if (c == 'f' || c == 'd') {
            background = c == 'd';
        } else if (c == 'V') {
            printf("understudyd %s\n", UNDERSTUDY_VERSION);
            return 0;
        } else {
            fputs(usage, c == 'h' ? stdout : stderr);
            return c == 'h' ? 0 : 2;
        }
    }
    if (optind != argc) {
        fputs(usage, stderr);
        return 2;
    }
    /* Agents read the same file. */
    if (config && setenv("UNDERSTUDY_CONFIG", config, 1))
        abort();
    if (background && daemon(0, 1)) {
        log_error("daemon: %m");
        return 1;
    }
    return daemon_run(config);
}
