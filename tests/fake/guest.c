// SPDX-License-Identifier: Apache-2.0
/* A fake host's guests from the shell, for the scenarios in tests/fake/:
 * making one, running it as this process, making it misbehave, and checking
 * that a domain's memory is a consistent cut. DIR is the directory that
 * UNDERSTUDY_HV=fake:DIR names; domains go by their name. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "disk-replicate/nbd.h"
#include "hypervisor/fake_host.h"

static const char usage[] =
    "usage: guest create DIR NAME [PAGES [STEP_US [NUMBER]]]\n"
    "       guest run DIR NAME [DEVICE] until it is destroyed, or SIGTERM\n"
    "       guest disk DIR NAME IMAGE   exit status 0: IMAGE is of that cut\n"
    "       guest image IMAGE           of which step's cut it is\n"
    "       guest check DIR NAME        exit status 0: a consistent cut\n"
    "       guest steps DIR NAME        steps taken so far\n"
    "       guest first DIR NAME        those of the writer with the disk\n"
    "       guest list DIR              domid, name, running|paused|...\n"
    "       guest destroy DIR NAME\n"
    "       guest unpause DIR NAME\n"
    "       guest do DIR NAME refuse|shutdown|logoff|delay VALUE\n"
    "       guest watchdog DIR          fired, off, or ms left of each timer\n"
    "       guest watchdog-take DIR     take one of its timers, for good\n";

static const char *dir, *name;
static struct err e = ERR_INIT;

static int failed(void)
{
    fprintf(stderr, "guest: %s\n", e.text);
    return 1;
}

/* The number of the domain, 0: there is none. */
static uint32_t domain(void)
{
    struct fake_view v;
    uint32_t domid = 0;
    int r;

    while ((r = fake_domain_next(dir, &domid, &v)) >= 0) {
        if (r)
            continue;
        bool it = !strcmp(v.dom->spec.name, name);
        fake_view_close(&v);
        if (it)
            return domid;
    }
    err_set(&e, "there is no domain %s", name);
    return 0;
}

static int create(char **argv, int n)
{
    struct fake_spec spec = {.seed = 7,
                             .ram_pages = 2000,
                             .hole_at = 100,
                             .hole_pages = 50,
                             .writers = 2,
                             .step_us = 500};
    uint32_t domid;

    snprintf(spec.name, sizeof spec.name, "%s", name);
    if (n > 0)
        spec.ram_pages = strtoul(argv[0], NULL, 10);
    if (n > 1)
        spec.step_us = (uint32_t)strtoul(argv[1], NULL, 10);
    /* The same name is the same VM, unless it is told apart. */
    for (size_t i = 0; i < strlen(name); i++)
        spec.uuid[i % 15] ^= (uint8_t)name[i];
    spec.uuid[15] = n > 2 ? (uint8_t)atoi(argv[2]) : 1;
    if (fake_create(dir, &spec, &domid, &e))
        return failed();
    printf("%u\n", domid);
    return 0;
}

static volatile sig_atomic_t ending;

static void on_signal(int number)
{
    (void)number;
    ending = 1;
}

/* --- Its disk. Step n of the first writer writes block n % BLOCKS, and is on
 * the disk before the step is in the memory. */

#define BLOCKS 512u
#define BLOCK  4096u

struct device {
    const char *path;
    int fd; /* -1: not connected */
};

static void block_fill(uint64_t step, uint8_t *p)
{
    for (unsigned i = 0; i < BLOCK; i += 8)
        put_le64(p + i, step * 1000 + i);
}

static bool device_open(struct device *d)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};

    snprintf(a.sun_path, sizeof a.sun_path, "%s", d->path);
    d->fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (!connect(d->fd, (struct sockaddr *)&a, sizeof a))
        return true;
    close(d->fd);
    d->fd = -1;
    usleep(10000);
    return false;
}

/* As the kernel's client does: what was not answered is sent again. */
static bool step_write(void *arg, uint64_t step)
{
    struct device *d = arg;
    uint8_t out[NBD_REQUEST_BYTES + BLOCK], in[NBD_REPLY_BYTES];
    struct nbd_header h = {.command = NBD_WRITE,
                           .handle = step,
                           .offset = step % BLOCKS * BLOCK,
                           .length = BLOCK};
    uint64_t handle;
    int error;

    nbd_request_put(out, &h);
    block_fill(step, out + NBD_REQUEST_BYTES);
    while (!ending) {
        if (d->fd < 0 && !device_open(d))
            continue;
        if (send(d->fd, out, sizeof out, MSG_NOSIGNAL) == sizeof out &&
            recv(d->fd, in, sizeof in, MSG_WAITALL) == sizeof in &&
            nbd_reply_get(in, &handle, &error) && handle == step) {
            if (error)
                fprintf(stderr, "guest: step %lu: %s\n", step, strerror(error));
            return !error;
        }
        close(d->fd);
        d->fd = -1;
    }
    return false;
}

static int first(uint32_t domid)
{
    struct fake_view v;

    if (fake_view_open(&v, dir, domid, &e))
        return failed();
    printf("%lu\n", load(&v.dom->steps[0]));
    fake_view_close(&v);
    return 0;
}

/* The newest step up to `last` that wrote block b; 0: none did. */
static uint64_t step_of(uint64_t last, unsigned b)
{
    uint64_t back = (last + BLOCKS - b) % BLOCKS;

    return last > back ? last - back : 0;
}

static int cut_check(const char *image, uint64_t last)
{
    FILE *f = fopen(image, "re");

    if (!f) {
        err_sys(&e, "open %s", image);
        return failed();
    }
    for (unsigned b = 0; b < BLOCKS; b++) {
        uint8_t is[BLOCK], want[BLOCK] = {0};
        uint64_t step = step_of(last, b);
        if (step)
            block_fill(step, want);
        if (fread(is, 1, BLOCK, f) != BLOCK)
            err_set(&e, "%s is too short", image);
        else if (memcmp(is, want, BLOCK) != 0)
            err_set(&e, "step %lu: block %u is of step %lu, not %lu", last, b,
                    get_le64(is) / 1000, step);
    }
    fclose(f);
    return e.kind ? failed() : 0;
}

static int disk_check(uint32_t domid, const char *image)
{
    struct fake_view v;

    if (fake_view_open(&v, dir, domid, &e))
        return failed();
    uint64_t last = load(&v.dom->steps[0]);
    fake_view_close(&v);
    return cut_check(image, last);
}

/* The newest step that is in it, if the rest is of that moment. */
static int image_step(const char *image)
{
    FILE *f = fopen(image, "re");
    uint8_t is[BLOCK];
    uint64_t last = 0;

    for (unsigned b = 0; f && b < BLOCKS && fread(is, 1, BLOCK, f); b++)
        if (get_le64(is) / 1000 > last)
            last = get_le64(is) / 1000;
    if (f)
        fclose(f);
    int rc = cut_check(image, last);
    if (!rc)
        printf("%lu\n", last);
    return rc;
}

static int run(uint32_t domid, const char *device)
{
    struct device d = {device, -1};
    struct fake_disk disk = {device ? step_write : NULL, &d};
    struct fake_guest *g = NULL;
    struct sigaction end = {.sa_handler = on_signal};
    struct fake_view v;

    sigaction(SIGTERM, &end, NULL);
    if (fake_guest_start_disk(&g, dir, domid, &disk, &e))
        return failed();
    while (!ending && !fake_view_open(&v, dir, domid, NULL)) {
        fake_view_close(&v);
        usleep(50000);
    }
    fake_guest_stop(g);
    return 0;
}

/* Memory and registers of a domain that stands still. */
static int image_check(struct hv *hv, uint32_t domid)
{
    struct fake_view v;
    struct hv_map map;
    struct buf state = {0};

    if (fake_view_open(&v, dir, domid, &e))
        return -1;
    struct fake_oracle *o = fake_oracle_new(&v.dom->spec);
    fake_view_close(&v);
    int rc = hv->ops->map(hv, domid, false, &map, &e);
    if (!rc) {
        rc = hv->ops->get_state(hv, domid, &state, &e);
        rc = rc ? rc : fake_oracle_check(o, &map, state.data, state.len, &e);
        hv->ops->unmap(hv, &map);
    }
    buf_free(&state);
    fake_oracle_free(o);
    return rc;
}

static int check(uint32_t domid)
{
    struct hv *hv = NULL;
    struct hv_domain d;

    if (hv_fake_open(dir, &hv, &e))
        return failed();
    int rc = hv->ops->info(hv, domid, &d, &e);
    if (!rc)
        rc = hv->ops->pause(hv, domid, &e);
    if (!rc)
        rc = image_check(hv, domid);
    if (!rc && !d.paused)
        rc = hv->ops->unpause(hv, domid, &e);
    hv->ops->close(hv);
    return rc ? failed() : 0;
}

static int unpause(uint32_t domid)
{
    struct hv *hv = NULL;

    if (hv_fake_open(dir, &hv, &e))
        return failed();
    int rc = hv->ops->unpause(hv, domid, &e);
    hv->ops->close(hv);
    return rc ? failed() : 0;
}

static int list(void)
{
    static const char *const ends[] = {"off", "reboot", "suspended", "crashed"};
    struct fake_view v;
    uint32_t domid = 0;
    int r;

    while ((r = fake_domain_next(dir, &domid, &v)) >= 0) {
        if (r)
            continue;
        int32_t s = load(&v.dom->shutdown);
        const char *word = load(&v.dom->paused) ? "paused" : "running";
        printf("%u %s %s%s\n", domid, v.dom->spec.name,
               s >= 0 && s < 4 ? ends[s] : word,
               load(&v.dom->logdirty) ? " logdirty" : "");
        fake_view_close(&v);
    }
    return 0;
}

static int deed(uint32_t domid, const char *what, const char *value)
{
    static const char *const words[] = {[FAKE_REFUSE] = "refuse",
                                        [FAKE_DELAY_US] = "delay",
                                        [FAKE_SHUTDOWN] = "shutdown",
                                        [FAKE_LOG_OFF] = "logoff"};

    for (unsigned i = 0; i < sizeof words / sizeof *words; i++) {
        if (words[i] && !strcmp(words[i], what))
            return fake_do(dir, domid, (enum fake_deed)i,
                           strtoul(value, NULL, 10), &e)
                       ? failed()
                       : 0;
    }
    fputs(usage, stderr);
    return 2;
}

static int watchdog(void)
{
    long long left[FAKE_WATCHDOGS];
    bool fired, any = false;

    if (fake_watchdog_look(dir, left, &fired, &e))
        return failed();
    if (fired)
        return puts("fired") < 0;
    for (int i = 0; i < FAKE_WATCHDOGS; i++) {
        if (left[i] >= 0)
            printf("%s%lld", any ? " " : "", left[i]);
        any |= left[i] >= 0;
    }
    return puts(any ? "" : "off") < 0;
}

static int watchdog_take(void)
{
    struct hv *hv;
    unsigned id = 0;

    if (hv_fake_open(dir, &hv, &e) || hv->ops->watchdog(hv, &id, 3600, &e))
        return failed();
    hv->ops->close(hv);
    return printf("%u\n", id) < 0;
}

int main(int argc, char **argv)
{
    const char *verb = argc > 1 ? argv[1] : "";

    if (argc < 3)
        return fputs(usage, stderr), 2;
    dir = argv[2];
    if (!strcmp(verb, "image"))
        return image_step(dir);
    if (!strcmp(verb, "list"))
        return list();
    if (!strcmp(verb, "watchdog"))
        return watchdog();
    if (!strcmp(verb, "watchdog-take"))
        return watchdog_take();
    if (argc < 4)
        return fputs(usage, stderr), 2;
    name = argv[3];
    if (!strcmp(verb, "create"))
        return create(argv + 4, argc - 4);
    uint32_t domid = domain();
    if (!domid)
        return failed();
    if (!strcmp(verb, "run"))
        return run(domid, argv[4]);
    if (!strcmp(verb, "first"))
        return first(domid);
    if (!strcmp(verb, "disk") && argc == 5)
        return disk_check(domid, argv[4]);
    if (!strcmp(verb, "check"))
        return check(domid);
    if (!strcmp(verb, "steps"))
        return printf("%lu\n", fake_steps(dir, domid)) < 0;
    if (!strcmp(verb, "destroy"))
        return fake_domain_unmake(dir, domid, &e) ? failed() : 0;
    if (!strcmp(verb, "unpause"))
        return unpause(domid);
    if (!strcmp(verb, "do") && argc == 6)
        return deed(domid, argv[4], argv[5]);
    return fputs(usage, stderr), 2;
}
