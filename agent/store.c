// SPDX-License-Identifier: Apache-2.0
/* Durable records of protected VMs; see store.h. The file's form is flat JSON,
 * described by one table of fields. */
#include "agent/store.h"

#include <dirent.h>
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/paths.h"
#include "common/cleanup.h"
#include "common/file.h"
#include "common/text.h"

#define RECORD_MAX (64u << 10)

static inline void cleanup_json(json_t **j)
{
    json_decref(*j);
}
#define CLEANUP_JSON __attribute__((cleanup(cleanup_json)))

const char *vm_role_name(enum vm_role role)
{
    return role == ROLE_PRIMARY  ? "primary"
           : role == ROLE_BACKUP ? "backup"
                                 : "?";
}

bool vm_role_parse(const char *name, enum vm_role *role)
{
    if (name && !strcmp(name, "primary"))
        *role = ROLE_PRIMARY;
    else if (name && !strcmp(name, "backup"))
        *role = ROLE_BACKUP;
    else
        return false;
    return true;
}

static const char *const stage_names[] = {
    [STAGE_NEW] = "new",
    [STAGE_ESTABLISHED] = "established",
    [STAGE_TAKEN_OVER] = "taken-over",
};

static bool stage_parse(const char *name, enum vm_stage *stage)
{
    for (unsigned i = 0; i < sizeof stage_names / sizeof *stage_names; i++) {
        if (!strcmp(name, stage_names[i])) {
            *stage = (enum vm_stage)i;
            return true;
        }
    }
    return false;
}

/* --- A record as JSON --------------------------------------------------- */

static json_t *record_to_json(const struct vm_record *r)
{
    char incarnation[33];

    hex_format(r->incarnation, 16, incarnation);
    json_t *j = json_pack(
        "{si ss ss ss ss ss ss sI ss sI sI sI ss sb sb}", "version",
        STORE_VERSION, "uuid", r->uuid, "name", r->name, "role",
        vm_role_name(r->role), "stage", stage_names[r->stage], "peer", r->peer,
        "arbiter", r->arbiter, "generation", (json_int_t)r->generation,
        "incarnation", incarnation, "domid", (json_int_t)r->domid,
        "interval_ms", (json_int_t)r->interval_ms, "timeout_ms",
        (json_int_t)r->timeout_ms, "state", vm_state_name(r->state), "running",
        r->running, "wanted", r->wanted);
    if (j && strcmp(r->arbiter, "none"))
        json_object_update_new(j, json_pack("{sI ss sb}", "claim",
                                            (json_int_t)r->claim, "lease",
                                            r->lease, "paused", r->paused));
    return j;
}

static int text_take(char *out, size_t size, const char *key, const char *value,
                     struct err *e)
{
    size_t n = strlen(value);

    if (!n || n >= size)
        return err_set(e, "\"%s\" has %zu bytes, expected 1 to %zu", key, n,
                       size - 1);
    for (size_t i = 0; i < n; i++) {
        if ((unsigned char)value[i] < 0x20 || value[i] == 0x7f)
            return err_set(e, "\"%s\" has a control character", key);
    }
    memcpy(out, value, n + 1);
    return 0;
}

static int number_check(const char *key, json_int_t v, json_int_t low,
                        json_int_t high, struct err *e)
{
    if (v >= low && v <= high)
        return 0;
    return err_set(e, "\"%s\" is %lld, expected %lld to %lld", key,
                   (long long)v, (long long)low, (long long)high);
}

/* As unpacked, before it is checked. Strings are borrowed. */
struct raw {
    int version, running, wanted, paused;
    const char *uuid, *name, *role, *stage, *peer, *arbiter, *incarnation,
        *state, *lease;
    json_int_t generation, domid, interval_ms, timeout_ms, claim;
};

static int raw_words(const struct raw *w, struct vm_record *r, struct err *e)
{
    uint8_t binary[16];

    if (!uuid_parse(w->uuid, binary))
        return err_set(e, "\"uuid\" is not a uuid");
    uuid_format(binary, r->uuid);
    if (strcmp(r->uuid, w->uuid))
        return err_set(e, "\"uuid\" is not in lower case");
    if (!vm_role_parse(w->role, &r->role))
        return err_set(e, "\"role\" is neither primary nor backup");
    if (!stage_parse(w->stage, &r->stage))
        return err_set(e, "\"stage\" is no stage");
    if (!vm_state_parse(w->state, &r->state))
        return err_set(e, "\"state\" is no state");
    if (strlen(w->incarnation) != 32 ||
        !hex_parse(w->incarnation, r->incarnation, 16))
        return err_set(e, "\"incarnation\" is not 32 hexadecimal digits");
    if (text_take(r->name, sizeof r->name, "name", w->name, e) ||
        text_take(r->peer, sizeof r->peer, "peer", w->peer, e) ||
        text_take(r->arbiter, sizeof r->arbiter, "arbiter", w->arbiter, e))
        return -1;
    if (w->lease[0] &&
        text_take(r->lease, sizeof r->lease, "lease", w->lease, e))
        return -1;
    return 0;
}

static int raw_numbers(const struct raw *w, struct vm_record *r, struct err *e)
{
    if (w->version != STORE_VERSION)
        return err_set(e, "\"version\" is %d, this understudy knows %d",
                       w->version, STORE_VERSION);
    if (number_check("generation", w->generation, 1, INT64_MAX, e) ||
        number_check("domid", w->domid, -1, 0x7fef, e) ||
        number_check("interval_ms", w->interval_ms, 1, 60000, e) ||
        number_check("timeout_ms", w->timeout_ms, 100, 600000, e) ||
        number_check("claim", w->claim, 0, INT64_MAX, e))
        return -1;
    r->generation = (uint64_t)w->generation;
    r->domid = w->domid;
    r->interval_ms = (unsigned)w->interval_ms;
    r->timeout_ms = (unsigned)w->timeout_ms;
    r->running = w->running;
    r->wanted = w->wanted;
    r->claim = (uint64_t)w->claim;
    r->paused = w->paused;
    return 0;
}

static int record_of_json(json_t *j, struct vm_record *r, struct err *e)
{
    json_error_t why;
    struct raw w = {.claim = -1};

    /* The "!" refuses keys that are not listed; those with "?" are there with
     * an arbiter only. */
    if (json_unpack_ex(
            j, &why, 0,
            "{si ss ss ss ss ss ss sI ss sI sI sI ss sb sb s?I s?s s?b !}",
            "version", &w.version, "uuid", &w.uuid, "name", &w.name, "role",
            &w.role, "stage", &w.stage, "peer", &w.peer, "arbiter", &w.arbiter,
            "generation", &w.generation, "incarnation", &w.incarnation, "domid",
            &w.domid, "interval_ms", &w.interval_ms, "timeout_ms",
            &w.timeout_ms, "state", &w.state, "running", &w.running, "wanted",
            &w.wanted, "claim", &w.claim, "lease", &w.lease, "paused",
            &w.paused))
        return err_set(e, "%s", why.text);
    bool none = !strcmp(w.arbiter, "none");
    if (none && !w.lease && w.claim < 0) {
        w.lease = "";
        w.claim = 0;
    }
    if (!w.lease || w.claim < 0)
        return err_set(e, "\"lease\" or \"claim\" is missing");
    memset(r, 0, sizeof *r);
    return raw_numbers(&w, r, e) || raw_words(&w, r, e) ? -1 : 0;
}

/* --- Files -------------------------------------------------------------- */

int store_load(const char *uuid, struct vm_record *r, struct err *e)
{
    struct path path = path_record(uuid);
    struct buf text = {0};
    json_error_t why;

    if (file_load(path.s, RECORD_MAX, &text, e)) {
        buf_free(&text);
        return -1;
    }
    CLEANUP_JSON json_t *j =
        json_loadb((char *)text.data, text.len, JSON_REJECT_DUPLICATES, &why);
    buf_free(&text);
    if (!j)
        err_set(e, "line %d: %s", why.line, why.text);
    else if (!record_of_json(j, r, e)) {
        if (!strcmp(r->uuid, uuid))
            return 0;
        err_set(e, "it holds the record of %s", r->uuid);
    }
    err_add(e, "damaged record %s", path.s);
    return err_hint(e, "restore the file, or remove it to forget this VM's "
                       "protection");
}

int store_save(const struct vm_record *r, struct err *e)
{
    CLEANUP_JSON json_t *j = record_to_json(r);
    struct vm_record check;

    if (!j || record_of_json(j, &check, e))
        return err_add(e, "record of %s", r->name);
    CLEANUP_FREE char *text = json_dumps(j, JSON_INDENT(1));
    if (!text)
        abort();
    return file_replace(path_record(r->uuid).s, text, strlen(text), true, e);
}

int store_delete(const char *uuid, struct err *e)
{
    struct path path = path_record(uuid);

    if (unlink(path.s) && errno != ENOENT)
        return err_sys(e, "remove %s", path.s);
    return file_sync_dir(path.s, e);
}

static int visible(const struct dirent *d)
{
    return d->d_name[0] != '.';
}

static void leftover_remove(const char *file)
{
    char full[sizeof(struct path) + 256];

    snprintf(full, sizeof full, "%s/%s", path_vms().s, file);
    unlink(full);
}

static int named_load(const char *file, struct vm_record *r, struct err *e)
{
    char uuid[STORE_UUID_LEN + 1];
    uint8_t binary[16];
    size_t n = strlen(file);

    if (n != STORE_UUID_LEN + 5 || strcmp(file + STORE_UUID_LEN, ".json"))
        return err_set(e, "%s/%s is not named UUID.json", path_vms().s, file);
    memcpy(uuid, file, STORE_UUID_LEN);
    uuid[STORE_UUID_LEN] = '\0';
    if (!uuid_parse(uuid, binary))
        return err_set(e, "%s/%s is not named UUID.json", path_vms().s, file);
    return store_load(uuid, r, e);
}

int store_scan(void (*each)(void *arg, const struct vm_record *r),
               void (*bad)(void *arg, const char *file, const struct err *why),
               void *arg, struct err *e)
{
    struct path dir = path_vms();
    struct dirent **files;
    int n = scandir(dir.s, &files, visible, alphasort);

    if (n < 0)
        return err_sys(e, "read %s", dir.s);
    for (int i = 0; i < n; i++) {
        const char *file = files[i]->d_name;
        struct err why = ERR_INIT;
        struct vm_record r;
        bool dead;
        if (file_is_temporary(file, &dead)) {
            if (dead)
                leftover_remove(file);
        } else if (!named_load(file, &r, &why)) {
            each(arg, &r);
        } else if (bad && why.kind != ERR_GONE) {
            bad(arg, file, &why);
        }
        free(files[i]);
    }
    free(files);
    return 0;
}

void store_tidy(const char *uuid)
{
    struct dirent **files;
    int n = scandir(path_vms().s, &files, visible, NULL);

    for (int i = 0; i < n; i++) {
        const char *file = files[i]->d_name;
        bool dead;
        if (!strncmp(file, uuid, STORE_UUID_LEN) &&
            file_is_temporary(file, &dead) && dead)
            leftover_remove(file);
        free(files[i]);
    }
    if (n >= 0)
        free(files);
}
