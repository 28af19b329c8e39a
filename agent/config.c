// SPDX-License-Identifier: Apache-2.0
/* The configuration file; see config.h. libxlutil (behind hypervisor/xlcfg.h)
 * reads it, but has no way to list what a file holds, so a small scan finds
 * the keys that nobody knows. */
#include "agent/config.h"

#include <ctype.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/paths.h"
#include "common/cleanup.h"
#include "heartbeat/arbiter.h"
#include "hypervisor/xlcfg.h"

#define FILE_MAX (64u << 10)

/* The numbers: all of them are unsigned members. */
static const struct number {
    const char *key;
    size_t offset;
    long def, min, max;
} numbers[] = {
    {"timeout_ms", offsetof(struct config, timeout_ms), 1000, 100, 600000},
    {"interval_ms", offsetof(struct config, interval_ms), 200, 1, 60000},
    {"interval_min_ms", offsetof(struct config, interval_min_ms), 20, 1, 60000},
    {"stop_percent", offsetof(struct config, stop_percent), 10, 1, 50},
    {"suspend_ms", offsetof(struct config, suspend_ms), 1000, 10, 60000},
    {"suspend_xenstore_ms", offsetof(struct config, suspend_xenstore_ms), 30000,
     10, 60000},
    {"buffer_mb", offsetof(struct config, buffer_mb), 64, 1, 4096},
    {"staging_mb", offsetof(struct config, staging_mb), 0, 0, 65536},
    {"max_vms", offsetof(struct config, max_vms), 64, 1, 1024},
    {"auto_reprotect", offsetof(struct config, auto_reprotect), 0, 0, 1},
    {"fence_ms", offsetof(struct config, fence_ms), 30000, 100, 600000},
    {"disk_log_mb", offsetof(struct config, disk_log_mb), 64, 1, 64},
    {"disk_copy_mb_s", offsetof(struct config, disk_copy_mb_s), 0, 0, 1 << 20},
    {"durable_ack", offsetof(struct config, durable_ack), 0, 0, 1},
    {"watchdog_s", offsetof(struct config, watchdog_s), 0, 0, 600},
    {"max_clients", offsetof(struct config, max_clients), 64, 4, 1024},
};
#define NUMBERS (sizeof numbers / sizeof *numbers)

static const char *const other_keys[] = {
    "port", "listen", "log", "arbiter", "fence", "kernel_dirs", "disk_dirs"};

static const struct {
    const char *name;
    enum log_level level;
} levels[] = {
    {"error", LOG_ERROR},
    {"warn", LOG_WARN},
    {"info", LOG_INFO},
    {"debug", LOG_DEBUG},
};

static unsigned *member(struct config *c, const struct number *n)
{
    return (unsigned *)(void *)((char *)c + n->offset);
}

static void derive(struct config *c)
{
    c->beat_ms = c->timeout_ms / 5;
    if (c->beat_ms < 10)
        c->beat_ms = 10;
}

void config_defaults(struct config *c)
{
    memset(c, 0, sizeof *c);
    for (size_t i = 0; i < NUMBERS; i++)
        *member(c, &numbers[i]) = (unsigned)numbers[i].def;
    c->port = 7788;
    snprintf(c->listen, sizeof c->listen, "::");
    c->log = LOG_INFO;
    derive(c);
}

static bool key_known(const char *key, size_t n)
{
    for (size_t i = 0; i < NUMBERS; i++) {
        if (strlen(numbers[i].key) == n && !memcmp(numbers[i].key, key, n))
            return true;
    }
    for (size_t i = 0; i < sizeof other_keys / sizeof *other_keys; i++) {
        if (strlen(other_keys[i]) == n && !memcmp(other_keys[i], key, n))
            return true;
    }
    return false;
}

/* The rest of a statement whose key was read: to the end of the line or the
 * semicolon that ends it. Strings and lists may hold both. */
static const char *statement_skip(const char *p, int *line)
{
    int depth = 0;

    for (; *p; p++) {
        if (*p == '\n')
            ++*line;
        if (*p == '[')
            depth++;
        else if (*p == ']' && depth)
            depth--;
        else if (*p == '"' || *p == '\'')
            p += strcspn(p + 1, *p == '"' ? "\"\n" : "'\n") + 1;
        else if (*p == '#')
            p += strcspn(p, "\n") - 1;
        else if (!depth && (*p == '\n' || *p == ';'))
            return p + 1;
        if (!*p)
            break;
    }
    return p;
}

static int keys_check(const char *name, const char *text, struct err *e)
{
    int line = 1;

    for (const char *p = text; *p;) {
        size_t n = strspn(p, " \t\r;");
        p += n;
        if (*p == '#')
            p += strcspn(p, "\n");
        if (*p == '\n') {
            line++;
            p++;
            continue;
        }
        n = 0;
        while (isalnum((unsigned char)p[n]) || p[n] == '_')
            n++;
        if (n && !key_known(p, n)) {
            err_kind(e, ERR_USAGE, "%s:%d: unknown key %.*s", name, line,
                     (int)(n > 64 ? 64 : n), p);
            return err_hint(e, "understudyd(8) lists the keys");
        }
        p = statement_skip(p + n, &line);
    }
    return 0;
}

static int file_check(const char *path, struct err *e)
{
    FILE *f = fopen(path, "re");
    CLEANUP_FREE char *text = calloc(1, FILE_MAX + 1);

    if (!text)
        abort();
    if (!f)
        return err_sys(e, "open %s", path);
    fread(text, 1, FILE_MAX, f);
    bool bad = ferror(f);
    fclose(f);
    if (bad)
        return err_set(e, "read %s failed", path);
    return keys_check(path, text, e);
}

static int level_read(struct xlcfg *cfg, struct config *c, const char *path,
                      struct err *e)
{
    char word[16];

    if (xlcfg_string(cfg, "log", "info", word, sizeof word, e))
        return -1;
    for (size_t i = 0; i < sizeof levels / sizeof *levels; i++) {
        if (!strcmp(word, levels[i].name)) {
            c->log = levels[i].level;
            return 0;
        }
    }
    return err_kind(e, ERR_USAGE,
                    "%s: log=\"%s\" is none of error, warn, info, debug", path,
                    word);
}

static int number_read(struct xlcfg *cfg, struct config *c,
                       const struct number *n, struct err *e)
{
    long v;

    if (xlcfg_long(cfg, n->key, n->def, n->min, n->max, &v, e))
        return -1;
    *member(c, n) = (unsigned)v;
    return 0;
}

static int all_read(struct xlcfg *cfg, struct config *c, const char *path,
                    struct err *e)
{
    const struct arbiter_ops *ops;
    long port;

    for (size_t i = 0; i < NUMBERS; i++) {
        if (number_read(cfg, c, &numbers[i], e))
            return -1;
    }
    if (xlcfg_long(cfg, "port", 7788, 1, 65535, &port, e) ||
        xlcfg_string(cfg, "listen", "::", c->listen, sizeof c->listen, e) ||
        xlcfg_string(cfg, "arbiter", "", c->arbiter, sizeof c->arbiter, e) ||
        xlcfg_string(cfg, "fence", "", c->fence, sizeof c->fence, e) ||
        xlcfg_string(cfg, "kernel_dirs", "", c->kernel_dirs,
                     sizeof c->kernel_dirs, e) ||
        xlcfg_string(cfg, "disk_dirs", "", c->disk_dirs, sizeof c->disk_dirs,
                     e) ||
        level_read(cfg, c, path, e))
        return -1;
    c->port = (uint16_t)port;
    if (!c->listen[0])
        return err_kind(e, ERR_USAGE, "%s: listen=\"\" is no address", path);
    if (c->fence[0] && (c->fence[0] != '/' || access(c->fence, X_OK)))
        return err_kind(e, ERR_USAGE, "%s: fence=\"%s\" is no program", path,
                        c->fence);
    if (c->watchdog_s && c->watchdog_s < 5)
        return err_kind(e, ERR_USAGE, "%s: watchdog_s=%u is not 0 or 5 to 600",
                        path, c->watchdog_s);
    if (c->kernel_dirs[0] && c->kernel_dirs[0] != '/')
        return err_kind(e, ERR_USAGE, "%s: kernel_dirs=\"%s\" is no folder",
                        path, c->kernel_dirs);
    if (c->disk_dirs[0] && c->disk_dirs[0] != '/')
        return err_kind(e, ERR_USAGE, "%s: disk_dirs=\"%s\" is no folder", path,
                        c->disk_dirs);
    derive(c);
    return c->arbiter[0] && arbiter_find(c->arbiter, &ops, e)
               ? err_add(e, "%s", path)
               : 0;
}

int config_load(struct config *c, const char *path, struct err *e)
{
    struct path usual = path_config();
    const char *name = path ? path : usual.s;
    struct err why = ERR_INIT;
    struct xlcfg *cfg;

    config_defaults(c);
    if (xlcfg_open(name, &cfg, &why)) {
        if (why.kind == ERR_GONE && !path)
            return 0;
        if (e)
            *e = why;
        return -1;
    }
    int rc = file_check(name, e) || all_read(cfg, c, name, e) ? -1 : 0;
    xlcfg_close(cfg);
    return rc;
}

static void export(const char *name, const char *value)
{
    if (value[0])
        setenv(name, value, 1);
    else
        unsetenv(name);
}

void config_export(const struct config *c)
{
    export("UNDERSTUDY_KERNEL_DIRS", c->kernel_dirs);
    export("UNDERSTUDY_DISK_DIRS", c->disk_dirs);
}
