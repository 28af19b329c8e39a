// SPDX-License-Identifier: Apache-2.0
/* understudy-xl: one job for libxl, told by the first argument, answered on
 * standard output as xen_xl.c wants it.
 *
 *   describe DOMID        its configuration as JSON
 *   check DOMID           can it be protected?
 *   fits                  can this host hold the VM of the blueprint on stdin?
 *   build NAME UUID       a paused shell of it
 *   rename DOMID NAME
 *   destroy DOMID|NAME [UUID]   only if it is that
 *   watch DOMID LOCK      act when it shuts down; goes on after its answer
 *
 * SIGTERM ends a build; what was begun is destroyed. */
#include "hypervisor/xl/xl.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <jansson.h>

#include "common/cleanup.h"
#include "common/log.h"

static __attribute__((format(printf, 5, 0))) void
log_vmessage(xentoollog_logger *logger, xentoollog_level level, int errnoval,
             const char *context, const char *format, va_list ap)
{
    struct xl *x = (struct xl *)((char *)logger - offsetof(struct xl, log));
    char line[400];

    if (level < XTL_WARN)
        return;
    int n = vsnprintf(line, sizeof line, format, ap);
    if (errnoval >= 0 && n > 0 && (size_t)n < sizeof line)
        snprintf(line + n, sizeof line - (size_t)n, ": %s", strerror(errnoval));
    /* libxl speaks from the inside out: the first word is the cause. But of a
     * hotplug script it says first how that ended, and then why. */
    const char *script = strstr(line, ": script: ");
    if (level >= XTL_ERROR && (script || !x->said[0]))
        snprintf(x->said, sizeof x->said, "%s", script ? script + 2 : line);
    log_warn("%s: %s", context ? context : "libxl", line);
}

static void log_progress(xentoollog_logger *logger, const char *context,
                         const char *what, int percent, unsigned long done,
                         unsigned long total)
{
    (void)logger, (void)context, (void)what;
    (void)percent, (void)done, (void)total;
}

static void log_destroy(xentoollog_logger *logger)
{
    (void)logger;
}

void said_clear(struct xl *x)
{
    x->said[0] = '\0';
}

int xl_err(struct xl *x, struct err *e, const char *fmt, ...)
{
    char what[256];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    return err_set(e, "%s: %s", what, x->said[0] ? x->said : "libxl failed");
}

/* --- Talking to the parent ----------------------------------------------- */

static void say(json_t *j)
{
    char *line = json_dumps(j, JSON_COMPACT);

    if (!line)
        abort();
    puts(line);
    free(line);
    json_decref(j);
}

void answer_ok(uint32_t domid, const void *bytes, size_t n)
{
    say(json_pack("{s:b,s:i,s:i}", "ok", 1, "domid", (int)domid, "bytes",
                  (int)n));
    if (n)
        fwrite(bytes, 1, n, stdout);
    fflush(stdout);
}

/* Text from libxl may hold anything; JSON wants UTF-8. */
static void plain(char *s)
{
    for (; *s; s++)
        if (*s < ' ' || *s > '~')
            *s = '?';
}

static int answer_error(struct err *e)
{
    plain(e->text);
    plain(e->hint);
    say(json_pack("{s:b,s:i,s:s,s:s}", "ok", 0, "kind", (int)e->kind, "error",
                  e->text, "hint", e->hint));
    fflush(stdout);
    return 1;
}

int blueprint_read(struct buf *raw, struct blueprint *bp, struct err *e)
{
    for (;;) {
        buf_reserve(raw, 1 << 16);
        ssize_t n = read(0, raw->data + raw->len, 1 << 16);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_sys(e, "read the blueprint");
        if (n == 0)
            return blueprint_parse(raw->data, raw->len, bp, e);
        raw->len += (size_t)n;
        if (raw->len > HV_BLUEPRINT_MAX)
            return err_set(e, "the blueprint is too large");
    }
}

int config_of(struct xl *x, const struct blueprint *bp,
              libxl_domain_config *config, struct err *e)
{
    CLEANUP_FREE char *json = strndup((const char *)bp->config, bp->config_len);

    libxl_domain_config_init(config);
    if (!json)
        abort();
    said_clear(x);
    if (libxl_domain_config_from_json(x->ctx, config, json))
        return xl_err(x, e, "understand the VM's configuration");
    if (!config->c_info.name || strcmp(config->c_info.name, bp->name) != 0 ||
        memcmp(libxl_uuid_bytearray_const(&config->c_info.uuid), bp->uuid,
               sizeof bp->uuid) != 0)
        return err_kind(e, ERR_REFUSED,
                        "the VM's configuration is that of another VM");
    return 0;
}

/* --- The jobs ------------------------------------------------------------ */

static int number(const char *s, uint32_t *n, struct err *e)
{
    char *end;
    unsigned long v = strtoul(s, &end, 10);

    if (!*s || *end || v > 0x7ff0)
        return err_kind(e, ERR_USAGE, "%s is no domain id", s);
    *n = (uint32_t)v;
    return 0;
}

static int job_describe(struct xl *x, char **argv, struct err *e)
{
    libxl_domain_config config;
    uint32_t domid;

    if (number(argv[0], &domid, e))
        return -1;
    libxl_domain_config_init(&config);
    int rc = libxl_retrieve_domain_configuration(x->ctx, domid, &config, NULL);
    CLEANUP_FREE char *json =
        rc ? NULL : libxl_domain_config_to_json(x->ctx, &config);
    libxl_domain_config_dispose(&config);
    if (!json)
        return xl_err(x, e, "read the configuration of domain %u", domid);
    if (strlen(json) > BLUEPRINT_CONFIG_MAX)
        return err_set(e, "the configuration of domain %u is too large", domid);
    answer_ok(domid, json, strlen(json));
    return 0;
}

static int job_check(struct xl *x, char **argv, struct err *e)
{
    libxl_domain_config config;
    uint32_t domid;

    if (number(argv[0], &domid, e))
        return -1;
    libxl_domain_config_init(&config);
    int rc = libxl_retrieve_domain_configuration(x->ctx, domid, &config, NULL);
    if (rc) {
        rc = xl_err(x, e, "read the configuration of domain %u", domid);
        err_hint(e, "only domains started by xl or libxl can be protected");
    } else {
        rc = config_check(&config, e);
    }
    libxl_domain_config_dispose(&config);
    if (!rc)
        answer_ok(domid, NULL, 0);
    return rc;
}

static int job_fits(struct xl *x, char **argv, struct err *e)
{
    libxl_domain_config config;
    struct buf raw = {0};
    struct blueprint bp;

    (void)argv;
    libxl_domain_config_init(&config);
    int rc = blueprint_read(&raw, &bp, e);
    if (!rc)
        rc = config_of(x, &bp, &config, e);
    if (!rc)
        rc = config_check(&config, e);
    if (!rc)
        rc = config_fits(x, &config, e);
    libxl_domain_config_dispose(&config);
    buf_free(&raw);
    if (!rc)
        answer_ok(0, NULL, 0);
    return rc;
}

static int shell_make(struct xl *x, char **argv, bool boots, struct err *e)
{
    uint32_t domid = 0;

    if (shell_build(x, argv[0], argv[1], boots, &domid, e))
        return -1;
    answer_ok(domid, NULL, 0);
    return 0;
}

static int job_build(struct xl *x, char **argv, struct err *e)
{
    return shell_make(x, argv, false, e);
}

static int job_boot(struct xl *x, char **argv, struct err *e)
{
    return shell_make(x, argv, true, e);
}

static int job_rename(struct xl *x, char **argv, struct err *e)
{
    uint32_t domid;

    if (number(argv[0], &domid, e))
        return -1;
    CLEANUP_FREE char *old = libxl_domid_to_name(x->ctx, domid);
    if (!old)
        return err_kind(e, ERR_GONE, "domain %u is gone", domid);
    if (strcmp(old, argv[1]) != 0 &&
        libxl_domain_rename(x->ctx, domid, old, argv[1]))
        return xl_err(x, e, "rename %s", old);
    answer_ok(domid, NULL, 0);
    return 0;
}

static bool uuid_is(struct xl *x, uint32_t domid, const char *text)
{
    libxl_dominfo info;
    libxl_uuid uuid;

    libxl_dominfo_init(&info);
    bool is = !libxl_uuid_from_string(&uuid, text) &&
              !libxl_domain_info(x->ctx, &info, domid) &&
              !libxl_uuid_compare(&uuid, &info.uuid);
    libxl_dominfo_dispose(&info);
    return is;
}

static int job_destroy(struct xl *x, char **argv, struct err *e)
{
    uint32_t domid;

    if (number(argv[0], &domid, NULL) &&
        libxl_name_to_domid(x->ctx, argv[0], &domid))
        return err_kind(e, ERR_GONE, "there is no domain %s", argv[0]);
    if (argv[1] && !uuid_is(x, domid, argv[1]))
        return err_kind(e, ERR_REFUSED, "%s is another VM's", argv[0]);
    said_clear(x);
    if (libxl_domain_destroy(x->ctx, domid, NULL))
        return xl_err(x, e, "destroy domain %u", domid);
    answer_ok(domid, NULL, 0);
    return 0;
}

static int job_watch(struct xl *x, char **argv, struct err *e)
{
    uint32_t domid;

    if (number(argv[0], &domid, e))
        return -1;
    return watch(x, domid, argv[1], e);
}

static const struct job {
    const char *name;
    int min, max; /* arguments */
    int (*run)(struct xl *x, char **argv, struct err *e);
} jobs[] = {
    {"describe", 1, 1, job_describe}, {"check", 1, 1, job_check},
    {"fits", 0, 0, job_fits},         {"build", 2, 2, job_build},
    {"rename", 2, 2, job_rename},     {"destroy", 1, 2, job_destroy},
    {"watch", 2, 2, job_watch},       {"boot", 2, 2, job_boot},
};

/* --- Being told to stop -------------------------------------------------- */

static char build_name[128]; /* set while a shell is being built */
static char build_uuid[40];

/* The process becomes one that destroys the shell: libxl's calls can't be
 * given up in the middle, and its locks end with exec. */
static void on_term(int sig)
{
    char *args[] = {(char[]){"understudy-xl"}, (char[]){"destroy"}, build_name,
                    build_uuid, NULL};

    (void)sig;
    if (build_name[0])
        execv("/proc/self/exe", args);
    _exit(1);
}

static void term_setup(const struct job *job, char **argv)
{
    struct sigaction sa = {.sa_handler = on_term};

    if (job->run != job_build && job->run != job_boot)
        return;
    snprintf(build_name, sizeof build_name, "%s", argv[0]);
    snprintf(build_uuid, sizeof build_uuid, "%s", argv[1]);
    sigaction(SIGTERM, &sa, NULL);
}

static int run(const struct job *job, char **argv)
{
    struct xl x = {.log = {log_vmessage, log_progress, log_destroy}};
    struct err e = ERR_INIT;
    int rc;

    signal(SIGPIPE, SIG_IGN);
    term_setup(job, argv);
    if (job->run == job_watch)
        watch_detach();
    if (libxl_ctx_alloc(&x.ctx, LIBXL_VERSION, 0, &x.log)) {
        err_set(&e, "open libxl: %s", x.said);
        err_hint(&e, "run this as root in dom0 of a Xen host with xenstored "
                     "running");
        return answer_error(&e);
    }
    rc = job->run(&x, argv, &e) ? answer_error(&e) : 0;
    libxl_ctx_free(x.ctx);
    return rc;
}

int main(int argc, char **argv)
{
    log_setup("understudy-xl", LOG_INFO);
    for (size_t i = 0; argc > 1 && i < sizeof jobs / sizeof jobs[0]; i++) {
        if (strcmp(argv[1], jobs[i].name) != 0)
            continue;
        if (argc - 2 < jobs[i].min || argc - 2 > jobs[i].max)
            break;
        return run(&jobs[i], argv + 2);
    }
    fprintf(stderr, "understudy-xl: started by understudyd, not by people\n");
    return 2;
}
