// SPDX-License-Identifier: Apache-2.0
/* Configuration files by libxlutil; see xlcfg.h. libxlutil prints what it has
 * to say into a FILE, which is a memory stream here and becomes the text of
 * our errors. */
#include "hypervisor/xlcfg.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <libxlutil.h>

#define XLCFG_MAX (64u << 10)

struct xlcfg {
    char *path;
    XLU_Config *xlu;
    FILE *report;
    char *said; /* what xlu printed; owned by the stream */
    size_t said_len;
};

void xlcfg_close(struct xlcfg *cfg)
{
    if (!cfg)
        return;
    if (cfg->xlu)
        xlu_cfg_destroy(cfg->xlu);
    if (cfg->report)
        fclose(cfg->report);
    free(cfg->said);
    free(cfg->path);
    free(cfg);
}

/* What xlu said since the last call, as one line without its newline. */
static const char *said(struct xlcfg *cfg)
{
    fflush(cfg->report);
    rewind(cfg->report);
    if (!cfg->said || !cfg->said_len)
        return "no reason given";
    cfg->said[strcspn(cfg->said, "\n")] = '\0';
    return cfg->said;
}

static int slurp(const char *path, char **data, int *len, struct err *e)
{
    FILE *f = fopen(path, "re");

    if (!f && errno == ENOENT)
        return err_kind(e, ERR_GONE, "%s: no such file", path);
    if (!f)
        return err_sys(e, "open %s", path);
    *data = malloc(XLCFG_MAX + 1);
    if (!*data)
        abort();
    size_t n = fread(*data, 1, XLCFG_MAX + 1, f);
    int bad = ferror(f);
    fclose(f);
    if (!bad && n <= XLCFG_MAX) {
        *len = (int)n;
        return 0;
    }
    free(*data);
    if (bad)
        return err_sys(e, "read %s", path);
    return err_kind(e, ERR_USAGE, "%s: larger than %u bytes", path, XLCFG_MAX);
}

int xlcfg_open(const char *path, struct xlcfg **out, struct err *e)
{
    char *data = NULL;
    int len = 0;

    *out = NULL;
    if (slurp(path, &data, &len, e))
        return -1;
    struct xlcfg *cfg = calloc(1, sizeof *cfg);
    if (!cfg || !(cfg->path = strdup(path)) ||
        !(cfg->report = open_memstream(&cfg->said, &cfg->said_len)) ||
        !(cfg->xlu = xlu_cfg_init(cfg->report, path)))
        abort();
    int r = xlu_cfg_readdata(cfg->xlu, data, len);
    free(data);
    if (r) {
        err_kind(e, ERR_USAGE, "%s", said(cfg));
        xlcfg_close(cfg);
        return -1;
    }
    *out = cfg;
    return 0;
}

int xlcfg_string(struct xlcfg *cfg, const char *name, const char *def,
                 char *out, size_t size, struct err *e)
{
    const char *value = def;
    int r = cfg ? xlu_cfg_get_string(cfg->xlu, name, &value, 0) : ESRCH;

    if (r && r != ESRCH)
        return err_kind(e, ERR_USAGE, "%s", said(cfg));
    if (r)
        value = def;
    size_t n = strlen(value);
    if (n >= size)
        return err_kind(e, ERR_USAGE, "%s: %s is longer than %zu characters",
                        cfg ? cfg->path : "default", name, size - 1);
    memcpy(out, value, n + 1);
    return 0;
}

int xlcfg_long(struct xlcfg *cfg, const char *name, long def, long min,
               long max, long *out, struct err *e)
{
    int r = cfg ? xlu_cfg_get_long(cfg->xlu, name, out, 0) : ESRCH;

    if (r == ESRCH) {
        *out = def;
        return 0;
    }
    if (r)
        return err_kind(e, ERR_USAGE, "%s", said(cfg));
    if (*out < min || *out > max)
        return err_kind(e, ERR_USAGE, "%s: %s = %ld is not within %ld to %ld",
                        cfg->path, name, *out, min, max);
    return 0;
}
