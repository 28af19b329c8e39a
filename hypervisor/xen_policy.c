// SPDX-License-Identifier: Apache-2.0
/* CPU policies: what a guest was told its CPU is, and whether this host can
 * keep that promise. Used by describe() on the primary and shell_check() on
 * the backup. */
#include "hypervisor/xen.h"

#include <stdlib.h>
#include <string.h>

#include <xenguest.h>

#include "common/cleanup.h"
#include "hypervisor/records.h"

/* A policy in Xen's serialised form. */
struct policy {
    xen_cpuid_leaf_t *leaves;
    xen_msr_entry_t *msrs;
    uint32_t n_leaves, n_msrs;
};

static void policy_free(struct policy *p)
{
    free(p->leaves);
    free(p->msrs);
    memset(p, 0, sizeof *p);
}

static int policy_alloc(struct xen *x, struct policy *p, struct err *e)
{
    if (xc_cpu_policy_get_size(x->xch, &p->n_leaves, &p->n_msrs))
        return err_sys(e, "ask Xen for the size of a CPU policy");
    p->leaves = calloc(p->n_leaves, sizeof *p->leaves);
    p->msrs = calloc(p->n_msrs, sizeof *p->msrs);
    if (!p->leaves || !p->msrs)
        abort();
    return 0;
}

/* The policy of a domain, or with domid 0 the most that this host can give to
 * a PVH or HVM guest. */
static int policy_read(struct xen *x, uint32_t domid, struct policy *p,
                       struct err *e)
{
    xc_cpu_policy_t *xp = xc_cpu_policy_init();
    int rc;

    memset(p, 0, sizeof *p);
    if (!xp)
        abort();
    if (domid)
        rc = xc_cpu_policy_get_domain(x->xch, domid, xp);
    else
        rc =
            xc_cpu_policy_get_system(x->xch, XEN_SYSCTL_cpu_policy_hvm_max, xp);
    if (rc)
        rc = err_sys(e, "read the CPU policy of domain %u", domid);
    else
        rc = policy_alloc(x, p, e);
    if (!rc && xc_cpu_policy_serialise(x->xch, xp, p->leaves, &p->n_leaves,
                                       p->msrs, &p->n_msrs))
        rc = err_sys(e, "read the CPU policy of domain %u", domid);
    xc_cpu_policy_destroy(xp);
    if (rc)
        policy_free(p);
    return rc;
}

int xen_policy_get(struct xen *x, uint32_t domid, struct buf *cpuid,
                   struct buf *msrs, struct err *e)
{
    struct policy p;

    if (policy_read(x, domid, &p, e))
        return -1;
    buf_put(cpuid, p.leaves, p.n_leaves * sizeof *p.leaves);
    buf_put(msrs, p.msrs, p.n_msrs * sizeof *p.msrs);
    policy_free(&p);
    return 0;
}

/* --- Comparing ----------------------------------------------------------- */

enum reg { EAX, EBX, ECX, EDX };

/* The words that hold features (xen: public/arch-x86/cpufeatureset.h), less
 * the bits that say what the guest's kernel does or are always given. */
static const struct word {
    uint32_t leaf, subleaf;
    enum reg reg;
    uint32_t ignore;
} words[] = {
    {0x1, 0, EDX, 1u << 9 /* APIC */},
    {0x1, 0, ECX, 1u << 27 /* OSXSAVE */ | 1u << 31 /* hypervisor */},
    {0x7, 0, EBX, 0},
    {0x7, 0, ECX, 1u << 4 /* OSPKE */},
    {0x7, 0, EDX, 0},
    {0x7, 1, EAX, 0},
    {0xd, 1, EAX, 0},
    {0x80000001, 0, EDX, 0x0183f3ff}, /* copies of leaf 1 */
    {0x80000001, 0, ECX, 0},
    {0x80000007, 0, EDX, 0},
    {0x80000008, 0, EBX, 0},
    {0x80000021, 0, EAX, 0},
};

/* Names of features that differ between common CPU generations. */
static const struct feature {
    uint32_t leaf, subleaf;
    enum reg reg;
    unsigned bit;
    const char *name;
} features[] = {
    {0x1, 0, ECX, 0, "SSE3"},           {0x1, 0, ECX, 1, "PCLMULQDQ"},
    {0x1, 0, ECX, 9, "SSSE3"},          {0x1, 0, ECX, 12, "FMA"},
    {0x1, 0, ECX, 19, "SSE4.1"},        {0x1, 0, ECX, 20, "SSE4.2"},
    {0x1, 0, ECX, 21, "x2APIC"},        {0x1, 0, ECX, 22, "MOVBE"},
    {0x1, 0, ECX, 23, "POPCNT"},        {0x1, 0, ECX, 25, "AES"},
    {0x1, 0, ECX, 26, "XSAVE"},         {0x1, 0, ECX, 28, "AVX"},
    {0x1, 0, ECX, 29, "F16C"},          {0x1, 0, ECX, 30, "RDRAND"},
    {0x7, 0, EBX, 0, "FSGSBASE"},       {0x7, 0, EBX, 3, "BMI1"},
    {0x7, 0, EBX, 5, "AVX2"},           {0x7, 0, EBX, 8, "BMI2"},
    {0x7, 0, EBX, 9, "ERMS"},           {0x7, 0, EBX, 10, "INVPCID"},
    {0x7, 0, EBX, 16, "AVX-512F"},      {0x7, 0, EBX, 18, "RDSEED"},
    {0x7, 0, EBX, 19, "ADX"},           {0x7, 0, EBX, 20, "SMAP"},
    {0x7, 0, EBX, 29, "SHA"},           {0x80000001, 0, ECX, 5, "LZCNT"},
    {0x80000001, 0, ECX, 6, "SSE4a"},   {0x80000001, 0, EDX, 26, "1 GiB pages"},
    {0x80000001, 0, EDX, 27, "RDTSCP"},
};

static const uint8_t *leaf_find(const uint8_t *leaves, size_t n, uint32_t leaf,
                                uint32_t subleaf)
{
    for (size_t i = 0; i + RECORD_LEAF_LEN <= n; i += RECORD_LEAF_LEN) {
        uint32_t sub = get_le32(leaves + i + 4);
        if (get_le32(leaves + i) == leaf &&
            (sub == subleaf || (sub == XEN_CPUID_NO_SUBLEAF && !subleaf)))
            return leaves + i + 8;
    }
    return NULL;
}

static uint32_t word_get(const uint8_t *leaves, size_t n, const struct word *w)
{
    const uint8_t *regs = leaf_find(leaves, n, w->leaf, w->subleaf);

    return regs ? get_le32(regs + 4 * w->reg) : 0;
}

static int missing(const struct word *w, uint32_t bits, struct err *e)
{
    unsigned bit = (unsigned)__builtin_ctz(bits);

    for (size_t i = 0; i < sizeof features / sizeof features[0]; i++) {
        const struct feature *f = &features[i];
        if (f->leaf == w->leaf && f->subleaf == w->subleaf &&
            f->reg == w->reg && bits >> f->bit & 1)
            return err_kind(e, ERR_REFUSED,
                            "this host's CPU lacks %s, which "
                            "the VM was told it has",
                            f->name);
    }
    return err_kind(e, ERR_REFUSED,
                    "this host's CPU lacks a feature that the "
                    "VM was told it has (CPUID leaf %#x.%u %s "
                    "bit %u)",
                    w->leaf, w->subleaf,
                    (const char *[]){"eax", "ebx", "ecx", "edx"}[w->reg], bit);
}

static int vendor_check(const uint8_t *host, size_t host_len,
                        const struct blueprint *bp, struct err *e)
{
    const uint8_t *h = leaf_find(host, host_len, 0, 0);
    const uint8_t *g = leaf_find(bp->cpuid, bp->cpuid_len, 0, 0);
    char a[13] = "", b[13] = "";

    if (!h || !g)
        return err_set(e, "the CPU policy has no vendor");
    if (memcmp(h + 4, g + 4, 12) == 0)
        return 0;
    for (int i = 0; i < 3; i++) { /* in the order EBX, EDX, ECX */
        size_t from = (size_t[]){4, 12, 8}[i];
        memcpy(a + 4 * i, g + from, 4);
        memcpy(b + 4 * i, h + from, 4);
    }
    err_kind(e, ERR_REFUSED,
             "the VM runs on a CPU by %.12s, this host has one by %.12s", a, b);
    return err_hint(e, "a running VM can't change to a CPU by another vendor: "
                       "choose another backup");
}

int xen_policy_check(struct xen *x, const struct blueprint *bp, struct err *e)
{
    struct policy p;
    int rc;

    if (!bp->cpuid_len)
        return err_set(e, "the blueprint has no CPU policy");
    if (policy_read(x, 0, &p, e))
        return -1;
    const uint8_t *host = (const uint8_t *)p.leaves;
    size_t host_len = p.n_leaves * sizeof *p.leaves;
    rc = vendor_check(host, host_len, bp, e);
    for (size_t i = 0; i < sizeof words / sizeof words[0] && !rc; i++) {
        const struct word *w = &words[i];
        uint32_t more = word_get(bp->cpuid, bp->cpuid_len, w) &
                        ~word_get(host, host_len, w) & ~w->ignore;
        if (more)
            rc = missing(w, more, e);
    }
    if (rc)
        err_hint(e, "use hosts with equal CPUs, or level the VM's features "
                    "with cpuid= in its configuration");
    policy_free(&p);
    return rc;
}
