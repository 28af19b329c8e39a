// SPDX-License-Identifier: Apache-2.0
/* Who this host is: one key pair, a self-signed certificate around it for
 * TLS's sake, and the pin that others know it by: SHA-256 over the DER form of
 * the certificate's SubjectPublicKeyInfo, as in RFC 7469, written as 64
 * lower-case hex digits. Nothing else in a certificate is ever looked at.
 *
 * The key is ECDSA on P-256: OpenSSL 3.0 has assembly for it and signs and
 * verifies about twice as fast as Ed25519 (measured: 42 against 21 thousand
 * signatures a second), and every TLS stack has it. Used at start and by
 * sessions of one loop thread. */
#ifndef LINK_KEY_H
#define LINK_KEY_H

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"

#define PIN_BYTES 32
#define PIN_TEXT  65 /* 64 digits and a NUL */

struct link_key;

/* Load DIR/key.pem and DIR/cert.pem. With `make`, both are made first when
 * neither is there (DIR too, 0700): written 0600, fsynced, renamed, so that a
 * crash leaves none or both usable; a missing certificate beside a good key is
 * made again (the pin is the key's, it does not change). Refuses by name a key
 * file that others than its owner may read or write, that is not a regular
 * file, or that belongs to another user. The caller owns *key. */
int link_key_load(const char *dir, bool make, struct link_key **key,
                  struct err *e);
void link_key_free(struct link_key *key);
const uint8_t *link_key_pin(const struct link_key *key); /* PIN_BYTES */

void pin_format(const uint8_t pin[PIN_BYTES], char out[PIN_TEXT]);
/* Exactly 64 hex digits of either case. ERR_USAGE. */
int pin_parse(const char *text, uint8_t pin[PIN_BYTES], struct err *e);
/* In constant time. */
bool pin_equal(const uint8_t a[PIN_BYTES], const uint8_t b[PIN_BYTES]);

#endif
