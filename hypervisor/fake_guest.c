// SPDX-License-Identifier: Apache-2.0
/* Executing a fake guest: one thread a writer; see fake.h. Only tests and the
 * fake host use it. */
#include "hypervisor/fake_private.h"
#include "common/cleanup.h"
#include "common/clock.h"

#include <linux/futex.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define IDLE_US 100000

struct writer {
    struct fake_guest *guest;
    uint32_t number;
    pthread_t thread;
};

struct fake_guest {
    struct fake_view view;
    char dir[200];
    uint32_t stop;
    struct fake_disk disk; /* `write` NULL: none */
    struct writer writers[FAKE_WRITERS_MAX];
};

void fake_bump(struct fake_dom *d)
{
    __atomic_add_fetch(&d->word, 1, __ATOMIC_SEQ_CST);
    syscall(SYS_futex, &d->word, FUTEX_WAKE, INT32_MAX, NULL, NULL, 0);
}

void fake_wait(struct fake_dom *d, uint32_t seen, uint64_t us)
{
    struct timespec ts = {.tv_sec = (time_t)(us / 1000000),
                          .tv_nsec = (long)(us % 1000000) * 1000};

    syscall(SYS_futex, &d->word, FUTEX_WAIT, seen, &ts, NULL, 0);
}

/* Three quarters of the steps go to an eighth of the pages. */
struct fake_step fake_step(const struct fake_spec *s, uint32_t writer,
                           uint64_t step)
{
    static const enum fake_step_kind kinds[8] = {
        FAKE_FILL,       FAKE_FILL, FAKE_FILL_PLAIN, FAKE_FILL_PLAIN,
        FAKE_FILL_PLAIN, FAKE_ZERO, FAKE_TOUCH,      FAKE_TOUCH};
    uint64_t h = fake_mix(s->seed ^ fake_mix(step * 16 + writer + 1));
    uint64_t own = (s->ram_pages - 1 - writer + s->writers - 1) / s->writers;
    uint64_t span = (h & 3) && own >= 8 ? own / 8 : own;
    struct fake_step st = {.kind = kinds[h >> 2 & 7]};

    st.page = 1 + writer + (h >> 8) % span * s->writers;
    if (s->lacking && fake_gfn(s, st.page) == s->lacking - 1)
        st.kind = FAKE_TOUCH;
    return st;
}

static void page_fill(const struct fake_spec *s, uint64_t *page,
                      uint32_t writer, uint64_t step, uint64_t seen,
                      const struct fake_step *st)
{
    page[0] = fake_gfn(s, st->page);
    page[1] = writer;
    page[2] = step;
    page[3] = seen;
    for (unsigned i = 4; i < HV_PAGE / 8; i++)
        page[i] = fake_word(s, writer, step, st->kind, i);
}

/* The dirty bit comes after the write: whoever clears it in between sees it
 * again the next time. */
static void step_take(struct fake_guest *g, uint32_t w)
{
    struct fake_dom *d = g->view.dom;
    const struct fake_spec *s = &d->spec;
    uint64_t step = load(&d->steps[w]) + 1;
    struct fake_step st = fake_step(s, w, step);
    uint64_t gfn = fake_gfn(s, st.page);
    uint8_t *page = g->view.memory + gfn * HV_PAGE;
    uint64_t *board = (uint64_t *)(void *)g->view.memory;

    if (!w && g->disk.write && !g->disk.write(g->disk.arg, step))
        return;
    if (st.kind == FAKE_ZERO)
        memset(page, 0, HV_PAGE);
    else if (st.kind != FAKE_TOUCH)
        page_fill(s, (uint64_t *)(void *)page, w, step,
                  load(&d->steps[(w + 1) % s->writers]), &st);
    __atomic_or_fetch(&g->view.log[gfn / 64], 1ull << (gfn % 64),
                      __ATOMIC_SEQ_CST);
    store(&board[w], step);
    store(&d->steps[w], step);
}

static bool must_park(struct fake_dom *d)
{
    uint32_t request = load(&d->request);

    return !fake_runs(d) || request == FAKE_ACKNOWLEDGED ||
           (request == FAKE_ASKED && !load(&d->refuse));
}

static bool all_parked(struct fake_dom *d)
{
    return load(&d->parked) == d->spec.writers;
}

/* All writers stand still. One acknowledges; from then on nobody leaves, but
 * one may have been on its way out before. */
static void guest_suspend(struct fake_guest *g)
{
    struct fake_dom *d = g->view.dom;
    uint32_t asked = FAKE_ASKED;
    int32_t running = HV_RUNNING;

    if (!fake_runs(d) || load(&d->refuse) ||
        !__atomic_compare_exchange_n(&d->request, &asked, FAKE_ACKNOWLEDGED,
                                     false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
        return;
    fake_bump(d);
    while (!all_parked(d) && !load(&g->stop))
        fake_wait(d, load(&d->word), 1000);
    if (load(&d->delay_us))
        usleep(load(&d->delay_us));
    __atomic_compare_exchange_n(&d->shutdown, &running, HV_SUSPEND, false,
                                __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    fake_bump(d);
}

static void writer_park(struct fake_guest *g)
{
    struct fake_dom *d = g->view.dom;

    __atomic_add_fetch(&d->parked, 1, __ATOMIC_SEQ_CST);
    fake_bump(d);
    while (must_park(d) && !load(&g->stop)) {
        uint32_t word = load(&d->word);
        if (all_parked(d))
            guest_suspend(g);
        if (must_park(d) && !load(&g->stop))
            fake_wait(d, word, IDLE_US);
    }
    __atomic_sub_fetch(&d->parked, 1, __ATOMIC_SEQ_CST);
}

static void *writer_main(void *arg)
{
    struct writer *w = arg;
    struct fake_guest *g = w->guest;
    struct fake_dom *d = g->view.dom;

    while (!load(&g->stop)) {
        if (must_park(d))
            writer_park(g);
        else
            step_take(g, w->number);
        if (load(&d->step_us))
            usleep(load(&d->step_us));
    }
    return NULL;
}

int fake_guest_start(struct fake_guest **out, const char *dir, uint32_t domid,
                     struct err *e)
{
    return fake_guest_start_disk(out, dir, domid, &(struct fake_disk){0}, e);
}

int fake_guest_start_disk(struct fake_guest **out, const char *dir,
                          uint32_t domid, const struct fake_disk *disk,
                          struct err *e)
{
    struct fake_guest *g = calloc(1, sizeof *g);

    if (!g)
        return err_sys(e, "fake guest");
    snprintf(g->dir, sizeof g->dir, "%s", dir);
    g->disk = *disk;
    if (fake_view_open(&g->view, dir, domid, e)) {
        free(g);
        return -1;
    }
    store(&g->view.dom->parked, 0);
    store(&g->view.dom->runner, (uint32_t)getpid());
    for (uint32_t i = 0; i < g->view.dom->spec.writers; i++) {
        g->writers[i].guest = g;
        g->writers[i].number = i;
        if (pthread_create(&g->writers[i].thread, NULL, writer_main,
                           &g->writers[i]))
            abort();
    }
    *out = g;
    return 0;
}

void fake_guest_stop(struct fake_guest *g)
{
    if (!g)
        return;
    store(&g->stop, 1);
    fake_bump(g->view.dom);
    for (uint32_t i = 0; i < g->view.dom->spec.writers; i++)
        pthread_join(g->writers[i].thread, NULL);
    store(&g->view.dom->runner, 0);
    fake_view_close(&g->view);
    free(g);
}
