// SPDX-License-Identifier: Apache-2.0
/* Holds the output of a real vif for a while, in the lab's dom0:
 *
 *     netbuf-hold TAG VIF HOLD_MS EPOCH_MS
 *
 * For HOLD_MS nothing is committed, then all is released; then, if EPOCH_MS is
 * not 0, a hundred epochs of that length, as protection does it; then
 * teardown. Prints what is held, with wall time; exit status 1: an error. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "net-buffer/netbuf.h"

static struct err err;
static struct checkpoint_device *d;

static void say(const char *what)
{
    struct device_load l;
    uint64_t ms = clock_wall_ms();

    if (d->ops->poll(d, &l, &err)) {
        fprintf(stderr, "poll: %s\n", err.text);
        exit(1);
    }
    printf("%llu.%03u %s held_packets=%llu held_bytes=%llu dropped=%llu\n",
           (unsigned long long)ms / 1000, (unsigned)(ms % 1000), what,
           (unsigned long long)l.held_packets, (unsigned long long)l.held_bytes,
           (unsigned long long)l.dropped_packets);
    fflush(stdout);
}

static void must(int rc, const char *what)
{
    if (!rc)
        return;
    fprintf(stderr, "%s: %s (%s)\n", what, err.text, err.hint);
    d->ops->teardown(d, true);
    exit(1);
}

static void epochs(unsigned ms)
{
    for (uint64_t n = 2; n < 102; n++) {
        usleep(ms * 1000);
        must(d->ops->mark(d, n, &err), "mark");
        usleep(ms * 500);
        must(d->ops->commit(d, n, &err), "commit");
    }
}

int main(int argc, char **argv)
{
    char name[1][NETBUF_NAME_MAX];
    uint64_t end;

    if (argc != 5)
        return 2;
    log_setup("netbuf-hold", LOG_INFO);
    snprintf(name[0], sizeof name[0], "%s", argv[2]);
    if (netbuf_open(argv[1], NULL, &d, &err) ||
        netbuf_set_vifs(d, (const char(*)[NETBUF_NAME_MAX])name, 1, &err) ||
        d->ops->setup(d, &err)) {
        fprintf(stderr, "%s (%s)\n", err.text, err.hint);
        return 1;
    }
    say("set up");
    must(d->ops->mark(d, 1, &err), "mark");
    must(d->ops->commit(d, 1, &err), "commit");
    say("holding");
    end = clock_ns() + strtoull(argv[3], NULL, 10) * NS_PER_MS;
    while (clock_ns() < end) {
        usleep(500000);
        say("holding");
    }
    must(d->ops->abort(d, true, &err), "abort");
    say("released");
    sleep(1);
    if (atoi(argv[4]))
        epochs((unsigned)atoi(argv[4]));
    say("teardown");
    d->ops->teardown(d, true);
    d->ops->free(d);
    return 0;
}
