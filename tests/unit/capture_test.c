// SPDX-License-Identifier: Apache-2.0
/* checkpoint/capture over the fake hypervisor, with operations and fault points
 * that fail: whatever goes wrong, the guest runs afterwards, the flag is clear,
 * and no dirty page is forgotten. */
#include "checkpoint/capture.h"
#include "checkpoint/harvest.h"
#include "common/fault.h"
#include "common/log.h"
#include "hypervisor/fake.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define PAGES 40

static char dir[64];
static struct hv *hv;
static struct hv_ops ops; /* the fake's, some replaced */
static const struct hv_ops *fake;
static uint32_t domid;
static struct hv_map map, guest;
static struct capture c;
static struct checkpoint_device device, *devices[1];
static unsigned marks;
static bool mark_fails, flag_at_suspend, stopped_at_mark;
static int resume_fails;

static int mark(struct checkpoint_device *d, uint64_t epoch, struct err *e)
{
    struct hv_domain dom;

    (void)d;
    (void)epoch;
    marks++;
    fake->info(hv, domid, &dom, NULL);
    stopped_at_mark = dom.shutdown == HV_SUSPEND;
    return mark_fails ? err_set(e, "no mark") : 0;
}

static const struct checkpoint_device_ops device_ops = {.name = "device",
                                                        .mark = mark};

static enum hv_suspend_result suspend(struct hv *h, uint32_t id, unsigned ms,
                                      const bool *over, struct err *e)
{
    flag_at_suspend = suspend_flag_get(&c.flag);
    return fake->suspend(h, id, ms, over, e);
}

static enum hv_suspend_result suspend_error(struct hv *h, uint32_t id,
                                            unsigned ms, const bool *over,
                                            struct err *e)
{
    (void)over;
    (void)h;
    (void)id;
    (void)ms;
    err_set(e, "xenstored is away");
    return HV_SUSPEND_ERROR;
}

static int clean_fails(struct hv *h, uint32_t id, uint64_t *b, uint64_t n,
                       bool final, struct err *e)
{
    (void)h;
    (void)id;
    (void)b;
    (void)n;
    (void) final;
    return err_set(e, "no bitmap");
}

static int state_fails(struct hv *h, uint32_t id, struct buf *b, struct err *e)
{
    (void)h;
    (void)id;
    (void)b;
    return err_set(e, "no context");
}

static int resume(struct hv *h, uint32_t id, struct err *e)
{
    if (resume_fails && resume_fails--)
        return err_set(e, "no resume");
    return fake->resume(h, id, e);
}

static int recover(struct hv *h, uint32_t id, unsigned ms, struct err *e)
{
    if (resume_fails && resume_fails--)
        return err_set(e, "no recovery");
    return fake->suspend_recover(h, id, ms, e);
}

static int open_all(void **state)
{
    struct fake_spec spec = {
        .name = "web", .seed = 1, .ram_pages = PAGES, .writers = 1};
    char path[80];
    struct err e = ERR_INIT;

    (void)state;
    log_setup("test", 2);
    snprintf(dir, sizeof dir, "/tmp/understudy-c.XXXXXX");
    assert_non_null(mkdtemp(dir));
    fault_setup(dir);
    assert_int_equal(fake_create(dir, &spec, &domid, &e), 0);
    assert_int_equal(hv_fake_open(dir, &hv, &e), 0);
    fake = hv->ops;
    ops = *fake;
    ops.suspend = suspend;
    ops.resume = resume;
    ops.suspend_recover = recover;
    hv->ops = &ops;
    assert_int_equal(fake->map(hv, domid, false, &map, &e), 0);
    assert_int_equal(fake->map(hv, domid, true, &guest, &e), 0);
    assert_int_equal(fake->logdirty_start(hv, domid, &e), 0);
    device.ops = &device_ops;
    devices[0] = &device;
    marks = 0;
    mark_fails = false;
    resume_fails = 0;
    c = (struct capture){.hv = hv,
                         .domid = domid,
                         .map = &map,
                         .devices = devices,
                         .device_count = 1,
                         .deadline_ms = 30};
    snprintf(path, sizeof path, "%s/suspend", dir);
    assert_int_equal(suspend_flag_open(&c.flag, path, &e), 0);
    assert_int_equal(capture_open(&c, 20, &e), 0);
    return 0;
}

static int close_all(void **state)
{
    char command[100];

    (void)state;
    capture_close(&c);
    suspend_flag_close(&c.flag);
    fake->unmap(hv, &map);
    fake->unmap(hv, &guest);
    hv->ops = fake;
    fake->close(hv);
    snprintf(command, sizeof command, "rm -rf '%s'", dir);
    return system(command);
}

/* The guest writes `value` to a page. */
static void guest_write(uint64_t gfn, uint8_t value)
{
    char path[100];
    uint64_t word = 0;

    memset(guest.base + gfn * HV_PAGE, value, HV_PAGE);
    snprintf(path, sizeof path, "%s/log-%u", dir, domid);
    FILE *log = fopen(path, "r+");
    assert_non_null(log);
    assert_int_equal(fread(&word, 8, 1, log), 1);
    word |= 1ull << gfn;
    rewind(log);
    assert_int_equal(fwrite(&word, 8, 1, log), 1);
    fclose(log);
}

static enum capture_result take(struct err *e)
{
    struct engine_epoch stats = {0};

    e->text[0] = '\0';
    return capture_take(&c, 1, &stats, e);
}

static void assert_runs(void)
{
    struct hv_domain d;

    assert_int_equal(fake->info(hv, domid, &d, NULL), 0);
    assert_int_equal(d.shutdown, HV_RUNNING);
    assert_false(suspend_flag_get(&c.flag));
}

/* Page 3 with that value, and the board, are in staging. */
static void assert_taken(uint8_t value)
{
    struct err e = ERR_INIT;

    assert_int_equal(take(&e), CAPTURE_TAKEN);
    assert_runs();
    assert_int_equal(c.staging.count, 2);
    assert_int_equal(c.staging.gfns[1], 3);
    assert_int_equal(c.staging.pages[HV_PAGE], value);
    assert_int_equal(c.staging.pages[2 * HV_PAGE - 1], value);
    assert_int_equal(harvest_count(c.pending, c.words), 0);
    assert_true(c.staging.state.len > 0);
}

static void a_capture_takes_the_dirty_pages_once(void **state)
{
    struct err e = ERR_INIT;

    (void)state;
    guest_write(3, 7);
    assert_taken(7);
    assert_true(flag_at_suspend);
    assert_true(stopped_at_mark);
    assert_int_equal(marks, 1);
    assert_int_equal(take(&e), CAPTURE_TAKEN);
    assert_int_equal(c.staging.count, 1); /* the board */
    guest_write(3, 8);
    assert_taken(8);
}

static void every_fault_point_gives_up_and_loses_nothing(void **state)
{
    static const char *const points[] = {"capture.before", "capture.suspended",
                                         "capture.copied", "capture.marked",
                                         "capture.resumed"};
    struct err e = ERR_INIT;
    char path[80];

    (void)state;
    snprintf(path, sizeof path, "%s/faults", dir);
    for (size_t i = 0; i < 5; i++) {
        guest_write(3, (uint8_t)(i + 1));
        FILE *f = fopen(path, "r+");
        fprintf(f, "%s fail\n", points[i]);
        fclose(f);
        assert_int_equal(take(&e), CAPTURE_SKIPPED);
        assert_non_null(strstr(e.text, points[i]));
        assert_runs();
        assert_taken((uint8_t)(i + 1));
    }
}

static void a_failed_state_or_mark_gives_up_and_loses_nothing(void **state)
{
    struct err e = ERR_INIT;

    (void)state;
    guest_write(3, 1);
    ops.get_state = state_fails;
    assert_int_equal(take(&e), CAPTURE_SKIPPED);
    assert_runs();
    assert_int_equal(marks, 0);
    ops.get_state = fake->get_state;
    mark_fails = true;
    assert_int_equal(take(&e), CAPTURE_SKIPPED);
    assert_string_equal(e.text, "device: mark: no mark");
    assert_runs();
    mark_fails = false;
    assert_taken(1);
}

static void a_state_that_outgrew_its_buffer_fits_the_next_time(void **state)
{
    struct err e = ERR_INIT;

    (void)state;
    guest_write(3, 1);
    assert_int_equal(fake_do(dir, domid, FAKE_STATE_PAD, 200000, &e), 0);
    assert_int_equal(take(&e), CAPTURE_SKIPPED);
    assert_runs();
    assert_int_equal(marks, 0);
    assert_taken(1);
}

static void a_lost_bitmap_voids_but_the_guest_runs(void **state)
{
    struct err e = ERR_INIT;

    (void)state;
    ops.logdirty_clean = clean_fails;
    assert_int_equal(take(&e), CAPTURE_VOID);
    assert_runs();
    assert_int_equal(marks, 0);
}

static void more_dirty_pages_than_staging_are_kept(void **state)
{
    struct err e = ERR_INIT;
    uint64_t count = 0;

    (void)state;
    for (uint64_t gfn = 1; gfn <= 30; gfn++)
        guest_write(gfn, (uint8_t)gfn);
    assert_int_equal(take(&e), CAPTURE_FULL);
    assert_runs();
    assert_int_equal(marks, 0);
    assert_int_equal(harvest_count(c.pending, c.words), 31);
    assert_true(capture_batch(&c));
    assert_int_equal(c.staging.count, 20);
    assert_int_equal(c.staging.pages[19 * HV_PAGE], 19);
    guest_write(5, 99);
    assert_int_equal(capture_refresh(&c, &count, &e), 0);
    assert_int_equal(count, 12);
    assert_int_equal(take(&e), CAPTURE_TAKEN);
    assert_int_equal(c.staging.count, 13);
    assert_int_equal(c.staging.gfns[1], 5);
    assert_int_equal(c.staging.pages[HV_PAGE], 99);
}

static void a_suspend_that_fails_leaves_the_guest_running(void **state)
{
    struct err e = ERR_INIT;

    (void)state;
    guest_write(3, 1);
    ops.suspend = suspend_error;
    assert_int_equal(take(&e), CAPTURE_SKIPPED);
    assert_string_equal(e.text, "xenstored is away");
    assert_runs();
    ops.suspend = suspend;
    fake_do(dir, domid, FAKE_REFUSE, 1, &e);
    assert_int_equal(take(&e), CAPTURE_SKIPPED);
    assert_int_equal(e.kind, ERR_TIMEOUT);
    assert_runs();
    fake_do(dir, domid, FAKE_REFUSE, 0, &e);
    assert_taken(1);
}

static enum hv_suspend_result suspend_late(struct hv *h, uint32_t id,
                                           unsigned ms, const bool *over,
                                           struct err *e)
{
    (void)over;
    (void)h;
    (void)id;
    err_kind(e, ERR_TIMEOUT, "not within %u ms", ms);
    return HV_LATE;
}

static void a_request_that_the_guest_has_still_is_noted(void **state)
{
    struct err e = ERR_INIT;

    (void)state;
    guest_write(3, 1);
    ops.suspend = suspend_late;
    assert_int_equal(take(&e), CAPTURE_LATE);
    assert_int_equal(e.kind, ERR_TIMEOUT);
    assert_true(suspend_flag_get(&c.flag));
    ops.suspend = suspend;
    assert_taken(1);
    assert_false(suspend_flag_get(&c.flag));
}

static void a_guest_that_shut_down_is_told_and_not_resumed(void **state)
{
    struct err e = ERR_INIT;
    struct hv_domain d;

    (void)state;
    fake_do(dir, domid, FAKE_SHUTDOWN, HV_REBOOT, &e);
    assert_int_equal(take(&e), CAPTURE_DOWN);
    assert_int_equal(fake->info(hv, domid, &d, NULL), 0);
    assert_int_equal(d.shutdown, HV_REBOOT);
    assert_false(suspend_flag_get(&c.flag));
}

/* Somebody else may have resumed it, in the middle of our copy. */
static void a_guest_that_could_not_be_resumed_is_not_taken(void **state)
{
    struct err e = ERR_INIT;

    (void)state;
    guest_write(3, 1);
    resume_fails = 1;
    assert_int_equal(take(&e), CAPTURE_SKIPPED);
    assert_non_null(strstr(e.text, "may have run"));
    assert_false(suspend_flag_get(&c.flag));
    assert_taken(1);
}

static void a_guest_that_is_stuck_keeps_the_flag(void **state)
{
    struct err e = ERR_INIT;

    (void)state;
    resume_fails = 2;
    assert_int_equal(take(&e), CAPTURE_STUCK);
    assert_non_null(strstr(e.text, "can't be resumed"));
    assert_true(suspend_flag_get(&c.flag));
    assert_int_equal(engine_recover(hv, domid, "/nonexistent/flag", &e), -1);
    char path[80];
    snprintf(path, sizeof path, "%s/suspend", dir);
    assert_int_equal(engine_recover(hv, domid, path, &e), 0);
    assert_runs();
}

#define T(f) cmocka_unit_test_setup_teardown(f, open_all, close_all)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(a_capture_takes_the_dirty_pages_once),
        T(every_fault_point_gives_up_and_loses_nothing),
        T(a_failed_state_or_mark_gives_up_and_loses_nothing),
        T(a_state_that_outgrew_its_buffer_fits_the_next_time),
        T(a_lost_bitmap_voids_but_the_guest_runs),
        T(more_dirty_pages_than_staging_are_kept),
        T(a_suspend_that_fails_leaves_the_guest_running),
        T(a_request_that_the_guest_has_still_is_noted),
        T(a_guest_that_shut_down_is_told_and_not_resumed),
        T(a_guest_that_could_not_be_resumed_is_not_taken),
        T(a_guest_that_is_stuck_keeps_the_flag),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
