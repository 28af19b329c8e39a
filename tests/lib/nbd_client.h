// SPDX-License-Identifier: Apache-2.0
/* The client's side of NBD's transmission phase, for tests. Everything blocks;
 * what goes wrong fails the test. */
#ifndef TESTS_LIB_NBD_CLIENT_H
#define TESTS_LIB_NBD_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "disk-replicate/nbd.h"

/* Send one; `data` of a write. False: the server is gone. */
bool client_send(int fd, const struct nbd_header *h, const void *data);
/* The next answer: handle and error. False: the server is gone. */
bool client_answer(int fd, uint64_t *handle, int *error);
/* Data that follows an answer. */
bool client_data(int fd, void *p, size_t len);
/* One request and its answer; returns the error. */
int client_do(int fd, uint16_t command, uint16_t flags, uint64_t offset,
              uint32_t length, void *data);

#endif
