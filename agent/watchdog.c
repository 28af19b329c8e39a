// SPDX-License-Identifier: Apache-2.0
/* Self-fencing by Xen's watchdog; see watchdog.h. */
#include "agent/watchdog.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/job.h"
#include "agent/paths.h"
#include "agent/supervise.h"
#include "common/fault.h"
#include "common/file.h"
#include "common/log.h"

#define LOOK_S 1.
/* A timer is made with ten years to go, its number is noted, then it is set:
 * who is killed in between leaves one that nobody knows, and that never
 * fires. */
#define FAR_S (10u * 365 * 24 * 3600)

static struct {
    struct hv *hv;
    bool opening;
    unsigned id; /* 0: no timer */
    bool unsaid; /* what keeps it from being armed was not told yet */
    ev_timer look;
} dog = {.unsaid = true};

static int dog_set(unsigned seconds, struct err *e)
{
    return dog.hv->ops->watchdog(dog.hv, &dog.id, seconds, e);
}

static void note_remove(void)
{
    unlink(path_watchdog().s);
    dog.id = 0;
}

static int note_write(struct err *e)
{
    char text[16];
    int n = snprintf(text, sizeof text, "%u\n", dog.id);

    return file_replace(path_watchdog().s, text, (size_t)n, false, e);
}

static unsigned note_read(void)
{
    struct buf b = {0};
    unsigned id = 0;

    if (!file_load(path_watchdog().s, 15, &b, NULL)) {
        buf_u8(&b, 0);
        id = (unsigned)strtoul((const char *)b.data, NULL, 10);
    }
    buf_free(&b);
    return id;
}

static void failed(struct daemon *d, const struct err *e)
{
    if (dog.unsaid)
        daemon_event(d, "watchdog", "", "the watchdog is not armed: %s",
                     e->text);
    dog.unsaid = false;
}

/* --- Armed and disarmed ------------------------------------------------- */

static void arm(struct daemon *d)
{
    struct err e = ERR_INIT;

    if (dog_set(FAR_S, &e)) {
        failed(d, &e);
        return;
    }
    fault_point("watchdog.made");
    if (note_write(&e)) {
        failed(d, &e);
        if (dog_set(0, &e))
            log_error("%s", e.text);
        dog.id = 0;
        return;
    }
    fault_point("watchdog.noted");
    if (dog_set(d->cfg.watchdog_s, &e)) {
        failed(d, &e);
        return;
    }
    dog.unsaid = true;
    daemon_event(d, "watchdog", "",
                 "armed: Xen resets this host when understudyd does not run "
                 "for %u s",
                 d->cfg.watchdog_s);
}

static void disarm(void)
{
    struct err e = ERR_INIT;

    if (dog_set(0, &e) && e.kind != ERR_GONE) {
        log_error("the watchdog can't be disarmed: %s", e.text);
        return;
    }
    fault_point("watchdog.disarmed");
    note_remove();
}

/* Again, for as long as it was armed for. */
static void poke(struct daemon *d)
{
    struct err e = ERR_INIT;

    if (!dog_set(d->cfg.watchdog_s, &e))
        return;
    if (e.kind == ERR_GONE) {
        note_remove(); /* it was one of before: made anew */
        return;
    }
    failed(d, &e);
}

/* --- When --------------------------------------------------------------- */

static bool wanted(const struct daemon *d)
{
    if (!d->cfg.watchdog_s)
        return false;
    for (const struct vm *vm = d->vms; vm; vm = vm->next) {
        if (!vm->damaged && vm->rec.role == ROLE_PRIMARY &&
            vm->state == VM_PROTECTED)
            return true;
    }
    return false;
}

static int open_run(void *arg, struct err *e)
{
    (void)arg;
    return daemon_hv_open(&dog.hv, e);
}

static void open_done(void *arg, int rc, const struct err *e)
{
    dog.opening = false;
    if (rc)
        failed(arg, e);
}

static void on_look(struct ev_loop *loop, ev_timer *w, int events)
{
    struct daemon *d = w->data;
    bool want = wanted(d);

    (void)events;
    if (dog.opening)
        return;
    if (!dog.hv && (want || dog.id)) {
        dog.opening = true;
        job_start(loop, open_run, open_done, d);
    } else if (want && dog.id) {
        poke(d);
    } else if (want) {
        arm(d);
    } else if (dog.id) {
        disarm();
        if (!dog.id)
            daemon_event(d, "watchdog", "", "disarmed");
    }
}

/* --- Start and end ------------------------------------------------------ */

void watchdog_adopt(void)
{
    struct err e = ERR_INIT;

    dog.id = note_read();
    if (dog.id && daemon_hv_open(&dog.hv, &e))
        log_error("the watchdog is armed and can't be reached: %s", e.text);
}

void watchdog_start(struct daemon *d)
{
    /* Before all that takes time. */
    if (dog.id && dog.hv && d->cfg.watchdog_s)
        poke(d);
    if (!dog.id && !d->cfg.watchdog_s)
        return;
    ev_timer_init(&dog.look, on_look, 0., LOOK_S);
    dog.look.data = d;
    ev_timer_start(d->loop, &dog.look);
}

void watchdog_stop(struct daemon *d)
{
    if (ev_is_active(&dog.look))
        ev_timer_stop(d->loop, &dog.look);
    /* A job that opens the connection has it. */
    if (dog.hv && !dog.opening) {
        if (dog.id)
            disarm();
        dog.hv->ops->close(dog.hv);
        dog.hv = NULL;
    }
    if (dog.id)
        log_error("the watchdog stays armed: Xen is about to reset this host");
}
