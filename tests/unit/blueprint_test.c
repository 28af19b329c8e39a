// SPDX-License-Identifier: Apache-2.0
/* Blueprints and state records: what is written is read again, and nothing
 * that a hostile peer sends gets further than the parser. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "hypervisor/blueprint.h"
#include "hypervisor/records.h"

#define END_GFN 1000u

static const char config[] = "{\"c_info\":{\"name\":\"web\"}}";
static const uint8_t leaves[2 * RECORD_LEAF_LEN] = {1, 2, 3};
static const uint8_t msrs[RECORD_MSR_LEN] = {4, 5, 6};

static void state_put(struct buf *b, uint32_t n_params)
{
    size_t at = record_begin(b, RECORD_TSC_INFO);

    buf_u32(b, 2);
    buf_u32(b, 2000000);
    buf_u64(b, 123456789);
    buf_u32(b, 7);
    buf_u32(b, 0);
    record_end(b, at);
    record_put(b, RECORD_HVM_CONTEXT, "context", 7);
    at = record_begin(b, RECORD_HVM_PARAMS);
    buf_u32(b, n_params);
    buf_u32(b, 0);
    for (uint64_t i = 0; i < n_params; i++) {
        buf_u64(b, 10 + i);
        buf_u64(b, 100 + i);
    }
    record_end(b, at);
}

/* Frames 0-99, 200, and 999 are populated. */
static void ram_fill(uint64_t ram[(END_GFN + 63) / 64])
{
    memset(ram, 0, (END_GFN + 63) / 64 * 8);
    for (unsigned i = 0; i < 100; i++)
        ram[i / 64] |= 1ull << (i % 64);
    ram[200 / 64] |= 1ull << (200 % 64);
    ram[999 / 64] |= 1ull << (999 % 64);
}

static struct blueprint sample(const struct buf *state)
{
    return (struct blueprint){
        .xen = "4.17",
        .name = "web",
        .uuid = "0123456789abcde",
        .type = HV_PVH,
        .vcpus = 2,
        .pages = 102,
        .max_pages = 110,
        .end_gfn = END_GFN,
        .config = (const uint8_t *)config,
        .config_len = sizeof config - 1,
        .cpuid = leaves,
        .cpuid_len = sizeof leaves,
        .msrs = msrs,
        .msrs_len = sizeof msrs,
        .state = state->data,
        .state_len = state->len,
    };
}

static void write_sample(struct buf *b)
{
    uint64_t ram[(END_GFN + 63) / 64];
    struct buf state = {0};

    state_put(&state, 3);
    struct blueprint bp = sample(&state);
    ram_fill(ram);
    blueprint_write(b, &bp, ram);
    buf_free(&state);
}

static void what_is_written_is_read(void **unused)
{
    struct blueprint bp;
    struct err e = ERR_INIT;
    struct buf b = {0};
    uint64_t end = 0, gfn, n;

    (void)unused;
    write_sample(&b);
    assert_int_equal(blueprint_parse(b.data, b.len, &bp, &e), 0);
    assert_string_equal(bp.name, "web");
    assert_string_equal(bp.xen, "4.17");
    assert_memory_equal(bp.uuid, "0123456789abcde", 16);
    assert_int_equal(bp.type, HV_PVH);
    assert_int_equal(bp.vcpus, 2);
    assert_int_equal(bp.pages, 102);
    assert_int_equal(bp.max_pages, 110);
    assert_int_equal(bp.end_gfn, END_GFN);
    assert_int_equal(bp.ram_pages, 102);
    assert_int_equal(bp.config_len, sizeof config - 1);
    assert_memory_equal(bp.config, config, bp.config_len);
    assert_memory_equal(bp.cpuid, leaves, sizeof leaves);
    assert_memory_equal(bp.msrs, msrs, sizeof msrs);
    assert_int_equal(bp.n_runs, 3);
    assert_true(blueprint_run(&bp.runs, &end, &gfn, &n));
    assert_true(gfn == 0 && n == 100);
    assert_true(blueprint_run(&bp.runs, &end, &gfn, &n));
    assert_true(gfn == 200 && n == 1);
    assert_true(blueprint_run(&bp.runs, &end, &gfn, &n));
    assert_true(gfn == 999 && n == 1 && end == END_GFN);
    assert_false(blueprint_run(&bp.runs, &end, &gfn, &n));
    buf_free(&b);
}

/* Each cut in memory of exactly that size, so that ASan sees a read beyond. */
static void a_cut_at_every_byte_is_refused(void **unused)
{
    struct blueprint bp;
    struct err e = ERR_INIT;
    struct buf b = {0};

    (void)unused;
    write_sample(&b);
    for (size_t n = 0; n < b.len; n++) {
        uint8_t *p = malloc(n ? n : 1);
        memcpy(p, b.data, n);
        assert_int_equal(blueprint_parse(p, n, &bp, &e), -1);
        free(p);
    }
    buf_free(&b);
}

/* Whatever is accepted must keep its promises about the runs. */
static void a_changed_byte_never_breaks_the_bounds(void **unused)
{
    static const uint8_t values[] = {0x00, 0x01, 0x7f, 0x80, 0xff};
    struct blueprint bp;
    struct err e = ERR_INIT;
    struct buf b = {0};

    (void)unused;
    write_sample(&b);
    for (size_t i = 0; i < b.len; i++) {
        uint8_t was = b.data[i];
        for (size_t v = 0; v < sizeof values; v++) {
            b.data[i] = values[v];
            if (blueprint_parse(b.data, b.len, &bp, &e))
                continue;
            uint64_t end = 0, gfn, n, total = 0;
            while (blueprint_run(&bp.runs, &end, &gfn, &n)) {
                assert_true(end <= bp.end_gfn);
                total += n;
            }
            assert_int_equal(total, bp.ram_pages);
        }
        b.data[i] = was;
    }
    buf_free(&b);
}

/* The sample with other runs than its own. */
static int parse_runs(uint32_t count, const uint64_t *numbers, size_t n)
{
    struct blueprint bp;
    struct buf b = {0};

    write_sample(&b);
    assert_int_equal(blueprint_parse(b.data, b.len, &bp, NULL), 0);
    b.len = (size_t)(bp.runs.p - b.data);
    put_le32(b.data + b.len - 4, count);
    for (size_t i = 0; i < n; i++)
        buf_varint(&b, numbers[i]);
    int rc = blueprint_parse(b.data, b.len, &bp, NULL);
    buf_free(&b);
    return rc;
}

#define RUNS(count, ...)                                                       \
    parse_runs(count, (const uint64_t[]){__VA_ARGS__},                         \
               sizeof((const uint64_t[]){__VA_ARGS__}) / 8)

static void hostile_runs_are_refused(void **unused)
{
    (void)unused;
    assert_int_equal(RUNS(1, 0, 102), 0);
    assert_int_equal(RUNS(2, 0, 50, 10, 52), 0);
    assert_int_equal(RUNS(1, 0, 101), -1);          /* sum too small */
    assert_int_equal(RUNS(2, 0, 102), -1);          /* one missing */
    assert_int_equal(RUNS(1, 0, 102, 0, 1), -1);    /* one too many */
    assert_int_equal(RUNS(1, 899, 102), -1);        /* beyond end_gfn */
    assert_int_equal(RUNS(2, 0, 102, 5, 0), -1);    /* empty run */
    assert_int_equal(RUNS(1, UINT64_MAX, 102), -1); /* wraps around */
    assert_int_equal(RUNS(2, 0, UINT64_MAX, 0, 103), -1);
    assert_int_equal(RUNS(UINT32_MAX, 0, 102), -1);
    assert_int_equal(RUNS(0, 0, 102), -1);
}

static void another_version_is_refused_with_a_hint(void **unused)
{
    struct blueprint bp;
    struct err e = ERR_INIT;
    struct buf b = {0};

    (void)unused;
    write_sample(&b);
    b.data[8] = 2;
    assert_int_equal(blueprint_parse(b.data, b.len, &bp, &e), -1);
    assert_int_equal(e.kind, ERR_REFUSED);
    assert_true(e.hint[0]);
    buf_free(&b);
}

static int parse_name(const char *name)
{
    uint64_t ram[(END_GFN + 63) / 64];
    struct buf state = {0}, b = {0};
    struct blueprint out;

    state_put(&state, 3);
    struct blueprint bp = sample(&state);
    strcpy(bp.name, name);
    ram_fill(ram);
    blueprint_write(&b, &bp, ram);
    int rc = blueprint_parse(b.data, b.len, &out, NULL);
    buf_free(&state);
    buf_free(&b);
    return rc;
}

static void names_that_could_leave_their_path_are_refused(void **unused)
{
    (void)unused;
    assert_int_equal(parse_name("web-01.example"), 0);
    assert_int_equal(parse_name(""), -1);
    assert_int_equal(parse_name("../0/x"), -1);
    assert_int_equal(parse_name("a b"), -1);
    assert_int_equal(parse_name("a\nb"), -1);
}

static void a_state_is_read_as_written(void **unused)
{
    struct record_state s;
    struct buf b = {0};

    (void)unused;
    state_put(&b, 3);
    assert_int_equal(record_state_parse(b.data, b.len, &s, NULL), 0);
    assert_int_equal(s.tsc_mode, 2);
    assert_int_equal(s.tsc_khz, 2000000);
    assert_int_equal(s.tsc_nsec, 123456789);
    assert_int_equal(s.tsc_incarnation, 7);
    assert_int_equal(s.context_len, 7);
    assert_memory_equal(s.context, "context", 7);
    assert_int_equal(s.n_params, 3);
    assert_true(s.params[2].index == 12 && s.params[2].value == 102);
    for (size_t n = 0; n < b.len; n++)
        assert_int_equal(record_state_parse(b.data, n, &s, NULL), -1);
    buf_free(&b);
}

static void a_state_with_too_many_or_wrong_records_is_refused(void **unused)
{
    struct record_state s;
    struct buf b = {0};

    (void)unused;
    state_put(&b, RECORD_PARAMS_MAX + 1);
    assert_int_equal(record_state_parse(b.data, b.len, &s, NULL), -1);
    buf_clear(&b);
    state_put(&b, 3);
    record_put(&b, RECORD_HVM_CONTEXT, "again", 5);
    assert_int_equal(record_state_parse(b.data, b.len, &s, NULL), -1);
    buf_clear(&b);
    state_put(&b, 3);
    record_put(&b, RECORD_PAGE_DATA, "x", 1);
    assert_int_equal(record_state_parse(b.data, b.len, &s, NULL), -1);
    buf_clear(&b);
    state_put(&b, 3);
    put_le32(b.data + 4, UINT32_MAX);
    assert_int_equal(record_state_parse(b.data, b.len, &s, NULL), -1);
    buf_free(&b);
}

static void context_put(struct buf *b, uint16_t type, const char *body)
{
    buf_u16(b, type);
    buf_u16(b, 0);
    buf_u32(b, (uint32_t)strlen(body));
    buf_put(b, body, strlen(body));
}

/* 0 when the state with `context` in the place of its HVM context is good. */
static int checked(const struct buf *context)
{
    static const uint8_t tsc[RECORD_TSC_LEN], params[8];
    struct buf b = {0};

    record_put(&b, RECORD_TSC_INFO, tsc, sizeof tsc);
    record_put(&b, RECORD_HVM_CONTEXT, context->data, context->len);
    record_put(&b, RECORD_HVM_PARAMS, params, sizeof params);
    int rc = record_state_check(b.data, b.len, NULL);
    buf_free(&b);
    return rc;
}

static void a_context_is_a_chain_from_header_to_end(void **unused)
{
    struct buf b = {0};

    (void)unused;
    context_put(&b, 1, "header");
    context_put(&b, 2, "a CPU");
    assert_int_equal(checked(&b), -1);
    context_put(&b, 0, "");
    assert_int_equal(checked(&b), 0);
    for (size_t n = b.len - 1; n; n--) {
        struct buf cut = {.data = b.data, .len = n};
        assert_int_equal(checked(&cut), -1);
    }
    context_put(&b, 2, "more");
    assert_int_equal(checked(&b), -1);
    buf_clear(&b);
    context_put(&b, 2, "a CPU, and no header");
    context_put(&b, 0, "");
    assert_int_equal(checked(&b), -1);
    buf_clear(&b);
    context_put(&b, 1, "header");
    context_put(&b, 1, "header");
    context_put(&b, 0, "");
    assert_int_equal(checked(&b), -1);
    buf_clear(&b);
    context_put(&b, 1, "header");
    context_put(&b, 0, "an end that holds something");
    assert_int_equal(checked(&b), -1);
    buf_free(&b);
}

static void it_is_of_one_vm_by_name_and_uuid(void **unused)
{
    struct hv_vm vm = {.uuid = {1, 2, 3}, .name = "web"};
    const uint8_t other[16] = {1, 2, 4};

    (void)unused;
    assert_int_equal(blueprint_is_of(&vm, "web", vm.uuid, NULL), 0);
    assert_int_equal(blueprint_is_of(&vm, "web", other, NULL), -1);
    assert_int_equal(blueprint_is_of(&vm, "web2", vm.uuid, NULL), -1);
    assert_int_equal(blueprint_is_of(&vm, "", vm.uuid, NULL), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_read),
        cmocka_unit_test(a_cut_at_every_byte_is_refused),
        cmocka_unit_test(a_changed_byte_never_breaks_the_bounds),
        cmocka_unit_test(hostile_runs_are_refused),
        cmocka_unit_test(another_version_is_refused_with_a_hint),
        cmocka_unit_test(names_that_could_leave_their_path_are_refused),
        cmocka_unit_test(a_state_is_read_as_written),
        cmocka_unit_test(a_state_with_too_many_or_wrong_records_is_refused),
        cmocka_unit_test(a_context_is_a_chain_from_header_to_end),
        cmocka_unit_test(it_is_of_one_vm_by_name_and_uuid),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
