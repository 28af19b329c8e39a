// SPDX-License-Identifier: Apache-2.0
/* HTTP(S) from a libev loop; see http.h. Loop thread. */
#include "heartbeat/http.h"

#include <curl/curl.h>
#include <ev.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/text.h"

struct http {
    struct ev_loop *loop;
    CURLM *multi;
    ev_timer timer; /* libcurl's only one */
    struct http_tls tls;
    struct curl_slist *headers;
    size_t reply_max;
    struct http_call *calls;
};

/* A descriptor that libcurl waits for. */
struct waiting {
    ev_io io;
    struct http *h;
};

struct http_call {
    struct http_call *next;
    struct http *h;
    CURL *easy;
    struct buf body;
    size_t headers;
    bool large;
    char text[CURL_ERROR_SIZE];
    http_done *done;
    void *arg;
};

/* --- Ends ----------------------------------------------------------------- */

static void call_unlink(struct http_call *c)
{
    struct http_call **p = &c->h->calls;

    while (*p != c)
        p = &(*p)->next;
    *p = c->next;
    curl_multi_remove_handle(c->h->multi, c->easy);
}

static void call_free(struct http_call *c)
{
    curl_easy_cleanup(c->easy);
    buf_free(&c->body);
    free(c);
}

void http_cancel(struct http_call *c)
{
    call_unlink(c);
    call_free(c);
}

static enum err_kind kind_of(CURLcode code)
{
    switch (code) {
    case CURLE_OPERATION_TIMEDOUT:
        return ERR_TIMEOUT;
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_SSL_ISSUER_ERROR:
        return ERR_REFUSED;
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_CONNECT:
    case CURLE_GOT_NOTHING:
    case CURLE_SEND_ERROR:
    case CURLE_RECV_ERROR:
    case CURLE_SSL_CONNECT_ERROR:
        return ERR_GONE;
    default:
        return ERR_FAILED;
    }
}

/* With TLS 1.3 a client learns only after its handshake that its certificate
 * is not taken (RFC 8446, 4.4.2.4), and mostly by a reset that overtook the
 * alert. libcurl then names whatever it was about to do. */
static bool is_turned_away(const struct http_call *c, CURLcode code)
{
    curl_off_t handshake = 0;

    curl_easy_getinfo(c->easy, CURLINFO_APPCONNECT_TIME_T, &handshake);
    return code != CURLE_OPERATION_TIMEDOUT && handshake > 0 && !c->headers;
}

static void call_why(struct http_call *c, CURLcode code, struct err *e)
{
    if (c->large) {
        err_set(e, "it says more than is ever asked for");
        return;
    }
    text_printable(c->text);
    err_kind(e, kind_of(code), "%s",
             c->text[0] ? c->text : curl_easy_strerror(code));
    if (is_turned_away(c, code))
        err_add(e, "it hangs up after the handshake, as one does that does not "
                   "take this host's certificate");
}

static void call_end(struct http_call *c, CURLcode code)
{
    struct err e = ERR_INIT;
    long status = 0;

    call_unlink(c);
    if (code == CURLE_OK)
        curl_easy_getinfo(c->easy, CURLINFO_RESPONSE_CODE, &status);
    else
        call_why(c, code, &e);
    if (!status && !e.kind)
        err_set(&e, "a reply without a status");
    c->done(c->arg, status, c->body.data, c->body.len, status ? NULL : &e);
    call_free(c);
}

/* `done` may begin and cancel others: what ended is taken one by one. */
static void ends(struct http *h)
{
    CURLMsg *m;
    int left;

    while ((m = curl_multi_info_read(h->multi, &left))) {
        struct http_call *c = NULL;
        CURLcode code = m->data.result;
        if (m->msg != CURLMSG_DONE)
            continue;
        curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, (char **)&c);
        call_end(c, code);
    }
}

/* --- libcurl and the loop ------------------------------------------------- */

static void on_io(struct ev_loop *loop, ev_io *io, int events)
{
    struct http *h = ((struct waiting *)io->data)->h;
    int mask = (events & EV_READ ? CURL_CSELECT_IN : 0) |
               (events & EV_WRITE ? CURL_CSELECT_OUT : 0);
    int running;

    (void)loop;
    curl_multi_socket_action(h->multi, io->fd, mask, &running);
    ends(h);
}

static void on_timer(struct ev_loop *loop, ev_timer *t, int events)
{
    struct http *h = t->data;
    int running;

    (void)loop, (void)events;
    curl_multi_socket_action(h->multi, CURL_SOCKET_TIMEOUT, 0, &running);
    ends(h);
}

static int want_io(CURL *easy, curl_socket_t fd, int what, void *arg,
                   void *socket_arg)
{
    struct http *h = arg;
    struct waiting *w = socket_arg;

    (void)easy;
    if (w)
        ev_io_stop(h->loop, &w->io);
    if (what == CURL_POLL_REMOVE) {
        free(w);
        return 0;
    }
    if (!w) {
        w = calloc(1, sizeof *w);
        if (!w)
            abort();
        w->h = h;
        curl_multi_assign(h->multi, fd, w);
    }
    ev_io_init(&w->io, on_io, fd,
               (what & CURL_POLL_IN ? EV_READ : 0) |
                   (what & CURL_POLL_OUT ? EV_WRITE : 0));
    w->io.data = w;
    ev_io_start(h->loop, &w->io);
    return 0;
}

static int want_timer(CURLM *multi, long timeout_ms, void *arg)
{
    struct http *h = arg;

    (void)multi;
    ev_timer_stop(h->loop, &h->timer);
    if (timeout_ms < 0)
        return 0;
    ev_now_update(h->loop);
    ev_timer_set(&h->timer, (double)timeout_ms / 1000., 0.);
    ev_timer_start(h->loop, &h->timer);
    return 0;
}

/* --- What comes back ------------------------------------------------------ */

static size_t on_body(char *data, size_t size, size_t n, void *arg)
{
    struct http_call *c = arg;

    c->large |= size * n > c->h->reply_max - c->body.len;
    if (c->large)
        return 0;
    buf_put(&c->body, data, size * n);
    return size * n;
}

static size_t on_header(char *data, size_t size, size_t n, void *arg)
{
    struct http_call *c = arg;

    (void)data;
    c->headers += size * n;
    c->large |= c->headers > HTTP_HEADERS_MAX;
    return c->large ? 0 : size * n;
}

/* --- Asking --------------------------------------------------------------- */

static void set_blob(CURL *easy, CURLoption option, const struct buf *b)
{
    struct curl_blob blob = {b->data, b->len, CURL_BLOB_NOCOPY};

    if (b->len)
        curl_easy_setopt(easy, option, &blob);
}

static void set_tls(CURL *easy, const struct http_tls *t)
{
    set_blob(easy, CURLOPT_CAINFO_BLOB, &t->ca);
    /* Else the system's directory of authorities is trusted besides. */
    if (t->ca.len)
        curl_easy_setopt(easy, CURLOPT_CAPATH, NULL);
    set_blob(easy, CURLOPT_SSLCERT_BLOB, &t->cert);
    set_blob(easy, CURLOPT_SSLKEY_BLOB, &t->key);
    /* OpenSSL would ask on the terminal for one. */
    curl_easy_setopt(easy, CURLOPT_KEYPASSWD, "");
    curl_easy_setopt(easy, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
}

/* Children of ours do not get it. */
static int on_socket(void *arg, curl_socket_t fd, curlsocktype what)
{
    (void)arg, (void)what;
    return fcntl(fd, F_SETFD, FD_CLOEXEC) ? CURL_SOCKOPT_ERROR
                                          : CURL_SOCKOPT_OK;
}

/* Nothing that the environment or the other side says leads elsewhere. */
static void set_narrow(CURL *easy)
{
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(easy, CURLOPT_PROXY, "");
    curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0l);
    curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1l);
    /* Nobody waits for the thread of a resolver that does not answer. */
    curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1l);
}

static void set_callbacks(struct http_call *c)
{
    curl_easy_setopt(c->easy, CURLOPT_PRIVATE, c);
    curl_easy_setopt(c->easy, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(c->easy, CURLOPT_WRITEDATA, c);
    curl_easy_setopt(c->easy, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(c->easy, CURLOPT_HEADERDATA, c);
    curl_easy_setopt(c->easy, CURLOPT_SOCKOPTFUNCTION, on_socket);
    curl_easy_setopt(c->easy, CURLOPT_ERRORBUFFER, c->text);
}

struct http_call *http_post(struct http *h, const char *url, const char *body,
                            unsigned timeout_ms, http_done *done, void *arg)
{
    struct http_call *c = calloc(1, sizeof *c);

    if (!c)
        abort();
    c->h = h;
    c->done = done;
    c->arg = arg;
    c->easy = curl_easy_init();
    if (!c->easy)
        abort();
    curl_easy_setopt(c->easy, CURLOPT_URL, url);
    curl_easy_setopt(c->easy, CURLOPT_HTTPHEADER, h->headers);
    curl_easy_setopt(c->easy, CURLOPT_COPYPOSTFIELDS, body);
    curl_easy_setopt(c->easy, CURLOPT_TIMEOUT_MS,
                     (long)(timeout_ms ? timeout_ms : 1));
    set_callbacks(c);
    set_narrow(c->easy);
    set_tls(c->easy, &h->tls);
    c->next = h->calls;
    h->calls = c;
    curl_multi_add_handle(h->multi, c->easy);
    return c;
}

/* --- Life ----------------------------------------------------------------- */

int http_open(struct ev_loop *loop, struct http_tls *tls, size_t reply_max,
              struct http **out, struct err *e)
{
    *out = NULL;
    if (curl_global_init(CURL_GLOBAL_DEFAULT))
        return err_set(e, "libcurl can't be used");
    struct http *h = calloc(1, sizeof *h);
    if (!h)
        abort();
    h->loop = loop;
    h->reply_max = reply_max;
    h->tls = *tls;
    memset(tls, 0, sizeof *tls);
    h->headers = curl_slist_append(NULL, "Content-Type: application/json");
    h->headers = curl_slist_append(h->headers, "Expect:");
    h->multi = curl_multi_init();
    if (!h->multi || !h->headers)
        abort();
    ev_init(&h->timer, on_timer);
    h->timer.data = h;
    curl_multi_setopt(h->multi, CURLMOPT_SOCKETFUNCTION, want_io);
    curl_multi_setopt(h->multi, CURLMOPT_SOCKETDATA, h);
    curl_multi_setopt(h->multi, CURLMOPT_TIMERFUNCTION, want_timer);
    curl_multi_setopt(h->multi, CURLMOPT_TIMERDATA, h);
    *out = h;
    return 0;
}

void http_close(struct http *h)
{
    while (h->calls)
        http_cancel(h->calls);
    curl_multi_cleanup(h->multi);
    ev_timer_stop(h->loop, &h->timer);
    curl_slist_free_all(h->headers);
    http_tls_free(&h->tls);
    curl_global_cleanup();
    free(h);
}
