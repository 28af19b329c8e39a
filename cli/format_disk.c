// SPDX-License-Identifier: Apache-2.0
/* What the daemon says of disks, as text for people; see format.h. */
#include <string.h>

#include "cli/cli.h"
#include "cli/format.h"

/* "in sync", "syncing 42%" */
static void state_text(char out[32], const json_t *o)
{
    const char *state = cli_text(o, "state", "?");
    long long copied = cli_number(o, "copied_bytes", -1);
    long long bytes = cli_number(o, "bytes", 0);

    if (copied < 0 || bytes <= 0)
        snprintf(out, 32, "%.31s", state);
    else
        snprintf(out, 32, "%.20s %d%%", state,
                 copied >= bytes
                     ? 100
                     : (int)((double)copied * 100. / (double)bytes));
}

bool format_disk_ill(const json_t *o)
{
    const char *state = cli_text(o, "state", "");

    return !strcmp(state, "no server") || !strcmp(state, "lost");
}

void format_disks(FILE *f, const json_t *list)
{
    int vm = format_widest(list, "vm", 12),
        disk = format_widest(list, "disk", 5);
    size_t i;
    json_t *o;

    fprintf(f, "%-*s %-*s %8s %-7s %-12s %8s  %s\n", vm, "VM", disk, "Disk",
            "Size", "Role", "State", "Backlog", "Image");
    json_array_foreach(list, i, o)
    {
        char size[24], backlog[24] = "-", state[32];
        format_bytes(size, cli_number(o, "bytes", 0));
        if (cli_number(o, "backlog_bytes", -1) >= 0)
            format_bytes(backlog, cli_number(o, "backlog_bytes", 0));
        state_text(state, o);
        fprintf(f, "%-*s %-*s %8s %-7s %-12s %8s  %s\n", vm,
                cli_text(o, "vm", "-"), disk, cli_text(o, "disk", "-"), size,
                cli_text(o, "role", "?"), state, backlog,
                cli_text(o, "image", "?"));
    }
}

void format_disks_status(FILE *f, const json_t *disks)
{
    char a[24], b[24], state[32], label[32];
    size_t i;
    json_t *o;

    format_bytes(a, cli_number(disks, "bytes", 0));
    format_bytes(b, cli_number(disks, "backlog_bytes", 0));
    if (json_object_get(disks, "backlog_bytes"))
        fprintf(f, "%-15s %s, %s not yet on the other host\n", "Disks:", a, b);
    else
        fprintf(f, "%-15s %s\n", "Disks:", a);
    json_array_foreach(json_object_get(disks, "list"), i, o)
    {
        format_bytes(a, cli_number(o, "bytes", 0));
        state_text(state, o);
        snprintf(label, sizeof label, "  %.20s:", cli_text(o, "disk", "?"));
        fprintf(f, "%-15s %s, %s, %s\n", label, state, a,
                cli_text(o, "image", "?"));
    }
}

void format_verify_progress(FILE *f, const json_t *o)
{
    long long done = cli_number(o, "done_bytes", 0);
    long long total = cli_number(o, "total_bytes", 0);
    char a[24], b[24], c[24];

    format_bytes(a, done);
    format_bytes(b, total);
    format_bytes(c, cli_number(o, "differing_bytes", 0));
    fprintf(f, "%s of %s compared (%d%%), %s differ", a, b,
            total > 0 ? (int)((double)done * 100. / (double)total) : 0, c);
}

void format_verify(FILE *f, const char *vm, const json_t *o)
{
    long long differing = cli_number(o, "differing_bytes", 0), named = 0;
    long long unknown = cli_number(o, "unknown_bytes", 0);
    char a[24], b[24];
    size_t i;
    json_t *r;

    json_array_foreach(json_object_get(o, "ranges"), i, r)
    {
        long long bytes = cli_number(r, "bytes", 0);
        fprintf(f, "%s: %lld bytes at %lld differ\n", cli_text(r, "disk", "?"),
                bytes, cli_number(r, "offset", 0));
        named += bytes;
    }
    if (named < differing)
        fprintf(f, "and %lld bytes elsewhere\n", differing - named);
    format_bytes(a, cli_number(o, "done_bytes", 0) - unknown);
    format_bytes(b, unknown);
    if (unknown > 0)
        fprintf(f,
                "%s were written all the time and not compared; they are sent "
                "with every epoch\n",
                b);
    format_bytes(b, differing);
    if (differing)
        fprintf(f, "%s: %s of %s differ\n", vm, b, a);
    else
        fprintf(f, "%s: %s compared, both sides are the same\n", vm, a);
}
