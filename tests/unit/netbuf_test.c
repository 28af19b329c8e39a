// SPDX-License-Identifier: Apache-2.0
/* net-buffer's device on a model of the kernel: interfaces, plugs that empty
 * in their own time, redirects. What gets out is compared with what was
 * committed; the order of calls is random, from a printed seed. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "common/log.h"
#include "net-buffer/netbuf_priv.h"

enum { VIFS = 3, BANKS = 64, QUEUE = 4096, BASE = 10 };

struct packet {
    uint64_t epoch; /* of the execution that sent it; 0: nothing is held yet */
    uint32_t seq;
};

struct bank {
    bool there, open;
    int ifindex; /* whose output it holds */
    uint32_t n;
    struct packet q[QUEUE];
    uint64_t drops;
};

struct world {
    bool vif[VIFS], redirect[VIFS];
    int ifindex[VIFS]; /* another one each time that it is made */
    int target[VIFS];  /* bank */
    int banks[VIFS][2];
    struct netbuf_cookie cookie[VIFS];
    struct bank bank[BANKS];
    int fail_point; /* the how manyth POINT from now on fails; 0: none */
    bool slow;      /* plugs empty only in trickle() */
    uint32_t seq[VIFS], out_seq[VIFS];
    uint64_t acked; /* the greatest committed epoch */
    bool free_run;  /* output may flow */
    uint64_t out, leaked, disordered;
};

static struct world w;

struct fake {
    struct nb_kernel k;
};

static void leave(int vif, struct packet p)
{
    w.out++;
    if (p.epoch > w.acked && !w.free_run)
        w.leaked++;
    if (p.seq <= w.out_seq[vif])
        w.disordered++;
    w.out_seq[vif] = p.seq;
}

static int vif_of(int ifindex)
{
    return (ifindex - BASE) % VIFS;
}

static bool vif_is(int ifindex)
{
    int v = vif_of(ifindex);

    return w.vif[v] && w.ifindex[v] == ifindex;
}

static void unplug(int v)
{
    w.vif[v] = w.redirect[v] = false;
}

static void plug_in(int v)
{
    w.ifindex[v] += VIFS;
    w.vif[v] = true;
}

static void trickle(int bank, uint32_t most)
{
    struct bank *b = w.bank + bank;
    uint32_t n = b->n < most ? b->n : most;

    if (!b->there || !b->open)
        return;
    for (uint32_t i = 0; i < n; i++)
        if (vif_is(b->ifindex))
            leave(vif_of(b->ifindex), b->q[i]);
    memmove(b->q, b->q + n, (b->n - n) * sizeof *b->q);
    b->n -= n;
}

static void send_packet(int v, uint64_t epoch)
{
    struct packet p = {epoch, ++w.seq[v]};
    struct bank *b = w.bank + w.target[v];

    if (!w.vif[v])
        return;
    if (!w.redirect[v]) {
        leave(v, p);
    } else if (b->there && b->n < QUEUE) {
        b->q[b->n++] = p;
        if (!w.slow)
            trickle(w.target[v], QUEUE);
    } else {
        b->drops++;
    }
}

static void fake_step(struct nb_step *s)
{
    int v = vif_of(s->v->ifindex), bank = s->v->bank[s->bank];
    struct bank *b = w.bank + bank;

    s->r = 0;
    s->bound = false;
    s->packets = s->bytes = s->drops = 0;
    if (s->op == NB_CHECK || s->op == NB_POINT) {
        if (s->op == NB_POINT && w.fail_point && !--w.fail_point)
            s->r = -ENOBUFS;
        else if (vif_is(s->v->ifindex) && w.redirect[v])
            s->bound = true;
        if (s->op == NB_POINT && s->bound) {
            w.target[v] = bank;
            w.cookie[v] = s->cookie;
        }
        return;
    }
    if (!b->there) {
        s->r = -ENODEV;
    } else if (s->op == NB_STAT) {
        s->packets = b->n;
        s->bytes = 100 * (uint64_t)b->n;
        s->drops = b->drops;
    } else if (s->op == NB_CLOSE || s->op == NB_OPEN) {
        b->open = s->op == NB_OPEN;
        if (!w.slow)
            trickle(bank, QUEUE);
    }
}

static int fake_run(struct nb_kernel *k, struct nb_step *s, int n,
                    struct err *e)
{
    (void)k;
    (void)e;
    assert_in_range(n, 0, NB_STEPS);
    for (int i = 0; i < n; i++)
        fake_step(s + i);
    return 0;
}

static int fake_find(struct nb_kernel *k, const char *name, int *ifindex,
                     struct err *e)
{
    int v = name[1] - '0';

    (void)k;
    if (v < 0 || v >= VIFS || !w.vif[v])
        return err_kind(e, ERR_GONE, "there is no interface %s", name);
    *ifindex = w.ifindex[v];
    return 0;
}

static bool fake_exists(struct nb_kernel *k, int ifindex)
{
    (void)k;
    return vif_is(ifindex);
}

static int new_bank(void)
{
    for (int i = 1; i < BANKS; i++)
        if (!w.bank[i].there) {
            memset(w.bank + i, 0, sizeof *w.bank);
            w.bank[i].there = true;
            return i;
        }
    fail_msg("banks are not given back");
    return 0;
}

static int fake_make(struct nb_kernel *k, const char *tag, struct nb_vif *v,
                     const struct netbuf_cookie *c, uint32_t limit,
                     struct err *e)
{
    int i = vif_of(v->ifindex);

    (void)k, (void)tag, (void)limit, (void)e;
    assert_false(w.redirect[i]);
    for (int b = 0; b < 2; b++) {
        v->bank[b] = w.banks[i][b] = new_bank();
        w.bank[v->bank[b]].ifindex = v->ifindex;
    }
    w.bank[v->bank[0]].open = !c->holding;
    w.target[i] = v->bank[0];
    w.cookie[i] = *c;
    w.redirect[i] = true;
    return 0;
}

static int fake_mend(struct nb_kernel *k, const char *tag, struct nb_vif *v,
                     uint32_t limit, struct err *e)
{
    (void)k, (void)tag, (void)v, (void)limit, (void)e;
    return 0;
}

static int fake_purge(struct nb_kernel *k, struct nb_vif *v, int bank,
                      uint32_t limit, struct err *e)
{
    struct bank *b = w.bank + v->bank[bank];

    (void)k, (void)limit, (void)e;
    b->n = 0;
    b->drops = 0;
    b->open = false;
    return 0;
}

static void fake_direct(struct nb_kernel *k, struct nb_vif *v)
{
    (void)k;
    if (vif_is(v->ifindex))
        w.redirect[vif_of(v->ifindex)] = false;
}

static void fake_unmake(struct nb_kernel *k, struct nb_vif *v)
{
    fake_direct(k, v);
    for (int b = 0; b < 2; b++)
        w.bank[v->bank[b]].there = false;
    memset(w.banks[vif_of(v->ifindex)], 0, sizeof w.banks[0]);
}

static int fake_scan(struct nb_kernel *k, const char *tag, struct nb_vif *v,
                     struct netbuf_cookie *c, struct err *e)
{
    int n = 0;

    (void)k, (void)tag, (void)e;
    *c = (struct netbuf_cookie){0};
    for (int i = 0; i < VIFS; i++) {
        if (!w.banks[i][0])
            continue;
        memset(v + n, 0, sizeof *v);
        snprintf(v[n].name, sizeof v[n].name, "v%d", i);
        v[n].ifindex = w.bank[w.banks[i][0]].ifindex;
        v[n].slot = i;
        memcpy(v[n].bank, w.banks[i], sizeof v[n].bank);
        v[n].active = w.target[i] == w.banks[i][1];
        v[n].gone = !vif_is(v[n].ifindex) || !w.redirect[i];
        if (!v[n].gone && w.cookie[i].epoch >= c->epoch)
            *c = w.cookie[i];
        n++;
    }
    return n;
}

static void fake_free(struct nb_kernel *k)
{
    free(k);
}

static const struct nb_kernel_ops fake_ops = {
    .run = fake_run,
    .find = fake_find,
    .exists = fake_exists,
    .make = fake_make,
    .mend = fake_mend,
    .purge = fake_purge,
    .direct = fake_direct,
    .unmake = fake_unmake,
    .scan = fake_scan,
    .free = fake_free,
};

static struct checkpoint_device *device(void)
{
    struct fake *f = calloc(1, sizeof *f);
    struct checkpoint_device *d;

    f->k.ops = &fake_ops;
    assert_int_equal(netbuf_open_on(&f->k, "u3", NULL, &d, NULL), 0);
    return d;
}

static const char names[VIFS][NETBUF_NAME_MAX] = {"v0", "v1", "v2"};

static struct checkpoint_device *started(int vifs)
{
    struct checkpoint_device *d;

    memset(&w, 0, sizeof w);
    w.free_run = true;
    for (int v = 0; v < VIFS; v++) {
        w.vif[v] = v < vifs;
        w.ifindex[v] = BASE + v;
    }
    d = device();
    assert_int_equal(netbuf_set_vifs(d, names, vifs, NULL), 0);
    assert_int_equal(d->ops->setup(d, NULL), 0);
    return d;
}

static void ended(struct checkpoint_device *d)
{
    w.free_run = true;
    d->ops->teardown(d, true);
    d->ops->free(d);
    for (int i = 0; i < BANKS; i++)
        assert_false(w.bank[i].there);
    assert_int_equal(w.leaked, 0);
}

static void output_flows_until_the_first_mark(void **state)
{
    struct checkpoint_device *d = started(1);

    (void)state;
    send_packet(0, 0);
    assert_int_equal(w.out, 1);
    w.free_run = false;
    assert_int_equal(d->ops->mark(d, 1, NULL), 0);
    send_packet(0, 2);
    assert_int_equal(w.out, 1);
    w.acked = 1;
    assert_int_equal(d->ops->commit(d, 1, NULL), 0);
    assert_int_equal(w.out, 1);
    assert_int_equal(d->ops->mark(d, 2, NULL), 0);
    w.acked = 2;
    assert_int_equal(d->ops->commit(d, 2, NULL), 0);
    assert_int_equal(w.out, 2);
    ended(d);
}

static void a_mark_that_fails_for_one_vif_changes_nothing(void **state)
{
    struct checkpoint_device *d = started(3);
    struct err e = ERR_INIT;

    (void)state;
    w.free_run = false;
    assert_int_equal(d->ops->mark(d, 1, &e), 0);
    w.acked = 1;
    assert_int_equal(d->ops->commit(d, 1, &e), 0);
    for (int v = 0; v < 3; v++)
        send_packet(v, 2);
    w.fail_point = 2;
    assert_int_equal(d->ops->mark(d, 2, &e), -1);
    for (int v = 0; v < 3; v++)
        send_packet(v, 3);
    assert_int_equal(d->ops->mark(d, 3, &e), 0);
    w.acked = 3;
    assert_int_equal(d->ops->commit(d, 3, &e), 0);
    assert_int_equal(w.out, 6);
    assert_int_equal(w.disordered, 0);
    ended(d);
}

static void a_bank_that_is_not_empty_in_time_leaks_nothing(void **state)
{
    struct checkpoint_device *d = started(1);

    (void)state;
    w.free_run = false;
    assert_int_equal(d->ops->mark(d, 1, NULL), 0);
    w.acked = 1;
    assert_int_equal(d->ops->commit(d, 1, NULL), 0);
    send_packet(0, 2);
    assert_int_equal(d->ops->mark(d, 2, NULL), 0);
    w.acked = 2;
    w.slow = true;
    assert_int_equal(d->ops->commit(d, 2, NULL), 0);
    assert_int_equal(w.out, 0);
    assert_int_equal(d->ops->mark(d, 3, NULL), 0); /* into that bank again */
    send_packet(0, 4);
    trickle(w.target[0], QUEUE);
    assert_int_equal(w.out, 0);
    ended(d);
}

/* As the agent does at each look, though the names are what they were. */
static int look(struct checkpoint_device *d, int vifs)
{
    return netbuf_set_vifs(d, names, vifs, NULL);
}

static void a_vif_that_is_made_again_is_held_again(void **state)
{
    struct checkpoint_device *d = started(2);
    struct device_load load;
    struct err e = ERR_INIT;

    (void)state;
    w.free_run = false;
    assert_int_equal(d->ops->mark(d, 1, &e), 0);
    w.acked = 1;
    assert_int_equal(d->ops->commit(d, 1, &e), 0);
    send_packet(0, 2);
    unplug(0);
    plug_in(0);
    assert_int_equal(d->ops->poll(d, &load, &e), -1);
    assert_int_equal(e.kind, ERR_GONE);
    assert_int_equal(d->ops->mark(d, 2, &e), 0); /* the others' goes on */
    assert_int_equal(look(d, 2), 0);
    assert_int_equal(d->ops->poll(d, &load, &e), 0);
    send_packet(0, 3);
    w.acked = 2;
    assert_int_equal(d->ops->commit(d, 2, &e), 0);
    assert_int_equal(w.out, 0); /* of epoch 2 it is gone with the vif */
    assert_int_equal(d->ops->mark(d, 3, &e), 0);
    w.acked = 3;
    assert_int_equal(d->ops->commit(d, 3, &e), 0);
    assert_int_equal(w.out, 1);
    ended(d);
}

static void a_redirect_that_was_removed_is_set_again(void **state)
{
    struct checkpoint_device *d = started(2);
    struct device_load load;
    struct err e = ERR_INIT;

    (void)state;
    w.free_run = false;
    assert_int_equal(d->ops->mark(d, 1, &e), 0);
    w.redirect[1] = false;
    assert_int_equal(look(d, 2), 0); /* before anybody polled */
    assert_true(w.redirect[1]);
    w.redirect[0] = false;
    assert_int_equal(d->ops->poll(d, &load, &e), -1);
    assert_int_equal(look(d, 2), 0);
    assert_int_equal(d->ops->poll(d, &load, &e), 0);
    send_packet(0, 2);
    send_packet(1, 2);
    assert_int_equal(w.out, 0);
    ended(d);
}

/* One random life of a VM. `born` is the epoch that a packet sent now belongs
 * to. */
struct life {
    struct checkpoint_device *d;
    uint64_t n;   /* last epoch marked */
    bool waiting; /* for its commit */
    bool holding;
    bool was_slow;
    unsigned seed;
};

static int dice(struct life *l, int sides)
{
    return (int)((unsigned)rand_r(&l->seed) >> 3) % sides;
}

static void crash(struct life *l)
{
    struct netbuf *b;

    l->d->ops->free(l->d);
    l->d = device();
    b = (struct netbuf *)l->d;
    assert_int_equal(netbuf_adopt(b, NULL), 0);
    int found = b->n;
    assert_int_equal(netbuf_set_vifs(l->d, names, 2, NULL), 0);
    assert_int_equal(l->d->ops->setup(l->d, NULL), 0);
    if (!found)
        return;
    assert_int_equal(b->holding, l->holding);
    if (b->holding) {
        assert_int_equal(b->marked_epoch, l->n);
        l->waiting = true; /* whether it was committed is forgotten */
    }
}

static void mark(struct life *l)
{
    if (l->waiting) { /* undone and taken again: the same number */
        assert_int_equal(l->d->ops->mark(l->d, l->n, NULL), 0);
        assert_int_equal(l->d->ops->mark(l->d, l->n + 1, NULL), -1);
        return;
    }
    if (!dice(l, 4))
        w.fail_point = 1 + dice(l, 2);
    if (!l->d->ops->mark(l->d, l->n + 1, NULL)) {
        l->n++;
        l->waiting = l->holding = true;
        w.free_run = false;
    }
    w.fail_point = 0;
}

static void end_epochs(struct life *l, bool release)
{
    w.slow = false;
    w.free_run = release || w.free_run;
    assert_int_equal(l->d->ops->abort(l->d, release, NULL), 0);
    l->waiting = false;
    if (release)
        l->holding = false;
}

/* Between two looks. */
static void remake(struct life *l, int v)
{
    unplug(v);
    if (dice(l, 2))
        mark(l);
    plug_in(v);
    if (!dice(l, 3))
        mark(l);
    assert_int_equal(look(l->d, 2), 0);
}

static void one_act(struct life *l)
{
    struct device_load load;

    switch (dice(l, 13)) {
    case 0:
    case 1:
        mark(l);
        break;
    case 2:
    case 3:
        if (l->waiting) {
            w.acked = l->n;
            w.slow = !dice(l, 500); /* waits 50 ms: rarely */
            l->was_slow |= w.slow;
            assert_int_equal(l->d->ops->commit(l->d, l->n, NULL), 0);
            l->waiting = false;
        }
        break;
    case 4:
        assert_int_equal(l->d->ops->poll(l->d, &load, NULL), 0);
        break;
    case 5:
        trickle(1 + dice(l, 6), 1 + (uint32_t)dice(l, 5));
        break;
    case 6:
        if (!dice(l, 8))
            end_epochs(l, dice(l, 2));
        break;
    case 7:
        if (!dice(l, 4))
            crash(l);
        break;
    case 8:
        if (!dice(l, 4))
            remake(l, dice(l, 2));
        break;
    default:
        send_packet(dice(l, 2), l->holding ? l->n + 1 : 0);
    }
}

static void nothing_uncommitted_gets_out_whatever_happens(void **state)
{
    uint64_t out = 0;

    (void)state;
    for (unsigned seed = 1; seed <= 3000; seed++) {
        struct life l = {.d = started(2), .seed = seed};

        for (int i = 0; i < 120; i++) {
            one_act(&l);
            if (w.leaked)
                fail_msg("seed %u, act %d: a packet leaked", seed, i);
        }
        if (!l.was_slow)
            assert_int_equal(w.disordered, 0);
        out += w.out;
        w.slow = false;
        ended(l.d);
    }
    assert_true(out > 10000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(output_flows_until_the_first_mark),
        cmocka_unit_test(a_mark_that_fails_for_one_vif_changes_nothing),
        cmocka_unit_test(a_bank_that_is_not_empty_in_time_leaks_nothing),
        cmocka_unit_test(a_vif_that_is_made_again_is_held_again),
        cmocka_unit_test(a_redirect_that_was_removed_is_set_again),
        cmocka_unit_test(nothing_uncommitted_gets_out_whatever_happens),
    };

    log_setup("netbuf", LOG_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
