// SPDX-License-Identifier: Apache-2.0
/* The oracle: what the memory of a fake guest must be, given its registers; see
 * fake.h. It replays the steps on a model of its own and looks at no file of
 * the domain. */
#include "hypervisor/fake_private.h"
#include "common/bytes.h"

#include <stdlib.h>
#include <string.h>

struct content {   /* of one page */
    uint64_t step; /* 0: zeroes */
    enum fake_step_kind kind;
};

struct fake_oracle {
    struct fake_spec spec;
    uint64_t steps[FAKE_WRITERS_MAX];
    struct content *pages; /* [ram_pages] */
};

struct fake_oracle *fake_oracle_new(const struct fake_spec *spec)
{
    struct fake_oracle *o = calloc(1, sizeof *o);

    if (!o || !(o->pages = calloc(spec->ram_pages, sizeof *o->pages)))
        abort();
    o->spec = *spec;
    return o;
}

void fake_oracle_free(struct fake_oracle *o)
{
    if (o)
        free(o->pages);
    free(o);
}

static int registers_read(const void *state, size_t len, uint64_t *steps,
                          struct err *e)
{
    struct reader r = reader_of(state, len);

    if (read_u32(&r) != FAKE_MAGIC)
        return err_set(e, "this is no platform state of a fake guest");
    for (int i = 0; i < FAKE_WRITERS_MAX; i++)
        steps[i] = read_u64(&r);
    return r.bad ? err_set(e, "short platform state") : 0;
}

static int model_advance(struct fake_oracle *o, const uint64_t *steps,
                         struct err *e)
{
    for (uint32_t w = 0; w < o->spec.writers; w++) {
        if (steps[w] < o->steps[w])
            return err_set(e, "writer %u went back from step %lu to %lu", w,
                           o->steps[w], steps[w]);
        while (o->steps[w] < steps[w]) {
            struct fake_step st = fake_step(&o->spec, w, ++o->steps[w]);
            struct content *c = &o->pages[st.page];
            if (st.kind == FAKE_TOUCH)
                continue;
            c->step = st.kind == FAKE_ZERO ? 0 : o->steps[w];
            c->kind = st.kind;
        }
    }
    return 0;
}

static int page_check(const struct fake_oracle *o, uint64_t index,
                      const uint8_t *bytes, struct err *e)
{
    const struct content *c = &o->pages[index];
    uint32_t writer = (uint32_t)((index - 1) % o->spec.writers);
    uint64_t seen = get_le64(bytes + 24);
    uint64_t head[3] = {fake_gfn(&o->spec, index), writer, c->step};

    if (!c->step) {
        for (unsigned i = 0; i < HV_PAGE / 8; i++)
            if (get_le64(bytes + i * 8))
                return err_set(e, "page %lu is not zero, word %u is %#lx",
                               index, i, get_le64(bytes + i * 8));
        return 0;
    }
    for (unsigned i = 0; i < 3; i++)
        if (get_le64(bytes + i * 8) != head[i])
            return err_set(e, "page %lu, head %u: %lu, expected %lu", index, i,
                           get_le64(bytes + i * 8), head[i]);
    if (seen > o->steps[(writer + 1) % o->spec.writers])
        return err_set(e,
                       "page %lu has seen step %lu of the next writer, "
                       "which is not there yet",
                       index, seen);
    for (unsigned i = 4; i < HV_PAGE / 8; i++)
        if (get_le64(bytes + i * 8) !=
            fake_word(&o->spec, writer, c->step, c->kind, i))
            return err_set(e, "page %lu of step %lu, word %u is wrong", index,
                           c->step, i);
    return 0;
}

static int board_check(const struct fake_oracle *o, const uint8_t *board,
                       struct err *e)
{
    for (uint32_t w = 0; w < o->spec.writers; w++)
        if (get_le64(board + w * 8) != o->steps[w])
            return err_set(e,
                           "the board says step %lu of writer %u, its "
                           "register says %lu",
                           get_le64(board + w * 8), w, o->steps[w]);
    return 0;
}

int fake_oracle_check(struct fake_oracle *o, const struct hv_map *map,
                      const void *state, size_t len, struct err *e)
{
    uint64_t steps[FAKE_WRITERS_MAX];

    if (registers_read(state, len, steps, e) || model_advance(o, steps, e) ||
        board_check(o, map->base, e))
        return -1;
    for (uint64_t i = 1; i < o->spec.ram_pages; i++) {
        uint64_t gfn = fake_gfn(&o->spec, i);
        if (o->spec.lacking && gfn == o->spec.lacking - 1)
            continue;
        if (page_check(o, i, map->base + gfn * HV_PAGE, e))
            return -1;
    }
    return 0;
}
