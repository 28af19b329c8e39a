// SPDX-License-Identifier: Apache-2.0
/* What devices send through the engine: their part of the initial copy, live,
 * and of each epoch, under its digest. Engine thread. */
#include "checkpoint/engine_private.h"

struct putting {
    struct engine *eng;
    bool live;
    enum turn turn;
};

static int record_put(void *arg, const void *payload, size_t len, struct err *e)
{
    struct putting *p = arg;
    struct engine *eng = p->eng;

    buf_clear(&eng->record);
    buf_put(&eng->record, payload, len);
    if (!p->live)
        engine_record_account(eng);
    p->turn = engine_record_send(eng, EPOCH_DISK);
    if (p->live)
        engine_sync_note(eng, false);
    return p->turn == TURN_ON ? 0 : err_set(e, "not sent");
}

/* `rc` is what the device returned: that it was stopped is no error of its. */
static enum turn outcome(struct putting *p, const struct checkpoint_device *d,
                         int rc, struct err *error)
{
    if (p->turn != TURN_ON || !rc)
        return p->turn;
    err_add(error, "%s", d->ops->name);
    return engine_over(p->eng, ENGINE_VOID, error);
}

enum turn engine_devices_copy(struct engine *eng, bool begin)
{
    for (size_t i = 0; i < eng->devices_ready; i++) {
        struct checkpoint_device *d = eng->config.devices[i];
        struct putting p = {eng, true, TURN_ON};
        struct device_sink sink = {record_put, &p};
        struct err error = ERR_INIT;
        if (!d->ops->copy)
            continue;
        int rc = d->ops->copy(d, begin, &sink, &error);
        enum turn turn = outcome(&p, d, rc, &error);
        if (turn != TURN_ON)
            return turn;
    }
    return TURN_ON;
}

enum turn engine_devices_records(struct engine *eng)
{
    for (size_t i = 0; i < eng->devices_ready; i++) {
        struct checkpoint_device *d = eng->config.devices[i];
        struct putting p = {eng, false, TURN_ON};
        struct device_sink sink = {record_put, &p};
        struct err error = ERR_INIT;
        if (!d->ops->records)
            continue;
        int rc = d->ops->records(d, eng->at.epoch, &sink, &error);
        enum turn turn = outcome(&p, d, rc, &error);
        if (turn != TURN_ON)
            return turn;
    }
    return TURN_ON;
}
