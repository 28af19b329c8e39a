// SPDX-License-Identifier: Apache-2.0
/* The mark of a takeover under way; see mark.h. Magic, generation, shell,
 * epoch, a flag, the platform state, all little-endian. */
#include "agent/mark.h"

#include <unistd.h>

#include "agent/paths.h"
#include "common/file.h"
#include "hypervisor/hv.h"

#define MARK_MAGIC 0x324d4f54u /* "TOM2" */
#define MARK_MAX   (HV_STATE_MAX + 64)

int mark_write(const char *uuid, const struct takeover_mark *m, struct err *e)
{
    struct buf b = {0};

    buf_u32(&b, MARK_MAGIC);
    buf_u64(&b, m->generation);
    buf_u32(&b, m->shell);
    buf_u64(&b, m->epoch);
    buf_u8(&b, m->state_set);
    buf_blob(&b, m->state.data, m->state.len);
    int rc = file_replace(path_takeover(uuid).s, b.data, b.len, false, e);
    buf_free(&b);
    return rc;
}

int mark_read(const char *uuid, struct takeover_mark *m, struct err *e)
{
    struct path path = path_takeover(uuid);
    struct buf b = {0};
    size_t n = 0;

    *m = (struct takeover_mark){0};
    if (file_load(path.s, MARK_MAX, &b, e)) {
        buf_free(&b);
        return -1;
    }
    struct reader r = reader_of(b.data, b.len);
    bool good = read_u32(&r) == MARK_MAGIC;
    m->generation = read_u64(&r);
    m->shell = read_u32(&r);
    m->epoch = read_u64(&r);
    m->state_set = read_u8(&r);
    const uint8_t *state = read_blob(&r, HV_STATE_MAX, &n);
    if (good && reader_done(&r))
        buf_put(&m->state, state, n);
    else
        good = false;
    buf_free(&b);
    return good ? 0 : err_set(e, "%s is damaged", path.s);
}

void mark_remove(const char *uuid)
{
    unlink(path_takeover(uuid).s);
}
