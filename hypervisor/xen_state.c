// SPDX-License-Identifier: Apache-2.0
/* Platform state of a guest, out of it and into a shell. get_state() runs while
 * the guest is stopped: its hypercall memory is allocated by the first call,
 * which libxc's own wrapper would do in each one. */
#include "hypervisor/xen.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <xen/hvm/params.h>

#include "hypervisor/records.h"

/* A context only grows when vCPUs come up. */
#define CONTEXT_SLACK (64u << 10)

/* What Xen's own migration sends (tools/libs/guest/xg_sr_save_x86_hvm.c). */
static const uint32_t sent_params[] = {
    HVM_PARAM_STORE_PFN,
    HVM_PARAM_IOREQ_PFN,
    HVM_PARAM_BUFIOREQ_PFN,
    HVM_PARAM_PAGING_RING_PFN,
    HVM_PARAM_MONITOR_RING_PFN,
    HVM_PARAM_SHARING_RING_PFN,
    HVM_PARAM_VM86_TSS_SIZED,
    HVM_PARAM_CONSOLE_PFN,
    HVM_PARAM_ACPI_IOPORTS_LOCATION,
    HVM_PARAM_VIRIDIAN,
    HVM_PARAM_IDENT_PT,
    HVM_PARAM_VM_GENERATION_ID_ADDR,
    HVM_PARAM_IOREQ_SERVER_PFN,
    HVM_PARAM_NR_IOREQ_SERVER_PAGES,
    HVM_PARAM_X87_FIP_WIDTH,
    HVM_PARAM_MCA_CAP,
};

/* Those of them that a guest may set (xen/arch/x86/hvm/hvm.c). The others are
 * given to the shell when it is built, and its rings are its own. */
static const uint32_t guest_params[] = {
    HVM_PARAM_VM86_TSS_SIZED,
    HVM_PARAM_ACPI_IOPORTS_LOCATION,
    HVM_PARAM_VM_GENERATION_ID_ADDR,
    HVM_PARAM_X87_FIP_WIDTH,
};

#define N_OF(a) (sizeof(a) / sizeof(a)[0])

/* gethvmcontext into x->state.context; *len says how much. With `probe` only
 * the size is asked for. */
static int context_get(struct xen *x, uint32_t domid, bool probe, uint32_t *len)
{
    struct xen_state *s = &x->state;
    struct xen_domctl *op = xen_domctl(x, XEN_DOMCTL_gethvmcontext, domid);

    if (!probe) {
        op->u.hvmcontext.size = (uint32_t)(s->context_pages * HV_PAGE);
        set_xen_guest_handle_raw(op->u.hvmcontext.buffer, s->context);
    }
    if (xen_domctl_do(x))
        return -1;
    *len = op->u.hvmcontext.size;
    return 0;
}

void xen_state_free(struct xen *x)
{
    struct xen_state *s = &x->state;

    if (s->context)
        xencall_free_buffer_pages(x->xcall, s->context, s->context_pages);
    memset(s, 0, sizeof *s);
}

_Static_assert(N_OF(sent_params) <= XEN_PARAMS_MAX, "params do not fit");

static bool may_change(uint64_t index)
{
    for (size_t i = 0; i < N_OF(guest_params); i++)
        if (guest_params[i] == index)
            return true;
    return false;
}

/* Read all parameters, or only those that may have changed. */
static int params_get(struct xen *x, uint32_t domid, bool all, struct err *e)
{
    for (size_t i = 0; i < N_OF(sent_params); i++)
        if ((all || may_change(sent_params[i])) &&
            xc_hvm_param_get(x->xch, domid, sent_params[i],
                             &x->state.params[i]))
            return err_sys(e, "read HVM parameter %u of domain %u",
                           sent_params[i], domid);
    return 0;
}

static int state_prepare(struct xen *x, uint32_t domid, struct err *e)
{
    struct xen_state *s = &x->state;
    uint32_t len = 0;

    xen_state_free(x);
    if (context_get(x, domid, true, &len))
        return err_sys(e, "ask for the state size of domain %u", domid);
    s->context_pages = (len + CONTEXT_SLACK + HV_PAGE - 1) / HV_PAGE;
    s->context = xencall_alloc_buffer_pages(x->xcall, s->context_pages);
    if (!s->context)
        return err_sys(e, "allocate hypercall memory");
    s->domid = domid;
    return 0;
}

static int tsc_put(struct xen *x, uint32_t domid, struct buf *out,
                   struct err *e)
{
    uint32_t mode, khz, incarnation;
    uint64_t nsec;

    if (xc_domain_get_tsc_info(x->xch, domid, &mode, &nsec, &khz, &incarnation))
        return err_sys(e, "read the TSC state of domain %u", domid);
    size_t at = record_begin(out, RECORD_TSC_INFO);
    buf_u32(out, mode);
    buf_u32(out, khz);
    buf_u64(out, nsec);
    buf_u32(out, incarnation);
    buf_u32(out, 0);
    record_end(out, at);
    return 0;
}

static void params_put(const struct xen *x, struct buf *out)
{
    const uint64_t *value = x->state.params;
    uint32_t n = 0;

    for (size_t i = 0; i < N_OF(sent_params); i++)
        n += value[i] != 0;
    size_t at = record_begin(out, RECORD_HVM_PARAMS);
    buf_u32(out, n);
    buf_u32(out, 0);
    for (size_t i = 0; i < N_OF(sent_params); i++) {
        if (!value[i])
            continue;
        buf_u64(out, sent_params[i]);
        buf_u64(out, value[i]);
    }
    record_end(out, at);
}

int xen_get_state(struct hv *hv, uint32_t domid, struct buf *out, struct err *e)
{
    struct xen *x = xen_of(hv);
    uint32_t len = 0;

    bool first = !x->state.context || x->state.domid != domid;
    if (first && state_prepare(x, domid, e)) {
        xen_state_free(x);
        return -1;
    }
    if (first && !out->fixed)
        buf_reserve(out, x->state.context_pages * HV_PAGE + HV_PAGE);
    if (params_get(x, domid, first, e) || tsc_put(x, domid, out, e))
        return -1;
    if (context_get(x, domid, false, &len))
        return err_sys(e, "read the HVM context of domain %u", domid);
    record_put(out, RECORD_HVM_CONTEXT, x->state.context, len);
    params_put(x, out);
    if (out->overflow)
        return err_set(e, "the state of domain %u does not fit its buffer",
                       domid);
    return 0;
}

static int params_set(struct xen *x, uint32_t domid,
                      const struct record_state *s, struct err *e)
{
    for (unsigned i = 0; i < s->n_params; i++) {
        uint32_t index = (uint32_t)s->params[i].index;
        uint64_t now;
        if (!may_change(s->params[i].index))
            continue;
        if (!xc_hvm_param_get(x->xch, domid, index, &now) &&
            now == s->params[i].value)
            continue;
        if (xc_hvm_param_set(x->xch, domid, index, s->params[i].value))
            return err_sys(e, "set HVM parameter %u of domain %u", index,
                           domid);
    }
    return 0;
}

int xen_set_state(struct hv *hv, uint32_t domid, const void *state, size_t len,
                  struct err *e)
{
    struct xen *x = xen_of(hv);
    struct record_state s;

    if (record_state_parse(state, len, &s, e))
        return -1;
    /* Before the context: it decides how Xen sets the vCPUs' TSCs. */
    if (xc_domain_set_tsc_info(x->xch, domid, s.tsc_mode, s.tsc_nsec, s.tsc_khz,
                               s.tsc_incarnation))
        return err_sys(e, "set the TSC state of domain %u", domid);
    if (params_set(x, domid, &s, e))
        return -1;
    uint8_t *context = malloc(s.context_len);
    if (!context)
        abort();
    memcpy(context, s.context, s.context_len);
    int r = xc_domain_hvm_setcontext(x->xch, domid, context, s.context_len);
    if (r < 0)
        err_sys(e, "set the HVM context of domain %u", domid);
    free(context);
    return r < 0 ? -1 : 0;
}
