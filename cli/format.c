// SPDX-License-Identifier: Apache-2.0
/* Answers as text for people; see format.h. */
#include "cli/format.h"

#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

#include "cli/cli.h"

void format_bytes(char out[24], long long n)
{
    static const char *const units[] = {"KiB", "MiB", "GiB", "TiB", "PiB"};
    double v = (double)n / 1024;
    size_t u = 0;

    if (n < 1024) {
        snprintf(out, 24, "%lld B", n);
        return;
    }
    for (; v >= 1023.95 && u < 4; u++)
        v /= 1024;
    snprintf(out, 24, v < 99.95 ? "%.1f %s" : "%.0f %s", v, units[u]);
}

void format_us(char out[24], long long us)
{
    if (us < 1000)
        snprintf(out, 24, "%lld us", us);
    else if (us < 99950)
        snprintf(out, 24, "%.1f ms", (double)us / 1e3);
    else if (us < 9999500)
        snprintf(out, 24, "%.0f ms", (double)us / 1e3);
    else
        snprintf(out, 24, "%.0f s", (double)us / 1e6);
}

void format_rate(char out[24], long long bits_per_s)
{
    double v = (double)bits_per_s;

    if (v >= 1e9)
        snprintf(out, 24, "%.1f Gbit/s", v / 1e9);
    else if (v >= 1e6)
        snprintf(out, 24, "%.0f Mbit/s", v / 1e6);
    else
        snprintf(out, 24, "%.0f kbit/s", v / 1e3);
}

static void format_ms(char out[24], long long ms)
{
    format_us(out, ms * 1000);
}

/* --- Tables ------------------------------------------------------------- */

/* Text of a numeric member, "-" without one. */
static void cell(char out[24], const json_t *o, const char *key,
                 void (*as)(char out[24], long long v))
{
    const json_t *v = json_object_get(o, key);

    if (!json_is_integer(v) || json_integer_value(v) < 0)
        snprintf(out, 24, "-");
    else if (as)
        as(out, json_integer_value(v));
    else
        snprintf(out, 24, "%lld", (long long)json_integer_value(v));
}

int format_widest(const json_t *list, const char *key, int least)
{
    size_t i;
    json_t *o;

    json_array_foreach(list, i, o)
    {
        int n = (int)strlen(cli_text(o, key, "-"));
        if (n > least)
            least = n;
    }
    return least;
}

#define DEATHS_ILL 3

bool format_agent_ill(const json_t *vm)
{
    return json_is_false(json_object_get(vm, "answers")) ||
           cli_number(vm, "agent_deaths", 0) >= DEATHS_ILL;
}

/* A primary that lives would have gone on alone by then, and a backup given its
 * copy up. */
bool format_copy_old(const json_t *vm)
{
    return !strcmp(cli_text(vm, "state", ""), "Protected") &&
           cli_number(vm, "lag_ms", -1) >
               2 * cli_number(vm, "timeout_ms", INT32_MAX);
}

static void old_print(FILE *f, const char *label, const json_t *vm)
{
    char lag[24];

    if (!format_copy_old(vm))
        return;
    cell(lag, vm, "lag_ms", format_ms);
    fprintf(f, "%sno epoch came for %s: see how it is on %s\n", label, lag,
            cli_text(vm, "peer", "the other host"));
}

static void deaths_print(FILE *f, const char *label, const json_t *vm)
{
    long long deaths = cli_number(vm, "agent_deaths", 0);

    if (deaths >= DEATHS_ILL)
        fprintf(f,
                "%sits agent ended %lld times, never half a minute old; the "
                "log of understudyd says why\n",
                label, deaths);
}

static void unsaved_print(FILE *f, const char *label, const json_t *vm)
{
    const char *why = cli_text(vm, "unsaved", NULL);

    if (why)
        fprintf(f, "%sits record can't be written, and is tried again: %s\n",
                label, why);
}

/* "up, heard 12 ms ago", "down, heard 8.0 s ago: refused". */
static void path_text(FILE *f, const json_t *path)
{
    const char *reason = cli_text(path, "reason", "");
    char heard[24];

    cell(heard, path, "heard_ms", format_ms);
    if (heard[0] == '-')
        fprintf(f, "never heard");
    else
        fprintf(f, "%s, heard %s ago",
                json_is_true(json_object_get(path, "up")) ? "up" : "down",
                heard);
    fprintf(f, "%s%s\n", reason[0] ? ": " : "", reason);
}

static void peer_paths(FILE *f, const json_t *list)
{
    size_t i;
    json_t *o;

    json_array_foreach(list, i, o)
    {
        fprintf(f, "  %-21s ", cli_text(o, "address", "?"));
        path_text(f, o);
    }
}

/* Nobody looks at paths that are fine. */
static void lost_paths(FILE *f, const json_t *vm)
{
    size_t i;
    json_t *o;

    json_array_foreach(json_object_get(vm, "paths"), i, o)
    {
        if (strcmp(cli_text(o, "path", ""), "heartbeat") != 0 ||
            json_is_true(json_object_get(o, "up")))
            continue;
        fprintf(f, "  warning: heartbeat path %s of %s is ",
                cli_text(o, "address", "?"), cli_text(vm, "peer", "?"));
        path_text(f, o);
    }
}

void format_status_table(FILE *f, const json_t *list)
{
    int name = format_widest(list, "name", 20),
        peer = format_widest(list, "peer", 8);
    size_t i;
    json_t *o;

    fprintf(f, "%-*s %5s %-11s %-7s %-*s %8s %8s %8s %8s\n", name, "Name", "ID",
            "State", "Role", peer, "Peer", "Epoch", "Interval", "Pause", "Lag");
    json_array_foreach(list, i, o)
    {
        char id[24], epoch[24], interval[24], pause[24], lag[24];
        cell(id, o, "domid", NULL);
        cell(epoch, o, "epoch", NULL);
        cell(interval, o, "interval_ms", format_ms);
        cell(pause, json_object_get(o, "pause_us"), "median", format_us);
        cell(lag, o, "lag_ms", format_ms);
        fprintf(f, "%-*s %5s %-11s %-7s %-*s %8s %8s %8s %8s\n", name,
                cli_text(o, "name", "?"), id, cli_text(o, "state", "?"),
                cli_text(o, "role", "?"), peer, cli_text(o, "peer", "-"), epoch,
                interval, pause, lag);
        if (json_is_false(json_object_get(o, "answers")))
            fprintf(f, "  %s\n", cli_text(o, "reason", "?"));
        old_print(f, "  ", o);
        deaths_print(f, "  ", o);
        unsaved_print(f, "  ", o);
        lost_paths(f, o);
    }
}

void format_peers(FILE *f, const json_t *list)
{
    int name = format_widest(list, "name", 12),
        address = format_widest(list, "address", 15);
    size_t i;
    json_t *o;

    fprintf(f, "%-*s %-*s %5s %-5s %-8s %s\n", name, "Name", address, "Address",
            "Port", "State", "Heard", "Pin");
    json_array_foreach(list, i, o)
    {
        bool up = json_is_true(json_object_get(o, "up"));
        char port[24], heard[24];
        cell(port, o, "port", NULL);
        cell(heard, o, "heard_ms", format_ms);
        fprintf(f, "%-*s %-*s %5s %-5s %-8s %.16s\n", name,
                cli_text(o, "name", "?"), address, cli_text(o, "address", "?"),
                port, up ? "up" : "down", heard, cli_text(o, "pin", "?"));
        if (!up && cli_text(o, "reason", "")[0])
            fprintf(f, "  %s\n", cli_text(o, "reason", ""));
        if (json_array_size(json_object_get(o, "paths")) > 1)
            peer_paths(f, json_object_get(o, "paths"));
    }
}

/* --- One VM ------------------------------------------------------------- */

__attribute__((format(printf, 3, 4))) static void
line(FILE *f, const char *label, const char *fmt, ...)
{
    va_list ap;

    fprintf(f, "%-15s ", label);
    va_start(ap, fmt);
    vfprintf(f, fmt, ap);
    va_end(ap);
    fputc('\n', f);
}

/* "median 1.2 ms, p99 2.3 ms": those members that are there. */
static void statistic(FILE *f, const char *label, const json_t *vm,
                      const char *key, void (*as)(char out[24], long long v))
{
    static const char *const parts[] = {"median", "p99", "max", "last"};
    const json_t *o = json_object_get(vm, key);
    char text[160] = "";

    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        char value[24];
        if (!json_object_get(o, parts[i]))
            continue;
        cell(value, o, parts[i], as);
        size_t n = strlen(text);
        snprintf(text + n, sizeof text - n, "%s%s %s", n ? ", " : "", parts[i],
                 value);
    }
    if (text[0])
        line(f, label, "%s", text);
}

/* It beats ten times a timeout: half of one without a word is silence. */
static void peer_line(FILE *f, const json_t *vm)
{
    long long heard = cli_number(vm, "peer_heard_ms", -1);
    bool silent = heard >= cli_number(vm, "timeout_ms", 2000) / 2;
    const char *peer = cli_text(vm, "peer", "?");
    char ago[24];

    format_ms(ago, heard);
    if (heard < 0)
        line(f, "Peer:", "%s", peer);
    else if (silent)
        line(f, "Peer:", "%s, not heard for %s", peer, ago);
    else
        line(f, "Peer:", "%s, heard %s ago", peer, ago);
}

/* "up, heard 12 ms ago", or why not. */
static void arbiter_state(FILE *f, const json_t *o, const char *label)
{
    const char *reason = cli_text(o, "reason", "");
    char heard[24];

    cell(heard, o, "heard_ms", format_ms);
    if (json_is_true(json_object_get(o, "up")))
        line(f, label, "answers, heard %s ago", heard);
    else
        line(f, label, "can't be asked%s%s", reason[0] ? ": " : "", reason);
}

void format_arbiter(FILE *f, const json_t *o)
{
    const char *hint = cli_text(o, "hint", "");

    if (!cli_text(o, "arbiter", "")[0]) {
        fprintf(f, "no arbiter is set\n");
        return;
    }
    line(f, "Arbiter:", "%s", cli_text(o, "arbiter", "?"));
    line(f, "Set in:", "%s", cli_text(o, "from", "?"));
    arbiter_state(f, o, "State:");
    if (hint[0])
        line(f, "What to do:", "%s", hint);
}

/* The ways by which this host hears of the VM's fate, besides the peer's. */
static void paths(FILE *f, const json_t *vm)
{
    size_t i;
    json_t *o;

    json_array_foreach(json_object_get(vm, "paths"), i, o)
    {
        const char *name = cli_text(o, "path", "?");
        const char *address = cli_text(o, "address", "");
        char label[32];
        snprintf(label, sizeof label, "  %.20s:", name);
        if (!strcmp(name, "arbiter")) {
            arbiter_state(f, o, label);
            continue;
        }
        fprintf(f, "%-15s %s%s", label, address, address[0] ? " " : "");
        path_text(f, o);
    }
}

static void generation(FILE *f, const json_t *vm)
{
    const char *who = cli_text(vm, "holder", NULL);

    if (!json_object_get(vm, "generation"))
        return;
    if (who && strcmp(cli_text(vm, "arbiter", "none"), "none"))
        line(f, "Generation:", "%lld, held by %s",
             cli_number(vm, "generation", 0), who);
    else
        line(f, "Generation:", "%lld", cli_number(vm, "generation", 0));
    if (json_is_true(json_object_get(vm, "arbiter_behind")))
        line(f, "  warning:",
             "the arbiter knows an older one: it has lost its "
             "memory");
}

static void identity(FILE *f, const json_t *vm)
{
    const char *reason = cli_text(vm, "reason", "");

    line(f, "Name:", "%s", cli_text(vm, "name", "?"));
    line(f, "UUID:", "%s", cli_text(vm, "uuid", "?"));
    if (cli_number(vm, "domid", -1) >= 0)
        line(f, "Domain:", "%lld", cli_number(vm, "domid", -1));
    line(f, "State:", "%s%s%s", cli_text(vm, "state", "?"),
         reason[0] ? ": " : "", reason);
    old_print(f, "Copy:           ", vm);
    deaths_print(f, "Agent:          ", vm);
    unsaved_print(f, "Record:         ", vm);
    line(f, "Role:", "%s", cli_text(vm, "role", "?"));
    peer_line(f, vm);
    line(f, "Arbiter:", "%s", cli_text(vm, "arbiter", "?"));
    generation(f, vm);
    paths(f, vm);
}

static void suspend(FILE *f, const json_t *vm)
{
    const char *path = cli_text(vm, "suspend", NULL);
    long long part = cli_number(json_object_get(vm, "suspend_us"), "median", 0);
    long long all = cli_number(json_object_get(vm, "pause_us"), "median", 0);

    if (!path)
        return;
    if (strcmp(path, "event channel") == 0)
        line(f, "Suspend:", "fast (event channel)");
    else if (all > 0)
        line(f, "Suspend:",
             "stock (xenstore), %lld %% of the pause: see "
             "guest/fast-suspend",
             part * 100 / all);
    else
        line(f, "Suspend:", "stock (xenstore)");
}

/* A slow suspend makes the interval longer, a fast one shorter for output. */
static void interval(FILE *f, const json_t *vm)
{
    long long usual = cli_number(vm, "interval_ms", 0);
    long long now = cli_number(vm, "interval_now_ms", usual);
    char text[24], now_text[24];

    cell(text, vm, "interval_ms", format_ms);
    format_ms(now_text, now);
    if (now < usual)
        line(f, "Interval:", "%s, %s while output waits", text, now_text);
    else if (now > usual)
        line(f, "Interval:", "%s, for the length of the pause not %s", now_text,
             text);
    else
        line(f, "Interval:", "%s", text);
}

static void epoch_line(FILE *f, const json_t *vm)
{
    long long epoch = cli_number(vm, "epoch", -1);
    char lag[24];

    cell(lag, vm, "lag_ms", format_ms);
    if (epoch > 0 && lag[0] != '-')
        line(f, "Epoch:", "%lld, committed %s ago", epoch, lag);
    else if (epoch > 0)
        line(f, "Epoch:", "%lld", epoch);
    else if (epoch == 0)
        line(f, "Epoch:", "none yet");
}

static void epochs(FILE *f, const json_t *vm)
{
    char timeout[24];

    cell(timeout, vm, "timeout_ms", format_ms);
    epoch_line(f, vm);
    interval(f, vm);
    if (timeout[0] != '-')
        line(f, "Timeout:", "%s", timeout);
    statistic(f, "Pause:", vm, "pause_us", format_us);
    statistic(f, "  suspend", vm, "suspend_us", format_us);
    statistic(f, "  copy", vm, "copy_us", format_us);
    statistic(f, "  state", vm, "state_us", format_us);
    statistic(f, "  resume", vm, "resume_us", format_us);
    suspend(f, vm);
    statistic(f, "Dirty pages:", vm, "dirty_pages", NULL);
    statistic(f, "Epoch size:", vm, "epoch_bytes", format_bytes);
}

static void totals(FILE *f, const json_t *vm)
{
    const json_t *takeover = json_object_get(vm, "takeover");
    const json_t *disks = json_object_get(vm, "disks");
    char a[24], b[24];

    if (json_object_get(vm, "bytes_sent")) {
        format_bytes(a, cli_number(vm, "bytes_sent", 0));
        line(f, "Sent:", "%s in %lld epochs, %lld skipped", a,
             cli_number(vm, "epochs", 0), cli_number(vm, "skipped", 0));
    }
    if (json_object_get(vm, "held_bytes")) {
        format_bytes(a, cli_number(vm, "held_bytes", 0));
        line(f, "Held output:", "%s in %lld packets, %lld dropped", a,
             cli_number(vm, "held_packets", 0),
             cli_number(vm, "dropped_packets", 0));
    }
    if (json_is_object(disks)) {
        format_disks_status(f, disks);
    }
    if (json_is_object(takeover)) {
        cell(a, takeover, "detect_ms", format_ms);
        cell(b, takeover, "total_ms", format_ms);
        line(f, "Takeover:", "noticed after %s, running after %s", a, b);
    }
    if (json_object_get(vm, "from_disk_ms"))
        line(f, "From disk:",
             "booted, without its memory, from disks that were %lld s old",
             cli_number(vm, "from_disk_ms", 0) / 1000);
}

static void sync_text(char *out, size_t size, const json_t *sync)
{
    long long done = cli_number(sync, "done_bytes", 0);
    long long total = cli_number(sync, "total_bytes", 0);
    long long rate = cli_number(sync, "rate_bps", 0);
    long long left = cli_number(sync, "left_s", 0);
    char a[24], b[24], c[24], d[32];

    format_bytes(a, done);
    format_bytes(b, total);
    format_rate(c, rate);
    if (left < 120)
        snprintf(d, sizeof d, "%lld s", left);
    else
        snprintf(d, sizeof d, "%lld min", (left + 59) / 60);
    int percent = total > 0 ? (int)((double)done * 100. / (double)total) : 0;
    if (rate > 0)
        snprintf(out, size, "%s of %s (%d%%), %s, %s left", a, b,
                 percent > 100 ? 100 : percent, c, d);
    else
        snprintf(out, size, "%s of %s", a, b);
}

void format_status(FILE *f, const json_t *vm)
{
    const json_t *sync = json_object_get(vm, "sync");
    char text[160];

    identity(f, vm);
    epochs(f, vm);
    totals(f, vm);
    if (json_is_object(sync)) {
        sync_text(text, sizeof text, sync);
        line(f, "Copied:", "%s", text);
    }
}

void format_progress(FILE *f, const json_t *vm)
{
    const json_t *sync = json_object_get(vm, "sync");
    const char *reason = cli_text(vm, "reason", "");
    char text[160];

    fprintf(f, "%s: %s", cli_text(vm, "name", "?"), cli_text(vm, "state", "?"));
    if (json_is_object(sync)) {
        sync_text(text, sizeof text, sync);
        fprintf(f, ", %s", text);
    } else if (reason[0]) {
        fprintf(f, ", %s", reason);
    }
}

void format_event(FILE *f, const json_t *event)
{
    long long ms = cli_number(event, "time_ms", 0);
    time_t t = (time_t)(ms / 1000);
    const char *vm = cli_text(event, "vm", "");
    const char *state = cli_text(event, "state", NULL);
    const char *text = cli_text(event, "text", "");
    char when[32];
    struct tm tm;

    localtime_r(&t, &tm);
    strftime(when, sizeof when, "%Y-%m-%d %H:%M:%S", &tm);
    fprintf(f, "%s.%03lld %-12s ", when, ms % 1000, vm[0] ? vm : "-");
    if (state)
        fprintf(f, "%s (was %s)", state, cli_text(event, "previous", "?"));
    else
        fprintf(f, "%s", cli_text(event, "event", "?"));
    fprintf(f, "%s%s\n", text[0] ? ": " : "", text);
}
