// SPDX-License-Identifier: Apache-2.0
/* HTTP(S) requests from a libev loop: libcurl's multi interface, driven by
 * watchers of the loop, for arbiters behind HTTP. Nothing here blocks, not for
 * a name either (libcurl asks for those in a thread of its own, and nobody
 * waits for that thread). What comes back is bounded in bytes and time; no
 * redirect is followed, no proxy used, no compression offered.
 *
 * Thread: the loop's. */
#ifndef HEARTBEAT_HTTP_H
#define HEARTBEAT_HTTP_H

#include <stddef.h>

#include "common/bytes.h"
#include "common/err.h"

struct ev_loop;
struct http;
struct http_call;

#define HTTP_HEADERS_MAX 16384 /* bytes of one reply's headers */

/* PEM, as it was read: no file is opened later. Without `ca` the system's
 * authorities are trusted; `cert` and `key` go together, or are not there. */
struct http_tls {
    struct buf ca, cert, key;
};

/* Once for every http_post() that was not cancelled, from the loop, never from
 * inside a call. `status` is the reply's, and `body` all of it; or status is 0
 * and `why` says what was wrong (ERR_TIMEOUT, ERR_GONE, ERR_REFUSED for a
 * certificate, ERR_FAILED). The pointers are valid during the call only. All
 * calls but http_close() are allowed in it. */
typedef void http_done(void *arg, long status, const void *body, size_t len,
                       const struct err *why);

/* "" for a file that there is none of. ERR_FAILED names the file: it is
 * missing, too large, or no PEM of that kind, or the key is encrypted, or does
 * not belong to the certificate. *out is to be freed in any case. */
int http_tls_load(const char *ca, const char *cert, const char *key,
                  struct http_tls *out, struct err *e);
void http_tls_free(struct http_tls *t);

/* Takes what `tls` has. `reply_max`: bytes of a body. */
int http_open(struct ev_loop *loop, struct http_tls *tls, size_t reply_max,
              struct http **out, struct err *e);
/* POST `body`, which is copied, as JSON. The call is valid until `done` or
 * http_cancel(). */
struct http_call *http_post(struct http *h, const char *url, const char *body,
                            unsigned timeout_ms, http_done *done, void *arg);
/* What was sent may have an effect. */
void http_cancel(struct http_call *c);
/* Cancels all. */
void http_close(struct http *h);

#endif
