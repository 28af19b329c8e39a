// SPDX-License-Identifier: Apache-2.0
/* The wire format: what is encoded decodes to the same, everything else is
 * refused, and no bytes whatever do harm. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "link/wire.h"

/* Decode as `type`; 0 when it was well-formed. Touches all it was given. */
static int decode(uint32_t type, const void *p, size_t n, struct err *e)
{
    struct wire_hello hello;
    struct wire_beat beat;
    struct wire_call call;
    struct wire_blueprint piece;
    struct wire_ready ready;
    struct wire_discard discard;
    struct wire_stop stop;
    struct err why;
    char text[256];

    switch (type) {
    case WIRE_HELLO:
        return hello_get(&hello, p, n, e) ||
               strlen(hello.name) >= sizeof hello.name;
    case WIRE_BEAT:
        return beat_get(&beat, p, n, e);
    case WIRE_REFUSE:
        return refuse_get(&why, p, n, e);
    case WIRE_BYE:
        return bye_get(text, p, n, e);
    case WIRE_REQUEST:
    case WIRE_REPLY:
        return call_get(&call, p, n, e) ||
               (call.len && call.json[call.len - 1] == 1);
    case WIRE_BLUEPRINT:
        return blueprint_get(&piece, p, n, e) ||
               (piece.len && piece.data[piece.len - 1] == 1);
    case WIRE_READY:
        return ready_get(&ready, p, n, e);
    case WIRE_DISCARD:
    case WIRE_DISCARDED:
        return discard_get(&discard, p, n, e);
    case WIRE_STOP:
    case WIRE_STOPPED:
        return stop_get(&stop, p, n, e);
    }
    return 0; /* not ours to decode */
}

static struct wire_hello hello_sample(void)
{
    struct wire_hello h = {
        .protocol = WIRE_VERSION,
        .kind = WIRE_VM,
        .role = WIRE_BACKUP,
        .has_replica = true,
        .generation = 7,
        .committed = 0x1122334455667788,
        .beat_ms = 100,
        .version = "0.1",
        .name = "web01",
    };

    memset(h.uuid, 0xaa, 16);
    memset(h.incarnation, 0xbb, 16);
    return h;
}

static void sample_make(struct buf *b, uint32_t type)
{
    struct wire_hello hello = hello_sample();
    struct wire_beat beat = {1, 2, 3, 4};
    struct wire_call call = {42, "{\"op\":\"query\"}", 14};
    struct wire_blueprint piece = {5, 0, true, (const uint8_t *)"hello", 5};
    struct wire_ready ready = {3, 812};
    struct wire_discard discard = {3, {1, 2, 3}, "resync"};
    struct wire_stop stop = {WIRE_STOP_REBOOT, 3, {1, 2, 3}};
    struct err why = {ERR_REFUSED, "no room", "add memory"};

    switch (type) {
    case WIRE_HELLO:
        hello_put(b, &hello);
        break;
    case WIRE_BEAT:
        beat_put(b, &beat);
        break;
    case WIRE_REFUSE:
        refuse_put(b, &why);
        break;
    case WIRE_BYE:
        bye_put(b, "done");
        break;
    case WIRE_REQUEST:
    case WIRE_REPLY:
        call_put(b, &call);
        break;
    case WIRE_BLUEPRINT:
        blueprint_put(b, &piece);
        break;
    case WIRE_READY:
        ready_put(b, &ready);
        break;
    case WIRE_DISCARD:
    case WIRE_DISCARDED:
        discard_put(b, &discard);
        break;
    case WIRE_STOP:
    case WIRE_STOPPED:
        stop_put(b, &stop);
        break;
    }
}

static const uint32_t control[] = {
    WIRE_HELLO,   WIRE_BEAT,      WIRE_REFUSE,    WIRE_BYE,
    WIRE_REQUEST, WIRE_REPLY,     WIRE_BLUEPRINT, WIRE_READY,
    WIRE_DISCARD, WIRE_DISCARDED, WIRE_STOP,      WIRE_STOPPED,
};
#define CONTROLS (sizeof control / sizeof control[0])

static void preamble_survives_the_wire(void **state)
{
    struct wire_preamble in = {WIRE_PREAMBLE_VERSION, WIRE_VM, {1, 2, 3}}, out;
    uint8_t bytes[WIRE_PREAMBLE];

    (void)state;
    wire_preamble_put(&in, bytes);
    assert_memory_equal(bytes, "UNDRSTDY\1\0\2\0\0\0\0\0\1\2\3", 19);
    assert_int_equal(wire_preamble_get(&out, bytes, NULL), 0);
    assert_int_equal(out.kind, WIRE_VM);
    assert_memory_equal(out.uuid, in.uuid, 16);
}

static void preamble_of_another_version_is_refused(void **state)
{
    struct wire_preamble in = {2, WIRE_HOST, {0}}, out;
    uint8_t bytes[WIRE_PREAMBLE];
    struct err e = ERR_INIT;

    (void)state;
    wire_preamble_put(&in, bytes);
    assert_int_equal(wire_preamble_get(&out, bytes, &e), -1);
    assert_int_equal(e.kind, ERR_REFUSED);
    assert_non_null(strstr(e.text, "version 2"));
    assert_int_equal(out.version, 2);
}

static void any_changed_fixed_byte_of_a_preamble_is_refused(void **state)
{
    struct wire_preamble in = {WIRE_PREAMBLE_VERSION, WIRE_HOST, {0}}, out;
    uint8_t bytes[WIRE_PREAMBLE];

    (void)state;
    for (int i = 0; i < WIRE_PREAMBLE; i++) {
        wire_preamble_put(&in, bytes);
        bytes[i] ^= 0x40;
        assert_int_equal(wire_preamble_get(&out, bytes, NULL), -1);
    }
    in.kind = WIRE_VM; /* with a zero uuid */
    wire_preamble_put(&in, bytes);
    assert_int_equal(wire_preamble_get(&out, bytes, NULL), -1);
}

static void header_survives_the_wire(void **state)
{
    struct wire_header in = {WIRE_PAGES, WIRE_PAYLOAD_MAX}, out;
    uint8_t bytes[WIRE_HEADER];

    (void)state;
    wire_header_put(&in, bytes);
    assert_int_equal(wire_header_get(&out, bytes, NULL), 0);
    assert_int_equal(out.type, WIRE_PAGES);
    assert_int_equal(out.length, WIRE_PAYLOAD_MAX);
}

static void header_with_a_hostile_length_is_refused(void **state)
{
    static const uint32_t lengths[] = {WIRE_PAYLOAD_MAX + 1, 0x80000000,
                                       0xffffffff};
    uint8_t bytes[WIRE_HEADER];
    struct wire_header out;
    struct err e = ERR_INIT;

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        wire_header_put(&(struct wire_header){WIRE_PAGES, lengths[i]}, bytes);
        assert_int_equal(wire_header_get(&out, bytes, &e), -1);
    }
    for (size_t i = 0; i < CONTROLS; i++) {
        uint32_t max = wire_type_max(control[i]);
        wire_header_put(&(struct wire_header){control[i], max}, bytes);
        assert_int_equal(wire_header_get(&out, bytes, &e), 0);
        wire_header_put(&(struct wire_header){control[i], max + 1}, bytes);
        assert_int_equal(wire_header_get(&out, bytes, &e), -1);
        assert_non_null(strstr(e.text, wire_type_name(control[i])));
    }
}

static void header_of_an_unknown_type_is_refused(void **state)
{
    uint8_t bytes[WIRE_HEADER];
    struct wire_header out;
    unsigned known = 0;

    (void)state;
    for (uint32_t type = 0; type < 1000; type++) {
        wire_header_put(&(struct wire_header){type, 0}, bytes);
        int rc = wire_header_get(&out, bytes, NULL);
        assert_int_equal(rc == 0, wire_type_name(type) != NULL);
        known += rc == 0;
    }
    assert_int_equal(known, 21);
}

static void header_with_reserved_bits_is_refused(void **state)
{
    uint8_t bytes[WIRE_HEADER];
    struct wire_header out;

    (void)state;
    for (int i = 8; i < 16; i++) {
        wire_header_put(&(struct wire_header){WIRE_BEAT, 32}, bytes);
        bytes[i] = 1;
        assert_int_equal(wire_header_get(&out, bytes, NULL), -1);
    }
}

static void types_belong_to_their_kind_of_session(void **state)
{
    (void)state;
    assert_true(wire_type_legal(WIRE_HOST, WIRE_REQUEST));
    assert_false(wire_type_legal(WIRE_VM, WIRE_REQUEST));
    assert_true(wire_type_legal(WIRE_VM, WIRE_PAGES));
    assert_false(wire_type_legal(WIRE_HOST, WIRE_PAGES));
    assert_true(wire_type_legal(WIRE_HOST, WIRE_HELLO));
    assert_true(wire_type_legal(WIRE_VM, WIRE_HELLO));
    assert_false(wire_type_legal(WIRE_VM, 99));
}

static void hello_survives_the_wire(void **state)
{
    struct wire_hello in = hello_sample(), out;
    struct buf b = {0};

    (void)state;
    hello_put(&b, &in);
    assert_int_equal(hello_get(&out, b.data, b.len, NULL), 0);
    assert_int_equal(out.role, WIRE_BACKUP);
    assert_true(out.has_replica);
    assert_false(out.running);
    assert_int_equal(out.generation, 7);
    assert_true(out.committed == in.committed);
    assert_memory_equal(out.uuid, in.uuid, 16);
    assert_memory_equal(out.incarnation, in.incarnation, 16);
    assert_string_equal(out.version, "0.1");
    assert_string_equal(out.name, "web01");
    buf_free(&b);
}

static int hello_try(const struct wire_hello *h)
{
    struct wire_hello out;
    struct buf b = {0};

    hello_put(&b, h);
    int rc = hello_get(&out, b.data, b.len, NULL);
    buf_free(&b);
    return rc;
}

static void hello_that_contradicts_itself_is_refused(void **state)
{
    struct wire_hello h;

    (void)state;
    h = hello_sample(), h.role = WIRE_ROLE_HOST;
    assert_int_equal(hello_try(&h), -1);
    h = hello_sample(), h.role = 3;
    assert_int_equal(hello_try(&h), -1);
    h = hello_sample(), h.kind = WIRE_HOST;
    assert_int_equal(hello_try(&h), -1);
    h = hello_sample(), h.kind = 3;
    assert_int_equal(hello_try(&h), -1);
    h = hello_sample(), memset(h.uuid, 0, 16);
    assert_int_equal(hello_try(&h), -1);
    h = hello_sample(), h.generation = WIRE_NUMBER_MAX + 1;
    assert_int_equal(hello_try(&h), -1);
    h = hello_sample(), h.committed = UINT64_MAX;
    assert_int_equal(hello_try(&h), -1);
    h = hello_sample(), h.role = WIRE_PRIMARY; /* with a replica */
    assert_int_equal(hello_try(&h), -1);
    h = hello_sample(), h.committed = 0; /* with a replica */
    assert_int_equal(hello_try(&h), -1);
    h = hello_sample(), h.beat_ms = 0;
    assert_int_equal(hello_try(&h), -1);
    h = hello_sample(), h.beat_ms = 60001;
    assert_int_equal(hello_try(&h), -1);
    h = hello_sample(), h.name[0] = '\0';
    assert_int_equal(hello_try(&h), -1);
}

static void hello_of_another_protocol_tells_its_number_only(void **state)
{
    const uint8_t bytes[] = {2, 0, 'x', 'y', 'z'};
    struct wire_hello out;

    (void)state;
    assert_int_equal(hello_get(&out, bytes, sizeof bytes, NULL), 0);
    assert_int_equal(out.protocol, 2);
    assert_int_equal(out.kind, 0);
}

static void a_refusal_carries_kind_text_and_hint(void **state)
{
    struct err in = {ERR_REFUSED, "no \x1b[2Jroom", "add memory"};
    struct err out = ERR_INIT;
    struct buf b = {0};

    (void)state;
    refuse_put(&b, &in);
    assert_int_equal(refuse_get(&out, b.data, b.len, NULL), 0);
    assert_int_equal(out.kind, ERR_REFUSED);
    assert_string_equal(out.text, "no ?[2Jroom"); /* no escape sequences */
    assert_string_equal(out.hint, "add memory");
    b.data[0] = 77;
    assert_int_equal(refuse_get(&out, b.data, b.len, NULL), -1);
    buf_free(&b);
}

static void the_longest_refusal_fits_its_record(void **state)
{
    struct err in = {.kind = ERR_FAILED}, out = ERR_INIT;
    struct buf b = {0};

    (void)state;
    memset(in.text, 'x', sizeof in.text - 1);
    memset(in.hint, 'y', sizeof in.hint - 1);
    refuse_put(&b, &in);
    assert_true(b.len <= WIRE_CONTROL_MAX);
    assert_int_equal(refuse_get(&out, b.data, b.len, NULL), 0);
    assert_string_equal(out.text, in.text);
    buf_free(&b);
}

static void beats_calls_and_stops_survive_the_wire(void **state)
{
    struct wire_beat beat;
    struct wire_call call;
    struct wire_stop stop;
    struct wire_ready ready;
    struct wire_discard discard;
    struct buf b = {0};

    (void)state;
    sample_make(&b, WIRE_BEAT);
    assert_int_equal(beat_get(&beat, b.data, b.len, NULL), 0);
    assert_true(beat.seq == 1 && beat.sent_ns == 2 && beat.echo_ns == 3 &&
                beat.held_ns == 4);
    buf_clear(&b);
    sample_make(&b, WIRE_REQUEST);
    assert_int_equal(call_get(&call, b.data, b.len, NULL), 0);
    assert_int_equal(call.id, 42);
    assert_int_equal(call.len, 14);
    assert_memory_equal(call.json, "{\"op\":\"query\"}", 14);
    buf_clear(&b);
    sample_make(&b, WIRE_STOP);
    assert_int_equal(stop_get(&stop, b.data, b.len, NULL), 0);
    assert_string_equal(stop_reason_name(stop.reason), "reboot");
    assert_int_equal(stop.incarnation[2], 3);
    buf_clear(&b);
    sample_make(&b, WIRE_READY);
    assert_int_equal(ready_get(&ready, b.data, b.len, NULL), 0);
    assert_true(ready.generation == 3 && ready.committed == 812);
    buf_clear(&b);
    sample_make(&b, WIRE_DISCARDED);
    assert_int_equal(discard_get(&discard, b.data, b.len, NULL), 0);
    assert_string_equal(discard.text, "resync");
    buf_free(&b);
}

static void a_blueprint_is_collected_piece_by_piece(void **state)
{
    static const uint8_t text[] = "a blueprint of some length";
    uint32_t total = sizeof text, at = 0;
    struct buf all = {0}, b = {0};
    struct wire_blueprint w;
    bool done = false;

    (void)state;
    while (at < total) {
        uint32_t n = total - at < 4 ? total - at : 4;
        struct wire_blueprint in = {total, at, at + n == total, text + at, n};
        buf_clear(&b);
        blueprint_put(&b, &in);
        assert_false(done);
        assert_int_equal(blueprint_get(&w, b.data, b.len, NULL), 0);
        assert_int_equal(blueprint_collect(&all, &w, &done, NULL), 0);
        at += n;
    }
    assert_true(done);
    assert_int_equal(all.len, total);
    assert_memory_equal(all.data, text, total);
    /* the last piece once more does not follow */
    assert_int_equal(blueprint_collect(&all, &w, &done, NULL), -1);
    buf_free(&all);
    buf_free(&b);
}

static int piece_try(uint32_t total, uint32_t offset, bool last, size_t len)
{
    static const uint8_t data[64];
    struct wire_blueprint in = {total, offset, last, data, len}, out;
    struct buf b = {0};

    blueprint_put(&b, &in);
    int rc = blueprint_get(&out, b.data, b.len, NULL);
    buf_free(&b);
    return rc;
}

static void blueprint_pieces_with_hostile_numbers_are_refused(void **state)
{
    (void)state;
    assert_int_equal(piece_try(64, 0, true, 64), 0);
    assert_int_equal(piece_try(65, 0, true, 64), -1);  /* not the last */
    assert_int_equal(piece_try(64, 0, false, 64), -1); /* the last */
    assert_int_equal(piece_try(64, 1, true, 64), -1);  /* beyond the end */
    assert_int_equal(piece_try(64, 0xffffffff, true, 1), -1);
    assert_int_equal(piece_try(64, 65, false, 1), -1);
    assert_int_equal(piece_try(64, 64, true, 0), -1); /* empty */
    assert_int_equal(piece_try(0, 0, true, 0), -1);
    assert_int_equal(piece_try(WIRE_BLUEPRINT_MAX + 1, 0, false, 1), -1);
}

/* Text and pieces of free length stay well-formed for some cuts only when
 * their format has no length of its own. */
static bool cut_is_fine(uint32_t type, size_t n)
{
    return (type == WIRE_REQUEST || type == WIRE_REPLY) && n >= 4;
}

static void a_payload_cut_at_any_byte_is_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < CONTROLS; i++) {
        struct buf b = {0};
        sample_make(&b, control[i]);
        assert_int_equal(decode(control[i], b.data, b.len, NULL), 0);
        for (size_t n = 0; n < b.len; n++) {
            /* exactly n bytes of heap, so that ASan sees a read beyond */
            uint8_t *cut = malloc(n ? n : 1);
            struct err e = ERR_INIT;
            memcpy(cut, b.data, n);
            int rc = decode(control[i], cut, n, &e);
            free(cut);
            assert_int_equal(rc != 0, !cut_is_fine(control[i], n));
            assert_true(!rc || e.text[0]);
        }
        buf_free(&b);
    }
}

static void bytes_left_over_are_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < CONTROLS; i++) {
        struct buf b = {0};
        if (control[i] == WIRE_REQUEST || control[i] == WIRE_REPLY)
            continue; /* the rest is JSON */
        sample_make(&b, control[i]);
        buf_u8(&b, 0);
        assert_int_not_equal(decode(control[i], b.data, b.len, NULL), 0);
        buf_free(&b);
    }
}

/* --- Mutations --------------------------------------------------------------
 */

static uint64_t seed = 0x9e3779b97f4a7c15;

static uint32_t next_random(uint32_t below)
{
    seed ^= seed << 13; /* xorshift64 */
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (uint32_t)(seed >> 32) % below;
}

/* All control records one behind the other, as in a session. */
static void stream_make(struct buf *b)
{
    for (size_t i = 0; i < CONTROLS; i++) {
        struct buf payload = {0};
        uint8_t head[WIRE_HEADER];
        sample_make(&payload, control[i]);
        wire_header_put(
            &(struct wire_header){control[i], (uint32_t)payload.len}, head);
        buf_put(b, head, sizeof head);
        buf_put(b, payload.data, payload.len);
        buf_free(&payload);
    }
}

/* How many records of the stream were read. */
static unsigned stream_read(const uint8_t *p, size_t n)
{
    struct reader r = reader_of(p, n);
    unsigned records = 0;

    for (;; records++) {
        struct wire_header h;
        struct err e = ERR_INIT;
        const uint8_t *head = read_bytes(&r, WIRE_HEADER);
        if (!head || wire_header_get(&h, head, &e))
            return records;
        const uint8_t *payload = read_bytes(&r, h.length);
        if (!payload || decode(h.type, payload, h.length, &e))
            return records;
    }
}

static void mutate(uint8_t *p, size_t *n)
{
    static const uint8_t nasty[] = {0, 1, 0x7f, 0x80, 0xff};

    for (uint32_t i = 1 + next_random(4); i > 0; i--) {
        uint32_t at = next_random((uint32_t)*n);
        switch (next_random(4)) {
        case 0:
            p[at] ^= (uint8_t)(1 << next_random(8));
            break;
        case 1:
            p[at] = nasty[next_random(sizeof nasty)];
            break;
        case 2: /* lose a byte */
            memmove(p + at, p + at + 1, *n - at - 1);
            *n -= *n > 1;
            break;
        default: /* repeat some */
            memmove(p + at, p + at / 2, *n - at);
        }
    }
}

static void mutated_streams_do_no_harm(void **state)
{
    struct buf b = {0};
    unsigned whole = 0, broken = 0;

    (void)state;
    stream_make(&b);
    assert_int_equal(stream_read(b.data, b.len), CONTROLS);
    for (int i = 0; i < 100000; i++) {
        size_t n = b.len;
        uint8_t *p = malloc(n);
        memcpy(p, b.data, n);
        mutate(p, &n);
        if (stream_read(p, n) == CONTROLS)
            whole++;
        else
            broken++;
        free(p);
    }
    assert_true(whole > 1000 && broken > 10000); /* both ways were walked */
    buf_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(preamble_survives_the_wire),
        cmocka_unit_test(preamble_of_another_version_is_refused),
        cmocka_unit_test(any_changed_fixed_byte_of_a_preamble_is_refused),
        cmocka_unit_test(header_survives_the_wire),
        cmocka_unit_test(header_with_a_hostile_length_is_refused),
        cmocka_unit_test(header_of_an_unknown_type_is_refused),
        cmocka_unit_test(header_with_reserved_bits_is_refused),
        cmocka_unit_test(types_belong_to_their_kind_of_session),
        cmocka_unit_test(hello_survives_the_wire),
        cmocka_unit_test(hello_that_contradicts_itself_is_refused),
        cmocka_unit_test(hello_of_another_protocol_tells_its_number_only),
        cmocka_unit_test(a_refusal_carries_kind_text_and_hint),
        cmocka_unit_test(the_longest_refusal_fits_its_record),
        cmocka_unit_test(beats_calls_and_stops_survive_the_wire),
        cmocka_unit_test(a_blueprint_is_collected_piece_by_piece),
        cmocka_unit_test(blueprint_pieces_with_hostile_numbers_are_refused),
        cmocka_unit_test(a_payload_cut_at_any_byte_is_refused),
        cmocka_unit_test(bytes_left_over_are_refused),
        cmocka_unit_test(mutated_streams_do_no_harm),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
