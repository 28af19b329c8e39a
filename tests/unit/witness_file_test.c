// SPDX-License-Identifier: Apache-2.0
/* The witness's file: the plug is pulled at every system call, with every
 * outcome of what was not synced; copies and damage are noticed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "heartbeat/witness_file.h"

/* --- A disk that loses power ---------------------------------------------- */

#define INODES 8

struct inode {
    struct buf data;
    size_t synced; /* of data: survives */
};

struct plug {
    struct witness_dir dir; /* first: ops get it */
    struct inode inode[INODES];
    unsigned inodes;
    int state, new;            /* entries as seen; -1: none */
    int disk_state, disk_new;  /* as synced */
    unsigned calls, pulled_at; /* at this call; 0: never */
    bool before;               /* it has done nothing yet */
    bool no_sync;              /* a disk, or a program, that does not */
};

/* True when the power went, before or after the call's effect. */
static bool gone(struct plug *p, bool before, struct err *e)
{
    if (before)
        p->calls++;
    if (!p->pulled_at || p->calls < p->pulled_at ||
        (p->calls == p->pulled_at && before != p->before))
        return false;
    err_set(e, "power");
    return true;
}

#define PLUG(d) struct plug *p = (struct plug *)(d)

static int plug_create(struct witness_dir *d, struct file_id *id, struct err *e)
{
    PLUG(d);

    if (gone(p, true, e))
        return -1;
    assert_true(p->inodes < INODES);
    p->new = (int)p->inodes++;
    *id = (struct file_id){(uint64_t)p->new + 100, 7, 0};
    return gone(p, false, e) ? -1 : 0;
}

static int plug_write(struct witness_dir *d, const void *data, size_t len,
                      struct err *e)
{
    PLUG(d);

    if (gone(p, true, e))
        return -1;
    buf_put(&p->inode[p->new].data, data, len);
    return gone(p, false, e) ? -1 : 0;
}

static int plug_sync(struct witness_dir *d, struct err *e)
{
    PLUG(d);

    if (gone(p, true, e))
        return -1;
    if (!p->no_sync)
        p->inode[p->new].synced = p->inode[p->new].data.len;
    return gone(p, false, e) ? -1 : 0;
}

static int plug_rename(struct witness_dir *d, struct err *e)
{
    PLUG(d);

    if (gone(p, true, e))
        return -1;
    p->state = p->new;
    p->new = -1;
    return gone(p, false, e) ? -1 : 0;
}

static int plug_sync_dir(struct witness_dir *d, struct err *e)
{
    PLUG(d);

    if (gone(p, true, e))
        return -1;
    p->disk_state = p->state;
    p->disk_new = p->new;
    return gone(p, false, e) ? -1 : 0;
}

static int plug_load(struct witness_dir *d, struct buf *out, struct file_id *id,
                     struct err *e)
{
    PLUG(d);

    if (p->state < 0)
        return err_kind(e, ERR_GONE, "there is no state");
    const struct buf *b = &p->inode[p->state].data;
    buf_put(out, b->data, b->len);
    *id = (struct file_id){(uint64_t)p->state + 100, 7, 0};
    return 0;
}

static const struct witness_dir_ops plug_ops = {
    plug_create, plug_write, plug_sync, plug_rename, plug_sync_dir, plug_load,
};

/* The machine is back: of what was not synced, this much is there. */
#define OUTCOMES 8
static void power_back(struct plug *p, unsigned outcome)
{
    for (unsigned i = 0; i < p->inodes; i++) {
        struct inode *n = &p->inode[i];
        size_t lost = n->data.len - n->synced;
        n->data.len = n->synced + lost * (outcome & 3) / 3;
        n->synced = n->data.len;
    }
    if (!(outcome & 4)) {
        p->state = p->disk_state;
        p->new = p->disk_new;
    }
    p->pulled_at = 0;
}

static void plug_free(struct plug *p)
{
    for (unsigned i = 0; i < p->inodes; i++)
        buf_free(&p->inode[i].data);
}

/* --- Pulling the plug ----------------------------------------------------- */

static const uint8_t alder[WITNESS_PIN] = {1}, birch[WITNESS_PIN] = {2};

static int ask(struct witness *w, const uint8_t *who, enum witness_op op,
               struct witness_answer *out)
{
    struct witness_ask a = {
        .op = op, .vm = {7}, .generation = 1, .nonce = 11, .other = {2}};

    return witness_ask(w, who, &a, out, NULL);
}

/* A claim with the plug pulled at call `at`; what is remembered afterwards: 0
 * when the state is damaged. */
static uint64_t claim_with_power_cut(unsigned at, bool before, unsigned outcome,
                                     bool no_sync, bool *answered)
{
    struct plug p = {.dir = {.ops = &plug_ops},
                     .state = -1,
                     .new = -1,
                     .disk_state = -1,
                     .disk_new = -1};
    struct witness_answer out;
    struct witness w, later;

    assert_int_equal(witness_file_init(&p.dir, &w, NULL), 0);
    assert_int_equal(ask(&w, alder, WITNESS_REGISTER, &out), 0);
    p.pulled_at = p.calls + at;
    p.before = before;
    p.no_sync = no_sync;
    *answered = !ask(&w, birch, WITNESS_CLAIM, &out);
    witness_free(&w);
    power_back(&p, outcome);
    assert_int_equal(witness_file_load(&p.dir, &later, NULL), 0);
    uint64_t generation = later.sealed ? 0 : later.list[0].generation;
    witness_free(&later);
    plug_free(&p);
    return generation;
}

#define CALLS 5

static void a_power_cut_at_any_call_leaves_the_old_state_or_the_new(void **s)
{
    (void)s;
    for (unsigned i = 0; i < 2 * CALLS * OUTCOMES; i++) {
        bool answered;
        unsigned at = i / 2 / OUTCOMES + 1;
        uint64_t generation =
            claim_with_power_cut(at, i & 1, i / 2 % OUTCOMES, false, &answered);
        assert_true(generation == 1 || generation == 2);
        assert_false(answered);
    }
}

static void what_was_answered_survives_a_power_cut(void **s)
{
    (void)s;
    for (unsigned outcome = 0; outcome < OUTCOMES; outcome++) {
        bool answered;
        assert_int_equal(
            claim_with_power_cut(CALLS + 1, true, outcome, false, &answered),
            2);
        assert_true(answered);
    }
}

/* The test can fail: without the sync there is an outcome with damage, and
 * even that is noticed. */
static void without_a_sync_the_damage_is_noticed(void **s)
{
    (void)s;
    unsigned damaged = 0;

    for (unsigned outcome = 0; outcome < OUTCOMES; outcome++) {
        bool answered;
        damaged +=
            !claim_with_power_cut(CALLS + 1, true, outcome, true, &answered);
    }
    assert_true(damaged > 0);
}

/* --- A real directory ----------------------------------------------------- */

static char path[] = "/tmp/witness-file-test.XXXXXX";

static void shell(const char *command)
{
    char line[256];

    snprintf(line, sizeof line, "cd %s && %s", path, command);
    assert_int_equal(system(line), 0);
}

/* What a witness that starts in `path` says to a claim of birch's. */
static uint32_t claim_status(void)
{
    struct witness_answer out;
    struct witness_dir d;
    struct witness w;

    assert_int_equal(witness_dir_open(&d, path, NULL), 0);
    assert_int_equal(witness_file_load(&d, &w, NULL), 0);
    assert_int_equal(ask(&w, birch, WITNESS_CLAIM, &out), 0);
    witness_free(&w);
    witness_dir_close(&d);
    return out.status;
}

static int begin(void **s)
{
    struct witness_answer out;
    struct witness_dir d;
    struct witness w;

    (void)s;
    snprintf(path, sizeof path, "/tmp/witness-file-test.XXXXXX");
    assert_non_null(mkdtemp(path));
    assert_int_equal(witness_dir_open(&d, path, NULL), 0);
    assert_int_equal(witness_file_init(&d, &w, NULL), 0);
    assert_int_equal(ask(&w, alder, WITNESS_REGISTER, &out), 0);
    witness_free(&w);
    witness_dir_close(&d);
    return 0;
}

static int end(void **s)
{
    (void)s;
    shell("rm -f state state.new old");
    return rmdir(path);
}

static void a_state_is_loaded_again(void **s)
{
    (void)s;
    assert_int_equal(claim_status(), WITNESS_RECORD);
    assert_int_equal(claim_status(), WITNESS_RECORD);
}

static void a_copy_is_sealed(void **s)
{
    (void)s;
    shell("cp -a state old && mv old state");
    assert_int_equal(claim_status(), WITNESS_SEALED);
    /* It stays so, though the file is a new one by now. */
    assert_int_equal(claim_status(), WITNESS_SEALED);
}

static void an_old_state_put_back_is_sealed(void **s)
{
    (void)s;
    shell("cp state old");
    assert_int_equal(claim_status(), WITNESS_RECORD);
    shell("cat old >state");
    assert_int_equal(claim_status(), WITNESS_SEALED);
}

static void a_damaged_state_is_sealed_and_not_written_over(void **s)
{
    (void)s;
    shell("truncate -s -1 state && cp state old");
    assert_int_equal(claim_status(), WITNESS_SEALED);
    shell("cmp state old");
    shell("truncate -s 0 state");
    assert_int_equal(claim_status(), WITNESS_SEALED);
    shell("head -c 2000000 /dev/zero >state");
    assert_int_equal(claim_status(), WITNESS_SEALED);
}

static void no_state_is_no_empty_one(void **s)
{
    (void)s;
    struct witness_dir d, second;
    struct err e = ERR_INIT;
    struct witness w;

    assert_int_equal(witness_dir_open(&d, path, NULL), 0);
    assert_int_equal(witness_dir_open(&second, path, &e), -1);
    assert_int_equal(e.kind, ERR_REFUSED);
    assert_int_equal(witness_file_init(&d, &w, &e), -1);
    assert_int_equal(e.kind, ERR_REFUSED);
    shell("rm state");
    assert_int_equal(witness_file_load(&d, &w, &e), -1);
    assert_int_equal(e.kind, ERR_GONE);
    witness_dir_close(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(
            a_power_cut_at_any_call_leaves_the_old_state_or_the_new),
        cmocka_unit_test(what_was_answered_survives_a_power_cut),
        cmocka_unit_test(without_a_sync_the_damage_is_noticed),
        cmocka_unit_test_setup_teardown(a_state_is_loaded_again, begin, end),
        cmocka_unit_test_setup_teardown(a_copy_is_sealed, begin, end),
        cmocka_unit_test_setup_teardown(an_old_state_put_back_is_sealed, begin,
                                        end),
        cmocka_unit_test_setup_teardown(
            a_damaged_state_is_sealed_and_not_written_over, begin, end),
        cmocka_unit_test_setup_teardown(no_state_is_no_empty_one, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
