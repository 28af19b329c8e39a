// SPDX-License-Identifier: Apache-2.0
/* What messages on the local sockets have in common: replies, errors, access
 * to members; see ipc.h. */
#include <string.h>

#include "agent/ipc.h"
#include "common/text.h"

static const char *const kinds[] = {
    [ERR_FAILED] = "failed",   [ERR_USAGE] = "usage", [ERR_REFUSED] = "refused",
    [ERR_TIMEOUT] = "timeout", [ERR_GONE] = "gone",
};
#define KINDS ((int)(sizeof kinds / sizeof *kinds))

const char *ipc_kind_name(enum err_kind kind)
{
    return (int)kind >= ERR_FAILED && (int)kind < KINDS ? kinds[kind]
                                                        : "failed";
}

enum err_kind ipc_kind_parse(const char *name)
{
    for (int i = ERR_FAILED; name && i < KINDS; i++) {
        if (!strcmp(name, kinds[i]))
            return (enum err_kind)i;
    }
    return ERR_FAILED;
}

bool ipc_error_of(const json_t *reply, struct err *e)
{
    const char *text = json_text(reply, "error", NULL);
    const char *hint = json_text(reply, "hint", "");

    if (!text)
        return false;
    err_kind(e, ipc_kind_parse(json_text(reply, "kind", NULL)), "%s", text);
    if (hint[0])
        err_hint(e, "%s", hint);
    return true;
}

bool ipc_error_of_peer(const json_t *reply, struct err *e)
{
    bool bad = ipc_error_of(reply, e);

    if (bad) {
        text_printable(e->text);
        text_printable(e->hint);
    }
    return bad;
}

static void reply_send(struct ipc_conn *c, const json_t *request, json_t *reply)
{
    json_t *id = json_object_get(request, "id");

    if (id) {
        json_object_set(reply, "id", id);
        ipc_send(c, reply);
    }
    json_decref(reply);
}

void ipc_reply(struct ipc_conn *c, const json_t *request, json_t *extra)
{
    json_t *reply = extra ? extra : json_object();

    json_object_set_new(reply, "ok", json_true());
    reply_send(c, request, reply);
}

json_t *text_json(const char *text)
{
    json_t *j = json_string(text);

    if (j)
        return j;
    char plain[sizeof(struct err)];
    size_t n = 0;
    for (; n < sizeof plain - 1 && text[n]; n++)
        plain[n] = text[n] & 0x80 ? '?' : text[n];
    plain[n] = '\0';
    return json_string(plain);
}

json_t *ipc_error_json(const struct err *why)
{
    json_t *o = json_object();

    json_object_set_new(o, "error",
                        text_json(why->text[0] ? why->text : "failed"));
    if (why->hint[0])
        json_object_set_new(o, "hint", text_json(why->hint));
    json_object_set_new(o, "kind", json_string(ipc_kind_name(why->kind)));
    return o;
}

void ipc_reply_error(struct ipc_conn *c, const json_t *request,
                     const struct err *why)
{
    reply_send(c, request, ipc_error_json(why));
}

const char *json_text(const json_t *o, const char *key, const char *otherwise)
{
    const char *s = json_string_value(json_object_get(o, key));

    return s ? s : otherwise;
}

long long json_number(const json_t *o, const char *key, long long otherwise)
{
    const json_t *v = json_object_get(o, key);

    return json_is_integer(v) ? json_integer_value(v) : otherwise;
}

bool json_flag(const json_t *o, const char *key, bool otherwise)
{
    const json_t *v = json_object_get(o, key);

    return json_is_boolean(v) ? json_is_true(v) : otherwise;
}
