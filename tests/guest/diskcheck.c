// SPDX-License-Identifier: Apache-2.0
//
// Runs inside a guest of the lab: writes a disk's blocks with what names them
// and reads them back, from four threads, past the page cache, for some time;
// in the end everything once more. The first error, or block that is not as it
// was written, ends it. `diskcheck DEVICE SECONDS [MS]`, with MS between two
// requests of a thread; SIGTERM: the time is over.

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <linux/fs.h>
#include <time.h>
#include <unistd.h>

#define BLOCK    4096u
#define THREADS  4
#define RUN_MAX  8u // blocks a request
#define FLUSH_AT 64 // requests

struct part {
    pthread_t thread;
    uint64_t first, blocks; // of the device
    uint32_t *version;      // of each block
    uint64_t seed, reads, writes, longest_ns;
};

static int device;
static volatile uint64_t end_ns;
static useconds_t rest_us;

static void over(int signal)
{
    (void)signal;
    end_ns = 0;
}

static uint64_t now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static uint64_t roll(struct part *p)
{
    p->seed = p->seed * 6364136223846793005ull + 1442695040888963407ull;
    return p->seed >> 33;
}

static void die(const char *what, uint64_t block)
{
    printf("diskcheck: FAILED: %s block %llu: %s\n", what,
           (unsigned long long)block, errno ? strerror(errno) : "wrong data");
    exit(1);
}

static void fill(uint64_t *at, uint64_t block, uint32_t version)
{
    for (unsigned i = 0; i < BLOCK / sizeof *at; i++)
        at[i] = version ? block << 40 ^ (uint64_t)version << 12 ^ i : 0;
}

static void timed(struct part *p, uint64_t since)
{
    uint64_t took = now_ns() - since;

    if (took > p->longest_ns)
        p->longest_ns = took;
}

static void blocks_write(struct part *p, uint64_t from, uint64_t n, char *data)
{
    uint64_t since = now_ns();

    for (uint64_t i = 0; i < n; i++)
        fill((uint64_t *)(data + i * BLOCK), p->first + from + i,
             ++p->version[from + i]);
    errno = 0;
    if (pwrite(device, data, n * BLOCK, (off_t)((p->first + from) * BLOCK)) !=
        (ssize_t)(n * BLOCK))
        die("write", p->first + from);
    p->writes++;
    timed(p, since);
}

static void blocks_read(struct part *p, uint64_t from, uint64_t n, char *data)
{
    static __thread uint64_t want[BLOCK / 8];
    uint64_t since = now_ns();

    errno = 0;
    if (pread(device, data, n * BLOCK, (off_t)((p->first + from) * BLOCK)) !=
        (ssize_t)(n * BLOCK))
        die("read", p->first + from);
    timed(p, since);
    errno = 0;
    for (uint64_t i = 0; i < n; i++) {
        fill(want, p->first + from + i, p->version[from + i]);
        if (memcmp(want, data + i * BLOCK, BLOCK) != 0)
            die("read", p->first + from + i);
    }
    p->reads++;
}

static void *part_run(void *arg)
{
    struct part *p = arg;
    char *data = aligned_alloc(BLOCK, RUN_MAX * BLOCK);

    for (unsigned k = 1; now_ns() < end_ns; k++) {
        uint64_t n = 1 + roll(p) % RUN_MAX;
        uint64_t from = roll(p) % (p->blocks - n + 1);
        if (roll(p) % 2)
            blocks_write(p, from, n, data);
        else
            blocks_read(p, from, n, data);
        if (k % FLUSH_AT == 0 && fdatasync(device))
            die("flush", p->first);
        usleep(rest_us);
    }
    for (uint64_t b = 0; b < p->blocks; b += RUN_MAX)
        blocks_read(p, b, p->blocks - b < RUN_MAX ? p->blocks - b : RUN_MAX,
                    data);
    free(data);
    return NULL;
}

int main(int argc, char **argv)
{
    static struct part part[THREADS];
    uint64_t bytes = 0, reads = 0, writes = 0, longest = 0;

    device = argc == 3 || argc == 4 ? open(argv[1], O_RDWR | O_DIRECT) : -1;
    if (device < 0 || ioctl(device, BLKGETSIZE64, &bytes)) {
        perror("diskcheck");
        return 2;
    }
    signal(SIGTERM, over);
    rest_us = argc == 4 ? (useconds_t)atoi(argv[3]) * 1000 : 0;
    end_ns = now_ns() + strtoull(argv[2], NULL, 10) * 1000000000u;
    for (unsigned i = 0; i < THREADS; i++) {
        struct part *p = &part[i];
        p->blocks = bytes / BLOCK / THREADS;
        p->first = i * p->blocks;
        p->version = calloc(p->blocks, sizeof *p->version);
        p->seed = i + 1;
        pthread_create(&p->thread, NULL, part_run, p);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        pthread_join(part[i].thread, NULL);
        reads += part[i].reads;
        writes += part[i].writes;
        if (part[i].longest_ns > longest)
            longest = part[i].longest_ns;
    }
    printf("diskcheck: all fine, %llu reads, %llu writes, longest %llu ms\n",
           (unsigned long long)reads, (unsigned long long)writes,
           (unsigned long long)(longest / 1000000));
    return 0;
}
