// SPDX-License-Identifier: Apache-2.0
/* checkpoint/codec: pages to PAGES payloads and back; what the decoder
 * refuses; what the encoder may call unchanged. */
#include "checkpoint/codec.h"
#include "checkpoint/epoch.h"
#include "hypervisor/hv.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define GFNS  3000
#define PAGES 900

static uint64_t seed = 7;
static uint8_t guest[GFNS][HV_PAGE], image[GFNS][HV_PAGE],
    staged[PAGES * HV_PAGE];
static uint64_t gfns[PAGES];
static struct encoder *enc;
static struct decoder *dec;
static struct buf payload;

static uint64_t rnd(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    return seed ^= seed << 17;
}

static int codec_start(void **state)
{
    (void)state;
    memset(guest, 0, sizeof guest);
    memset(image, 0, sizeof image);
    memset(&payload, 0, sizeof payload);
    assert_int_equal(encoder_open(&enc, GFNS, true, NULL), 0);
    assert_int_equal(decoder_open(&dec, NULL), 0);
    return 0;
}

static int codec_end(void **state)
{
    (void)state;
    encoder_free(enc);
    decoder_free(dec);
    buf_free(&payload);
    return 0;
}

static void page_random(uint8_t *page)
{
    unsigned how = (unsigned)(rnd() % 4);

    memset(page, how == 0 ? 0 : (int)(rnd() & 0xff), HV_PAGE);
    if (how == 1)
        for (unsigned i = 0; i < HV_PAGE; i += 8)
            put_le64(page + i, rnd());
    if (how == 2)
        page[HV_PAGE - 1] ^= 1;
}

/* n different frames, ascending, with their content staged. */
static size_t pages_stage(size_t max)
{
    size_t n = 0;

    for (uint64_t g = 0; g < GFNS && n < max; g++)
        if (rnd() % 3 == 0) {
            memcpy(staged + n * HV_PAGE, guest[g], HV_PAGE);
            gfns[n++] = g;
        }
    return n;
}

static void chunk_write(const struct chunk *c)
{
    const uint8_t *data = c->data;

    for (uint32_t i = 0; i < c->count; i++) {
        uint8_t *to = image[chunk_gfn(c, i)];
        if (chunk_kind(c, i) == CODEC_ZERO)
            memset(to, 0, HV_PAGE);
        if (chunk_kind(c, i) == CODEC_RAW) {
            memcpy(to, data, HV_PAGE);
            data += HV_PAGE;
        }
    }
}

/* Send n staged pages of `epoch` (0: live), apply them to the image. */
static void pages_send(uint64_t epoch, size_t n)
{
    uint32_t sequence = 0;

    encoder_begin(enc, epoch, epoch == 0);
    for (size_t i = 0, used; i < n; i += used) {
        used =
            encoder_chunk(enc, gfns + i, staged + i * HV_PAGE, n - i, &payload);
        struct err e = ERR_INIT;
        struct chunk *c =
            decoder_chunk(dec, payload.data, payload.len, GFNS, &e);
        assert_string_equal(e.text, "");
        assert_non_null(c);
        assert_int_equal(c->count, used);
        assert_int_equal(c->sequence, sequence++);
        assert_int_equal(c->epoch, epoch);
        assert_int_equal(c->live, epoch == 0);
        assert_true(payload.len <= CODEC_PAYLOAD_MAX);
        chunk_write(c);
        free(c);
    }
}

static void any_pages_survive_the_round_trip(void **state)
{
    (void)state;
    for (uint64_t epoch = 0; epoch < 20; epoch++) {
        for (int i = 0; i < GFNS; i++)
            if (rnd() % 2)
                page_random(guest[i]);
        size_t n = pages_stage(PAGES);
        pages_send(epoch, n);
        encoder_commit(enc);
        for (size_t i = 0; i < n; i++)
            assert_memory_equal(guest[gfns[i]], image[gfns[i]], HV_PAGE);
    }
    struct encoder_count count = encoder_count(enc);
    assert_true(count.unchanged > 0 && count.zero > 0 && count.raw > 0);
    assert_true(count.packed_bytes < count.raw_bytes);
}

static void without_compression_raw_pages_are_stored(void **state)
{
    (void)state;
    encoder_free(enc);
    assert_int_equal(encoder_open(&enc, GFNS, false, NULL), 0);
    memset(guest[5], 3, HV_PAGE);
    memcpy(staged, guest[5], HV_PAGE);
    gfns[0] = 5;
    pages_send(1, 1);
    assert_true(payload.len > HV_PAGE);
    assert_memory_equal(guest[5], image[5], HV_PAGE);
}

static enum codec_kind kind_of(uint64_t gfn, uint8_t fill)
{
    memset(staged, fill, HV_PAGE);
    gfns[0] = gfn;
    assert_int_equal(encoder_chunk(enc, gfns, staged, 1, &payload), 1);
    struct chunk *c = decoder_chunk(dec, payload.data, payload.len, GFNS, NULL);
    enum codec_kind kind = chunk_kind(c, 0);
    free(c);
    return kind;
}

static void unchanged_is_said_only_after_the_acknowledgement(void **state)
{
    (void)state;
    encoder_begin(enc, 1, false);
    assert_int_equal(kind_of(9, 1), CODEC_RAW);
    encoder_commit(enc);
    encoder_begin(enc, 2, false);
    assert_int_equal(kind_of(9, 1), CODEC_UNCHANGED);
    assert_int_equal(kind_of(9, 2), CODEC_RAW);
    encoder_begin(enc, 2, false); /* given up: 1 is what the replica has */
    assert_int_equal(kind_of(9, 2), CODEC_RAW);
    encoder_commit(enc);
    encoder_begin(enc, 3, false);
    assert_int_equal(kind_of(9, 2), CODEC_UNCHANGED);
    assert_int_equal(kind_of(9, 1), CODEC_RAW);
}

static void a_page_sent_twice_in_one_epoch_is_never_unchanged(void **state)
{
    (void)state;
    encoder_begin(enc, 1, false);
    assert_int_equal(kind_of(9, 1), CODEC_RAW);
    encoder_commit(enc);
    encoder_begin(enc, 2, false);
    assert_int_equal(kind_of(9, 2), CODEC_RAW);
    assert_int_equal(kind_of(9, 1), CODEC_RAW); /* back to epoch 1's */
    assert_int_equal(kind_of(9, 1), CODEC_RAW);
    encoder_commit(enc);
    encoder_begin(enc, 3, false);
    assert_int_equal(kind_of(9, 1), CODEC_UNCHANGED);
}

static void after_a_reset_nothing_is_unchanged(void **state)
{
    (void)state;
    encoder_begin(enc, 0, true);
    assert_int_equal(kind_of(9, 1), CODEC_RAW);
    assert_int_equal(kind_of(9, 1), CODEC_UNCHANGED);
    assert_int_equal(kind_of(8, 0), CODEC_ZERO);
    assert_int_equal(kind_of(8, 0), CODEC_UNCHANGED);
    encoder_reset(enc);
    assert_int_equal(kind_of(9, 1), CODEC_RAW);
    assert_int_equal(kind_of(8, 0), CODEC_ZERO);
}

static void zero_and_unchanged_pages_take_two_bytes_at_most(void **state)
{
    (void)state;
    memset(staged, 0, sizeof staged);
    for (size_t i = 0; i < PAGES; i++)
        gfns[i] = i * 3;
    encoder_begin(enc, 1, false);
    assert_int_equal(encoder_chunk(enc, gfns, staged, PAGES, &payload), PAGES);
    assert_true(payload.len <= 32 + 2 * PAGES);
}

static struct chunk *decode(const uint8_t *p, size_t len)
{
    /* Exactly sized, so that reading beyond is seen. */
    uint8_t *copy = malloc(len ? len : 1);
    struct err e = ERR_INIT;

    memcpy(copy, p, len);
    struct chunk *c = decoder_chunk(dec, copy, len, GFNS, &e);
    free(copy);
    assert_true((c == NULL) == (e.text[0] != '\0'));
    return c;
}

static void payload_make(void)
{
    for (int i = 0; i < GFNS; i++)
        page_random(guest[i]);
    encoder_begin(enc, 1, false);
    encoder_chunk(enc, gfns, staged, pages_stage(40), &payload);
}

static void a_payload_cut_or_extended_anywhere_is_refused(void **state)
{
    (void)state;
    payload_make();
    for (size_t len = 0; len < payload.len;
         len += len < 200 || payload.len - len < 200 ? 1 : 97)
        assert_null(decode(payload.data, len));
    buf_u8(&payload, 0);
    assert_null(decode(payload.data, payload.len));
    payload.len--;
    struct chunk *c = decode(payload.data, payload.len);
    assert_non_null(c);
    free(c);
}

static void flipped_bits_never_do_harm(void **state)
{
    (void)state;
    payload_make();
    for (int i = 0; i < 4000; i++) {
        size_t at = rnd() % (i & 1 ? payload.len : 120);
        uint8_t old = payload.data[at];
        payload.data[at] ^= (uint8_t)(1u << (rnd() % 8));
        struct chunk *c = decode(payload.data, payload.len);
        for (uint32_t k = 0; c && k < c->count; k++)
            assert_true(chunk_gfn(c, k) < GFNS);
        free(c);
        payload.data[at] = old;
    }
}

static void header_make(struct buf *b, uint32_t entries, uint32_t directory,
                        uint32_t raw, uint32_t packed)
{
    buf_clear(b);
    buf_u64(b, 1);
    buf_u32(b, 0);
    buf_u32(b, 0);
    buf_u32(b, entries);
    buf_u32(b, directory);
    buf_u32(b, raw);
    buf_u32(b, packed);
}

static void hostile_counts_and_frames_are_refused(void **state)
{
    struct buf b = {0};
    static const uint8_t page[HV_PAGE];

    (void)state;
    header_make(&b, 0, 0, 0, 0);
    assert_null(decode(b.data, b.len));
    header_make(&b, UINT32_MAX, 0, 0, 0);
    assert_null(decode(b.data, b.len));
    header_make(&b, 1, 1, UINT32_MAX, UINT32_MAX);
    buf_u8(&b, CODEC_RAW);
    assert_null(decode(b.data, b.len));
    header_make(&b, 1, 1, 0, 0);
    buf_u8(&b, 3); /* unknown kind */
    assert_null(decode(b.data, b.len));
    header_make(&b, 1, 1, 0, 0);
    buf_u8(&b, CODEC_RAW); /* without a page */
    assert_null(decode(b.data, b.len));
    header_make(&b, 1, 1, 1, HV_PAGE);
    buf_u8(&b, CODEC_ZERO); /* with a page */
    buf_put(&b, page, sizeof page);
    assert_null(decode(b.data, b.len));
    header_make(&b, 1, 2, 0, 0);
    buf_varint(&b, (uint64_t)GFNS << 2 | CODEC_ZERO);
    assert_null(decode(b.data, b.len));
    header_make(&b, 2, 11, 0, 0); /* a gap that wraps around */
    buf_u8(&b, 4 | CODEC_ZERO);
    buf_varint(&b, UINT64_MAX - 2);
    assert_null(decode(b.data, b.len));
    header_make(&b, 2, 3, 0, 0); /* the last frame, then one more */
    buf_varint(&b, (uint64_t)(GFNS - 1) << 2 | CODEC_ZERO);
    buf_u8(&b, CODEC_ZERO);
    assert_null(decode(b.data, b.len));
    header_make(&b, 1, 2, 0, 0);
    buf_varint(&b, (uint64_t)(GFNS - 1) << 2 | CODEC_ZERO);
    struct chunk *c = decode(b.data, b.len);
    assert_non_null(c);
    free(c);
    buf_free(&b);
}

static void commit_state_and_ack_survive_and_refuse_cuts(void **state)
{
    struct epoch_commit c = {.epoch = 5, .pages = 6, .chunks = 7, .bytes = 8},
                        c2;
    struct epoch_ack a = {5, 4, 3}, a2;
    struct buf b = {0};
    const uint8_t *s;
    size_t n;
    uint64_t epoch;

    (void)state;
    memset(&c.digest, 0xab, sizeof c.digest);
    epoch_commit_put(&b, &c);
    assert_int_equal(epoch_commit_read(b.data, b.len, &c2, NULL), 0);
    assert_memory_equal(&c.digest, &c2.digest, sizeof c.digest);
    assert_true(c2.epoch == 5 && c2.pages == 6 && c2.chunks == 7 &&
                c2.bytes == 8);
    for (size_t len = 0; len < b.len; len++)
        assert_int_equal(epoch_commit_read(b.data, len, &c2, NULL), -1);
    buf_clear(&b);
    epoch_ack_put(&b, &a);
    assert_int_equal(epoch_ack_read(b.data, b.len, &a2, NULL), 0);
    assert_true(a2.epoch == 5 && a2.applied == 4);
    for (size_t len = 0; len < b.len; len++)
        assert_int_equal(epoch_ack_read(b.data, len, &a2, NULL), -1);
    b.data[8] = 6; /* applied what is not committed */
    assert_int_equal(epoch_ack_read(b.data, b.len, &a2, NULL), -1);
    buf_clear(&b);
    epoch_state_put(&b, 5, "abc", 3);
    assert_int_equal(epoch_state_read(b.data, b.len, &epoch, &s, &n, NULL), 0);
    assert_true(epoch == 5 && n == 3 && !memcmp(s, "abc", 3));
    for (size_t len = 0; len < 9; len++)
        assert_int_equal(epoch_state_read(b.data, len, &epoch, &s, &n, NULL),
                         -1);
    buf_free(&b);
}

#define T(f) cmocka_unit_test_setup_teardown(f, codec_start, codec_end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(any_pages_survive_the_round_trip),
        T(without_compression_raw_pages_are_stored),
        T(unchanged_is_said_only_after_the_acknowledgement),
        T(a_page_sent_twice_in_one_epoch_is_never_unchanged),
        T(after_a_reset_nothing_is_unchanged),
        T(zero_and_unchanged_pages_take_two_bytes_at_most),
        T(a_payload_cut_or_extended_anywhere_is_refused),
        T(flipped_bits_never_do_harm),
        T(hostile_counts_and_frames_are_refused),
        T(commit_state_and_ack_survive_and_refuse_cuts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
