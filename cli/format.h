// SPDX-License-Identifier: Apache-2.0
/* Answers of the daemon as text for people. Pure: from JSON to a stream,
 * nothing else is looked at (times of day are local, TZ decides). */
#ifndef CLI_FORMAT_H
#define CLI_FORMAT_H

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>

/* "12.3 MiB"; "1.2 ms", "200 ms", "3.4 s" from microseconds; out[24]. */
void format_bytes(char out[24], long long n);
void format_us(char out[24], long long us);
/* "94 Mbit/s" */
void format_rate(char out[24], long long bits_per_s);

/* The VM's agent does not answer, or ends again and again (three times, never
 * half a minute old): what is shown of the VM is old, or won't last. */
bool format_agent_ill(const json_t *vm);
/* It says Protected, but no epoch came for two timeouts. */
bool format_copy_old(const json_t *vm);
/* One line a VM, in the manner of `xl list`, with a head line. */
void format_status_table(FILE *f, const json_t *list);
/* Everything that is known of one VM; what is missing has no line. */
void format_status(FILE *f, const json_t *vm);
/* One line: state, and how far the copy is. No newline. */
void format_progress(FILE *f, const json_t *vm);
/* One line an event. */
void format_event(FILE *f, const json_t *event);
/* The answer to arbiter-show. */
void format_arbiter(FILE *f, const json_t *o);
void format_peers(FILE *f, const json_t *list);
/* The length of the longest text under `key`, and `least` at least. */
int format_widest(const json_t *list, const char *key, int least);
/* The answer to disk-list: a line a disk, with a head line (format_disk.c). */
void format_disks(FILE *f, const json_t *list);
/* "disks" of a VM's status: a line, and one for each. */
void format_disks_status(FILE *f, const json_t *disks);
/* It has no server, or its log lacks something. */
bool format_disk_ill(const json_t *disk);
/* Of disk-verify: how far it is, no newline; and what came out of it. */
void format_verify_progress(FILE *f, const json_t *verify);
void format_verify(FILE *f, const char *vm, const json_t *verify);

#endif
