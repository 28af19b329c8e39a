// SPDX-License-Identifier: Apache-2.0
/* What is said to an etcd and what it says; see etcd_codec.h. */
#include "heartbeat/etcd_codec.h"

#include <errno.h>
#include <jansson.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/text.h"
#include "link/key.h"

#define VERSION        1
#define VALUE_MAX      4096
#define GENERATION_MAX (1ull << 62)
#define KEYS           8

static void json_drop(json_t **j)
{
    json_decref(*j);
}
#define CLEANUP_JSON __attribute__((cleanup(json_drop)))

/* --- Small things --------------------------------------------------------- */

void etcd_key(const char *prefix, const uint8_t vm[16], char out[ETCD_KEY_MAX])
{
    char uuid[UUID_TEXT];

    uuid_format(vm, uuid);
    snprintf(out, ETCD_KEY_MAX, "%s%s", prefix, uuid);
}

static json_t *base64_put(const void *data, size_t len)
{
    CLEANUP_FREE unsigned char *text = malloc(len / 3 * 4 + 5);

    if (!text)
        abort();
    EVP_EncodeBlock(text, data, (int)len);
    return json_string((char *)text);
}

/* At most `max` bytes, with a NUL behind them; -1 unless it is exactly what
 * base64_put() makes of them: OpenSSL's decoder forgives too much. */
static int base64_get(const json_t *j, uint8_t *out, size_t max)
{
    const char *text = json_string_value(j);
    size_t n = text ? json_string_length(j) : 1, pad = 0;
    uint8_t raw[VALUE_MAX + 4];

    if (n % 4 || n / 4 * 3 > max + 2 || n / 4 * 3 > sizeof raw)
        return -1;
    while (pad < 2 && pad < n && text[n - 1 - pad] == '=')
        pad++;
    if (EVP_DecodeBlock(raw, (const uint8_t *)text, (int)n) != (int)(n / 4 * 3))
        return -1;
    size_t len = n / 4 * 3 - pad;
    if (len > max)
        return -1;
    CLEANUP_JSON json_t *again = base64_put(raw, len);
    if (!json_equal(again, j))
        return -1;
    memcpy(out, raw, len);
    out[len] = '\0';
    return (int)len;
}

/* As etcd's gateway writes them: decimal, in a string. */
static bool u64_get(const json_t *j, uint64_t *out)
{
    const char *text = json_string_value(j);
    char *end;

    if (!text || text[0] < '0' || text[0] > '9' || strlen(text) > 20)
        return false;
    errno = 0;
    *out = strtoull(text, &end, 10);
    return !errno && !*end && end == text + json_string_length(j);
}

static char *dump(json_t *j)
{
    char *text = j ? json_dumps(j, JSON_COMPACT) : NULL;

    json_decref(j);
    if (!text)
        abort();
    return text;
}

/* --- The record ----------------------------------------------------------- */

static json_t *pin_put(const uint8_t pin[WITNESS_PIN])
{
    char text[PIN_TEXT];

    pin_format(pin, text);
    return json_string(text);
}

char *etcd_record_put(const struct etcd_record *record)
{
    const struct witness_record *r = &record->r;
    char uuid[UUID_TEXT], nonce[17];

    uuid_format(r->vm, uuid);
    snprintf(nonce, sizeof nonce, "%016llx", (unsigned long long)r->nonce);
    return dump(json_pack(
        "{si ss s[oo] so sb sb sI ss}", "understudy", VERSION, "vm", uuid,
        "members", pin_put(r->member[0]), pin_put(r->member[1]), "holder",
        r->holder == WITNESS_NOBODY ? json_null()
                                    : pin_put(r->member[r->holder]),
        "running", r->running, "sealed", record->sealed, "generation",
        (json_int_t)r->generation, "nonce", nonce));
}

static bool pin_get(const json_t *j, uint8_t out[WITNESS_PIN])
{
    const char *text = json_string_value(j);

    return text && !pin_parse(text, out, NULL);
}

static bool holder_get(const json_t *j, struct witness_record *r)
{
    uint8_t pin[WITNESS_PIN];

    r->holder = WITNESS_NOBODY;
    if (json_is_null(j))
        return true;
    if (!pin_get(j, pin))
        return false;
    for (uint8_t i = 0; i < 2 && r->holder == WITNESS_NOBODY; i++) {
        if (pin_equal(pin, r->member[i]))
            r->holder = i;
    }
    return r->holder != WITNESS_NOBODY;
}

static bool nonce_get(const char *text, uint64_t *out)
{
    if (strlen(text) != 16 || strspn(text, "0123456789abcdef") != 16)
        return false;
    *out = strtoull(text, NULL, 16);
    return true;
}

static bool record_read(json_t *root, const uint8_t vm[16],
                        struct etcd_record *out)
{
    json_t *members, *holder;
    const char *uuid, *nonce;
    char expected[UUID_TEXT];
    int version, running, sealed;
    json_int_t generation;

    uuid_format(vm, expected);
    if (json_object_size(root) != KEYS ||
        json_unpack(root, "{si ss so so sb sb sI ss}", "understudy", &version,
                    "vm", &uuid, "members", &members, "holder", &holder,
                    "running", &running, "sealed", &sealed, "generation",
                    &generation, "nonce", &nonce))
        return false;
    memcpy(out->r.vm, vm, 16);
    out->r.running = running;
    out->sealed = sealed;
    out->r.generation = (uint64_t)generation;
    return version == VERSION && !strcmp(uuid, expected) && generation > 0 &&
           (uint64_t)generation <= GENERATION_MAX &&
           json_array_size(members) == 2 &&
           pin_get(json_array_get(members, 0), out->r.member[0]) &&
           pin_get(json_array_get(members, 1), out->r.member[1]) &&
           holder_get(holder, &out->r) && nonce_get(nonce, &out->r.nonce);
}

int etcd_record_get(const void *data, size_t len, const uint8_t vm[16],
                    struct etcd_record *out, struct err *e)
{
    CLEANUP_JSON json_t *root =
        json_loadb(data, len, JSON_REJECT_DUPLICATES, NULL);
    const json_t *version = json_object_get(root, "understudy");

    memset(out, 0, sizeof *out);
    if (json_is_integer(version) && json_integer_value(version) != VERSION) {
        err_kind(e, ERR_REFUSED, "this VM's record is of version %lld",
                 (long long)json_integer_value(version));
        return err_hint(e, "install the same version of understudy on both "
                           "hosts");
    }
    if (record_read(root, vm, out))
        return 0;
    memset(out, 0, sizeof *out);
    err_kind(e, ERR_REFUSED, "what is kept there for this VM is no record");
    return err_hint(e, "look at it with etcdctl, and who else writes there");
}

/* --- Requests ------------------------------------------------------------- */

static json_t *text64(const char *text)
{
    return base64_put(text, strlen(text));
}

char *etcd_range(const char *key)
{
    return dump(json_pack("{so}", "key", text64(key)));
}

char *etcd_txn(const char *key, uint64_t revision,
               const struct etcd_record *record)
{
    CLEANUP_FREE char *value = etcd_record_put(record);
    char number[24];

    snprintf(number, sizeof number, "%llu", (unsigned long long)revision);
    return dump(json_pack(
        "{s[{ss ss so ss}] s[{s{so so}}] s[{s{so}}]}", "compare", "result",
        "EQUAL", "target", "MOD", "key", text64(key), "mod_revision", number,
        "success", "request_put", "key", text64(key), "value", text64(value),
        "failure", "request_range", "key", text64(key)));
}

/* --- Replies -------------------------------------------------------------- */

static int no_reply(struct err *e)
{
    return err_set(e, "it says what no etcd says");
}

/* The object in it, with the cluster's ID in its header. */
static json_t *reply_load(const void *data, size_t len, uint64_t *cluster)
{
    json_t *root = json_loadb(data, len, JSON_REJECT_DUPLICATES, NULL);
    const json_t *header = json_object_get(root, "header");

    if (u64_get(json_object_get(header, "cluster_id"), cluster) && *cluster)
        return root;
    json_decref(root);
    return NULL;
}

/* A range's answer, on its own or in a transaction's. */
static int found_get(const json_t *range, const char *key, const uint8_t vm[16],
                     struct etcd_found *out, struct err *e)
{
    const json_t *kvs = json_object_get(range, "kvs");
    const json_t *kv = json_array_get(kvs, 0);
    uint64_t count = 0;
    uint8_t found[ETCD_KEY_MAX + 1], value[VALUE_MAX + 1];

    if (!json_is_object(range) ||
        (json_object_get(range, "count") &&
         !u64_get(json_object_get(range, "count"), &count)) ||
        (kvs && !json_is_array(kvs)) || json_array_size(kvs) != count ||
        count > 1)
        return no_reply(e);
    if (!count)
        return 0;
    if (base64_get(json_object_get(kv, "key"), found, ETCD_KEY_MAX) !=
            (int)strlen(key) ||
        memcmp(found, key, strlen(key)) != 0 ||
        !u64_get(json_object_get(kv, "mod_revision"), &out->revision) ||
        !out->revision)
        return no_reply(e);
    out->there = true;
    int len = base64_get(json_object_get(kv, "value"), value, VALUE_MAX);
    return etcd_record_get(value, len < 0 ? 0 : (size_t)len, vm, &out->record,
                           e);
}

int etcd_range_reply(const void *data, size_t len, const char *key,
                     const uint8_t vm[16], struct etcd_found *out,
                     struct err *e)
{
    memset(out, 0, sizeof *out);
    CLEANUP_JSON json_t *root = reply_load(data, len, &out->cluster);

    return root ? found_get(root, key, vm, out, e) : no_reply(e);
}

int etcd_txn_reply(const void *data, size_t len, const char *key,
                   const uint8_t vm[16], bool *put, struct etcd_found *out,
                   struct err *e)
{
    memset(out, 0, sizeof *out);
    *put = false;
    CLEANUP_JSON json_t *root = reply_load(data, len, &out->cluster);
    const json_t *succeeded = json_object_get(root, "succeeded");
    const json_t *list = json_object_get(root, "responses");
    const json_t *first = json_array_get(list, 0);

    if (!root || json_array_size(list) != 1 ||
        (succeeded && !json_is_boolean(succeeded)))
        return no_reply(e);
    if (!json_is_true(succeeded))
        return found_get(json_object_get(first, "response_range"), key, vm, out,
                         e);
    if (!json_is_object(json_object_get(first, "response_put")))
        return no_reply(e);
    *put = true;
    return 0;
}

int etcd_probe_reply(const void *data, size_t len, uint64_t *cluster,
                     struct err *e)
{
    CLEANUP_JSON json_t *root = reply_load(data, len, cluster);

    return root ? 0 : no_reply(e);
}

void etcd_complaint(const void *data, size_t len, char *out, size_t size)
{
    CLEANUP_JSON json_t *root = json_loadb(data, len, 0, NULL);
    const char *text = json_string_value(json_object_get(root, "error"));

    if (!text)
        text = json_string_value(json_object_get(root, "message"));
    snprintf(out, size, "%s", text ? text : "");
    text_printable(out);
}

/* --- What is asked for ---------------------------------------------------- */

bool etcd_apply(struct etcd_record *record, bool there,
                const uint8_t asker[WITNESS_PIN], const struct witness_ask *ask,
                struct witness_answer *out)
{
    const struct witness_record *r = &record->r;
    bool member = there && (!memcmp(r->member[0], asker, WITNESS_PIN) ||
                            !memcmp(r->member[1], asker, WITNESS_PIN));

    if (there && !record->sealed &&
        !(member && ask->generation > r->generation))
        return witness_apply(&record->r, true, asker, ask, out);
    if (!there) {
        record->sealed = false;
        return witness_apply(&record->r, false, asker, ask, out);
    }
    bool changed = member && !record->sealed;
    record->sealed |= member;
    memset(out, 0, sizeof *out);
    out->status = WITNESS_SEALED;
    return changed;
}
