// SPDX-License-Identifier: Apache-2.0
/* The wire format in code; docs/protocol.md is the specification and changes
 * together with this file. Pure functions over bytes: no I/O, no allocation
 * besides struct buf, any thread.
 *
 * NAME_put() appends a payload to a buffer. NAME_get() decodes one and returns
 * -1 with a sentence when the bytes are not exactly one well-formed payload;
 * the caller then ends the session with that error (link_fail()). What
 * NAME_get() leaves behind is meaningful only when it returned 0, except where
 * said otherwise. Pointers in decoded structures point into the payload. */
#ifndef LINK_WIRE_H
#define LINK_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/bytes.h"
#include "common/err.h"

#define WIRE_VERSION 1 /* of the records, told in HELLO */
/* The preamble's own: nothing can be answered to one of another version. */
#define WIRE_PREAMBLE_VERSION 1
#define WIRE_PORT             7788
#define WIRE_WITNESS_PORT     7789
#define WIRE_PREAMBLE         32 /* bytes */
#define WIRE_HEADER           16 /* bytes in front of every payload */
#define WIRE_PAYLOAD_MAX      (8u << 20)
#define WIRE_JSON_MAX         (1u << 20)
/* Control payloads, everything but PAGES, STATE, BLUEPRINT, REQUEST and
 * REPLY, are never longer; for senders this is a promise, receivers check. */
#define WIRE_CONTROL_MAX 4096
/* A record cannot be overtaken once it has begun. Senders of bulk data cut it
 * into payloads of this size, so that a beat waits for little. */
#define WIRE_BULK_CHUNK    (256u << 10)
#define WIRE_BLUEPRINT_MAX (64u << 20)
#define WIRE_NAME_MAX      64 /* with the NUL, as in every char array below */

enum wire_kind { WIRE_HOST = 1, WIRE_VM = 2, WIRE_ARBITER = 3 };
enum wire_role { WIRE_ROLE_HOST = 0, WIRE_PRIMARY = 1, WIRE_BACKUP = 2 };

/* Record types. All sessions carry HELLO, BEAT, REFUSE, BYE; host sessions
 * REQUEST and REPLY, arbiter sessions ASK, ANSWER and SEAL, VM sessions the
 * others. An unknown type is a violation. */
enum wire_type {
    WIRE_HELLO = 1,
    WIRE_BEAT = 2,
    WIRE_REFUSE = 3,
    WIRE_BYE = 4,
    WIRE_REQUEST = 16,
    WIRE_REPLY = 17,
    WIRE_BLUEPRINT = 32,
    WIRE_READY = 33,
    WIRE_DISCARD = 34,
    WIRE_DISCARDED = 35,
    WIRE_STOP = 36,
    WIRE_STOPPED = 37,
    WIRE_ASK = 48,
    WIRE_ANSWER = 49,
    WIRE_SEAL = 50,
    WIRE_PAGES = 64, /* 64..69: payloads in docs/epoch-format.md */
    WIRE_STATE = 65,
    WIRE_COMMIT = 66,
    WIRE_ACK = 67,
    WIRE_DISK = 68,
    WIRE_DISK_WANT = 69,
};

/* "HELLO", ...; "type 99" never: NULL for what is not a type. */
const char *wire_type_name(uint32_t type);
/* May this type travel in a session of this kind at all? */
bool wire_type_legal(enum wire_kind kind, uint32_t type);
/* The longest legal payload of a type; 0 for an unknown type. */
uint32_t wire_type_max(uint32_t type);

/* The connector's first 32 bytes, before TLS. Untrusted: it only routes. */
struct wire_preamble {
    uint16_t version; /* WIRE_PREAMBLE_VERSION */
    uint16_t kind;    /* enum wire_kind */
    uint8_t uuid[16]; /* kind VM: the VM; else zeroes */
};
void wire_preamble_put(const struct wire_preamble *p,
                       uint8_t out[WIRE_PREAMBLE]);
/* ERR_REFUSED for another version (p->version is then set), ERR_FAILED for
 * what is not a preamble of ours. */
int wire_preamble_get(struct wire_preamble *p, const uint8_t in[WIRE_PREAMBLE],
                      struct err *e);

struct wire_header {
    uint32_t type;
    uint32_t length; /* of the payload that follows */
};
void wire_header_put(const struct wire_header *h, uint8_t out[WIRE_HEADER]);
/* Refuses an unknown type, a length above wire_type_max() and a non-zero
 * reserved field, before a byte of the payload is read. */
int wire_header_get(struct wire_header *h, const uint8_t in[WIRE_HEADER],
                    struct err *e);

/* --- Both kinds of session --------------------------------------------- */

/* Generations and epochs go up by ones: what is beyond this is a lie. */
#define WIRE_NUMBER_MAX (1ull << 62)

/* First record of each side. Beyond `protocol` the layout is this version's:
 * when hello_get() finds another version it sets `protocol` only, zeroes the
 * rest and returns 0; the receiver refuses with both numbers in the text. */
struct wire_hello {
    uint16_t protocol; /* WIRE_VERSION */
    uint16_t kind;     /* enum wire_kind */
    uint16_t role;     /* enum wire_role */
    bool has_replica;  /* backup: a whole replica of `committed` is held */
    bool running;      /* the VM runs here with its output released */
    uint8_t uuid[16];  /* kind VM; else zeroes */
    uint8_t incarnation[16]; /* of the VM's run; zeroes: none yet */
    uint64_t generation;
    uint64_t committed;       /* last committed epoch; 0: none */
    uint64_t beat_ms;         /* how often this side sends BEAT */
    char version[32];         /* product version, "0.1" */
    char name[WIRE_NAME_MAX]; /* host: the sender's host name; vm: the VM's */
};
void hello_put(struct buf *b, const struct wire_hello *h);
int hello_get(struct wire_hello *h, const void *p, size_t n, struct err *e);

/* "I live". Sent urgent. The echo gives both sides a round-trip time:
 * now - echo_ns - held_ns, all on the clock of who receives it. */
struct wire_beat {
    uint64_t seq;     /* 1, 2, ... in this session */
    uint64_t sent_ns; /* sender's monotonic clock, opaque to the receiver */
    uint64_t echo_ns; /* sent_ns of the last beat received; 0: none yet */
    uint64_t held_ns; /* how long ago that was when this was sent */
};
void beat_put(struct buf *b, const struct wire_beat *w);
int beat_get(struct wire_beat *w, const void *p, size_t n, struct err *e);

/* "No, because": the sender then closes. The error is the sender's own;
 * refuse_get() fills *why with it (unprintable bytes become '?'). */
void refuse_put(struct buf *b, const struct err *why);
int refuse_get(struct err *why, const void *p, size_t n, struct err *e);

/* An orderly goodbye with a reason for the log; the sender then closes. */
void bye_put(struct buf *b, const char *text);
int bye_get(char text[256], const void *p, size_t n, struct err *e);

/* --- Host sessions ----------------------------------------------------- */

/* REQUEST and REPLY: an id chosen by the requester and JSON text (UTF-8, not
 * NUL-terminated, at most WIRE_JSON_MAX, checked by who parses it). */
struct wire_call {
    uint32_t id;
    const char *json;
    size_t len;
};
void call_put(struct buf *b, const struct wire_call *c);
int call_get(struct wire_call *c, const void *p, size_t n, struct err *e);

/* --- Arbiter sessions --------------------------------------------------- */

/* A question of a host to the witness; heartbeat/witness.h says what the
 * fields mean and what it does. */
struct wire_ask {
    uint32_t id; /* chosen by who asks */
    uint32_t op; /* enum witness_op, 1..6 */
    uint8_t vm[16];
    uint64_t generation; /* less than 2^63 */
    uint64_t nonce;
    uint8_t other[32]; /* REGISTER: the backup's pin; else zeroes */
};
void ask_put(struct buf *b, const struct wire_ask *w);
int ask_get(struct wire_ask *w, const void *p, size_t n, struct err *e);

struct wire_answer {
    uint32_t id;
    uint32_t status; /* enum witness_status, 1..5 */
    uint64_t generation;
    bool mine, running;
};
void answer_put(struct buf *b, const struct wire_answer *w);
int answer_get(struct wire_answer *w, const void *p, size_t n, struct err *e);

/* Whether the witness is sealed, and why: behind its HELLO, and whenever that
 * changes. */
struct wire_seal {
    bool sealed;
    char why[256];
};
void seal_put(struct buf *b, const struct wire_seal *w);
int seal_get(struct wire_seal *w, const void *p, size_t n, struct err *e);

/* --- VM sessions ------------------------------------------------------- */

/* A piece of the blueprint (hv->describe()), primary to backup. Pieces come
 * in order without gaps: offset is the sum of the lengths before. All carry
 * the same total, and `last` is set exactly when offset + len == total. */
struct wire_blueprint {
    uint32_t total; /* 1 .. WIRE_BLUEPRINT_MAX */
    uint32_t offset;
    bool last;
    const uint8_t *data;
    size_t len; /* at least 1 */
};
void blueprint_put(struct buf *b, const struct wire_blueprint *w);
int blueprint_get(struct wire_blueprint *w, const void *p, size_t n,
                  struct err *e);
/* Collects pieces: 0 and *done as they come, -1 on one that does not follow.
 * `all` is grown as pieces arrive, never to a claimed size. */
int blueprint_collect(struct buf *all, const struct wire_blueprint *w,
                      bool *done, struct err *e);

/* Backup to primary: the shell stands, send epochs. */
struct wire_ready {
    uint64_t generation;
    uint64_t committed; /* what the replica holds; 0: a full resync is due */
};
void ready_put(struct buf *b, const struct wire_ready *w);
int ready_get(struct wire_ready *w, const void *p, size_t n, struct err *e);

/* DISCARD asks to forget the replica for good, DISCARDED says it is gone and
 * will never be started. Same payload, `text` says why (for the log). */
struct wire_discard {
    uint64_t generation;
    uint8_t incarnation[16];
    char text[256];
};
void discard_put(struct buf *b, const struct wire_discard *w);
int discard_get(struct wire_discard *w, const void *p, size_t n, struct err *e);

/* Why the VM stops being protected in this run. */
enum wire_stop_reason {
    WIRE_STOP_UNPROTECT = 1, /* the operator said so */
    WIRE_STOP_POWEROFF = 2,
    WIRE_STOP_REBOOT = 3,
    WIRE_STOP_CRASH = 4,
    WIRE_STOP_MIGRATE = 5,
    WIRE_STOP_GONE = 6, /* destroyed, saved or migrated by somebody else */
};
/* STOP asks, STOPPED repeats it: from then on this backup never takes over
 * for that incarnation. */
struct wire_stop {
    uint32_t reason; /* enum wire_stop_reason */
    uint64_t generation;
    uint8_t incarnation[16];
};
void stop_put(struct buf *b, const struct wire_stop *w);
int stop_get(struct wire_stop *w, const void *p, size_t n, struct err *e);
const char *stop_reason_name(uint32_t reason); /* "reboot"; NULL: unknown */

#endif
