// SPDX-License-Identifier: Apache-2.0
/* The fake host: a directory with domains in it, their files, and what tests do
 * to them; see fake.h. Any thread and process; changes of which domains there
 * are happen under a lock file. */
#include "hypervisor/fake_private.h"
#include "hypervisor/fake_host.h"
#include "common/bytes.h"
#include "common/cleanup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define PATH_BYTES      300
#define SHUTDOWN_MS     5000
#define BLUEPRINT_MAGIC 0x66616b62u

static void file_path(char *out, const char *dir, const char *kind,
                      uint32_t domid)
{
    snprintf(out, PATH_BYTES, "%s/%s-%u", dir, kind, domid);
}

int fake_lock(const char *dir, struct err *e)
{
    char path[PATH_BYTES];

    snprintf(path, sizeof path, "%s/lock", dir);
    CLEANUP_CLOSE int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || flock(fd, LOCK_EX))
        return err_sys(e, "lock %s", path);
    return take_fd(&fd);
}

/* Map DIR/KIND-ID, made `bytes` long if that is not 0. */
void *fake_file_map(const char *dir, const char *kind, uint32_t domid,
                    size_t *bytes, bool create, bool writable, struct err *e)
{
    char path[PATH_BYTES];
    struct stat st;

    file_path(path, dir, kind, domid);
    CLEANUP_CLOSE int fd =
        open(path, O_RDWR | O_CLOEXEC | (create ? O_CREAT | O_EXCL : 0), 0600);
    if (fd < 0) {
        err_kind(e, errno == ENOENT ? ERR_GONE : ERR_FAILED,
                 "domain %u: open %s: %s", domid, path, strerror(errno));
        return NULL;
    }
    if ((create && ftruncate(fd, (off_t)*bytes)) || fstat(fd, &st)) {
        err_sys(e, "size of %s", path);
        return NULL;
    }
    *bytes = (size_t)st.st_size;
    void *p = mmap(NULL, *bytes, PROT_READ | (writable ? PROT_WRITE : 0),
                   MAP_SHARED, fd, 0);
    if (p == MAP_FAILED) {
        err_sys(e, "map %s", path);
        return NULL;
    }
    return p;
}

int fake_view_open(struct fake_view *v, const char *dir, uint32_t domid,
                   struct err *e)
{
    size_t dom_bytes = 0;

    memset(v, 0, sizeof *v);
    v->dom = fake_file_map(dir, "dom", domid, &dom_bytes, false, true, e);
    if (!v->dom)
        return -1;
    v->log = fake_file_map(dir, "log", domid, &v->log_bytes, false, true, e);
    if (v->log)
        v->memory =
            fake_file_map(dir, "mem", domid, &v->memory_bytes, false, true, e);
    if (!v->memory || v->dom->magic != FAKE_MAGIC || load(&v->dom->dying)) {
        fake_view_close(v);
        return err_kind(e, ERR_GONE, "domain %u is not there", domid);
    }
    return 0;
}

void fake_view_close(struct fake_view *v)
{
    if (v->dom)
        munmap(v->dom, sizeof *v->dom);
    if (v->log)
        munmap(v->log, v->log_bytes);
    if (v->memory)
        munmap(v->memory, v->memory_bytes);
    memset(v, 0, sizeof *v);
}

/* Numbers are never used twice in a directory. */
static uint32_t domid_new(const char *dir)
{
    char path[PATH_BYTES], text[16] = "";

    snprintf(path, sizeof path, "%s/next", dir);
    CLEANUP_CLOSE int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return 0;
    (void)!pread(fd, text, sizeof text - 1, 0);
    uint32_t id = (uint32_t)strtoul(text, NULL, 10) + 1;
    int n = snprintf(text, sizeof text, "%u\n", id);
    if (pwrite(fd, text, (size_t)n, 0) != n)
        return 0;
    return id;
}

static int spec_check(const struct fake_spec *s, struct err *e)
{
    if (!s->writers || s->writers > FAKE_WRITERS_MAX ||
        s->ram_pages < 2 + s->writers || s->ram_pages > 1u << 24 ||
        s->hole_pages > 1u << 24 || (s->hole_pages && !s->hole_at))
        return err_kind(e, ERR_USAGE, "a fake guest can't be like that");
    return 0;
}

int fake_domain_make(const char *dir, const struct fake_spec *spec, bool shell,
                     uint32_t *domid, struct err *e)
{
    if (spec_check(spec, e))
        return -1;
    mkdir(dir, 0700);
    CLEANUP_CLOSE int lock = fake_lock(dir, e);
    if (lock < 0)
        return -1;
    uint64_t end = spec->ram_pages + spec->hole_pages;
    size_t dom_bytes = sizeof(struct fake_dom), memory = end * HV_PAGE,
           log = (end + 63) / 64 * 8;
    *domid = domid_new(dir);
    void *p = fake_file_map(dir, "mem", *domid, &memory, true, false, e);
    void *q =
        p ? fake_file_map(dir, "log", *domid, &log, true, false, e) : NULL;
    struct fake_dom *d =
        q ? fake_file_map(dir, "dom", *domid, &dom_bytes, true, true, e) : NULL;
    if (p)
        munmap(p, memory);
    if (q)
        munmap(q, log);
    if (!d)
        return err_add(e, "make a fake domain");
    d->domid = *domid;
    d->spec = *spec;
    d->shell = shell;
    d->end_gfn = end;
    d->paused = shell;
    d->ran = !shell;
    d->shutdown = HV_RUNNING;
    d->step_us = spec->step_us;
    d->pages = d->max_pages = spec->ram_pages - (shell && spec->lacking);
    store(&d->magic, FAKE_MAGIC);
    munmap(d, sizeof *d);
    return 0;
}

int fake_create(const char *dir, const struct fake_spec *spec, uint32_t *domid,
                struct err *e)
{
    return fake_domain_make(dir, spec, false, domid, e);
}

int fake_domain_unmake(const char *dir, uint32_t domid, struct err *e)
{
    static const char *const kinds[] = {"dom", "mem", "log"};
    struct fake_view v;
    char path[PATH_BYTES];

    CLEANUP_CLOSE int lock = fake_lock(dir, e);
    if (lock < 0 || fake_view_open(&v, dir, domid, e))
        return -1;
    store(&v.dom->dying, 1);
    fake_bump(v.dom);
    fake_view_close(&v);
    for (size_t i = 0; i < 3; i++) {
        file_path(path, dir, kinds[i], domid);
        unlink(path);
    }
    return 0;
}

int fake_domain_next(const char *dir, uint32_t *after, struct fake_view *v)
{
    uint32_t best = UINT32_MAX, id;
    struct dirent *de;
    DIR *list = opendir(dir);
    char rest;

    if (!list)
        return -1;
    while ((de = readdir(list)))
        if (sscanf(de->d_name, "dom-%u%c", &id, &rest) == 1 && id > *after &&
            id < best)
            best = id;
    closedir(list);
    *after = best;
    if (best == UINT32_MAX)
        return -1;
    return fake_view_open(v, dir, best, NULL) ? 1 : 0;
}

/* --- Blueprints ------------------------------------------------------------
 */

int fake_devices_script(const char *dir, const char *verb, uint32_t domid,
                        struct err *e)
{
    char command[PATH_BYTES + 64], line[256] = "";

    snprintf(command, sizeof command, "%s/devices", dir);
    if (access(command, X_OK))
        return 0;
    snprintf(command, sizeof command, "exec %s/devices %s %u 2>&1", dir, verb,
             domid);
    FILE *f = popen(command, "re");
    if (!f)
        return err_sys(e, "run %s", command);
    while (fgets(line, sizeof line, f))
        ;
    pclose(f); /* the agent's loop may have taken its status */
    if (!strcmp(line, "ok\n"))
        return 0;
    line[strcspn(line, "\n")] = '\0';
    return err_set(e, "devices of domain %u: %s", domid, line);
}

void fake_blueprint_put(struct buf *out, const struct fake_spec *s,
                        uint32_t step_us)
{
    buf_u32(out, BLUEPRINT_MAGIC);
    buf_str(out, s->name);
    buf_put(out, s->uuid, sizeof s->uuid);
    buf_u64(out, s->seed);
    buf_u64(out, s->ram_pages);
    buf_u64(out, s->hole_at);
    buf_u64(out, s->hole_pages);
    buf_u64(out, s->lacking);
    buf_u32(out, s->writers);
    buf_u32(out, step_us);
}

int fake_blueprint_read(const void *p, size_t len, struct fake_spec *s,
                        struct err *e)
{
    struct reader r = reader_of(p, len);

    memset(s, 0, sizeof *s);
    uint32_t magic = read_u32(&r);
    read_str(&r, s->name, sizeof s->name - sizeof HV_REPLICA_TAG);
    const uint8_t *uuid = read_bytes(&r, sizeof s->uuid);
    s->seed = read_u64(&r);
    s->ram_pages = read_u64(&r);
    s->hole_at = read_u64(&r);
    s->hole_pages = read_u64(&r);
    s->lacking = read_u64(&r);
    s->writers = read_u32(&r);
    s->step_us = read_u32(&r);
    if (!reader_done(&r) || magic != BLUEPRINT_MAGIC)
        return err_set(e, "malformed blueprint");
    memcpy(s->uuid, uuid, sizeof s->uuid);
    return 0;
}

/* --- What tests do to domains ----------------------------------------------
 */

/* A guest that is suspended at this moment does it when it runs again. */
static void shut_down(struct fake_dom *d, uint64_t reason)
{
    int32_t running = HV_RUNNING;

    for (int ms = 0; ms < SHUTDOWN_MS; ms++) {
        if (__atomic_compare_exchange_n(&d->shutdown, &running, (int32_t)reason,
                                        false, __ATOMIC_SEQ_CST,
                                        __ATOMIC_SEQ_CST) ||
            running != HV_SUSPEND)
            return;
        running = HV_RUNNING;
        usleep(1000);
    }
}

int fake_do(const char *dir, uint32_t domid, enum fake_deed deed,
            uint64_t value, struct err *e)
{
    struct fake_view v;

    if (fake_view_open(&v, dir, domid, e))
        return -1;
    struct fake_dom *d = v.dom;
    uint32_t small = (uint32_t)value;
    if (deed == FAKE_REFUSE)
        store(&d->refuse, small);
    else if (deed == FAKE_STOCK)
        store(&d->stock, small);
    else if (deed == FAKE_DELAY_US)
        store(&d->delay_us, small);
    else if (deed == FAKE_SHUTDOWN)
        shut_down(d, value);
    else if (deed == FAKE_SUSPENDED)
        shut_down(d, HV_SUSPEND);
    else if (deed == FAKE_BALLOON)
        store(&d->pages, value);
    else if (deed == FAKE_LOG_OFF)
        store(&d->logdirty, 0);
    else if (deed == FAKE_STEP_US)
        store(&d->step_us, small);
    else if (deed == FAKE_STATE_PAD && value <= FAKE_STATE_PAD_MAX)
        store(&d->state_pad, small);
    fake_bump(d);
    fake_view_close(&v);
    return 0;
}

uint64_t fake_steps(const char *dir, uint32_t domid)
{
    struct fake_view v;
    uint64_t sum = 0;

    if (fake_view_open(&v, dir, domid, NULL))
        return 0;
    for (uint32_t i = 0; i < v.dom->spec.writers; i++)
        sum += load(&v.dom->steps[i]);
    fake_view_close(&v);
    return sum;
}
