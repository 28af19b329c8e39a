// SPDX-License-Identifier: Apache-2.0
/* What the files of link/ share about keys and small files; nobody else
 * includes this. */
#ifndef LINK_KEY_PRIV_H
#define LINK_KEY_PRIV_H

#include <openssl/types.h>

#include "common/bytes.h"
#include "link/key.h"

struct link_key {
    EVP_PKEY *pkey;
    X509 *cert;
    uint8_t pin[PIN_BYTES];
};

/* "WHAT: REASON" from OpenSSL's queue, which is emptied. Returns -1. */
int ssl_err(struct err *e, const char *what);
int pin_of_certificate(X509 *cert, uint8_t pin[PIN_BYTES]);

#endif
