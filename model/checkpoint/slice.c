/*
 * slice.c - one rank's part of a model over several devices (tensor parallelism, Megatron-LM, arXiv 1909.08053,
 * section 3).
 *
 * Query and KV heads, the inner width of dense layers and that of every expert are cut into as many equal parts as
 * there are ranks, and the products behind them (o, down) give sums over the ranks. Where there are more ranks
 * than KV heads, each KV head lies on several ranks, which share its query heads. Norms, the router, the embedding
 * and the head lie on all ranks: each of them knows all logits.
 *
 * A slice is a configuration like any other, so memory, layout and forward need to know nothing of ranks.
 */
#include "model/checkpoint/slice.h"

/* What does not divide, or NULL. */
static const char *indivisible(const mb_model_config *c, int32_t ranks)
{
    if (c->query_heads % ranks != 0)
        return "query heads";
    if (c->kv_heads % ranks != 0 && ranks % c->kv_heads != 0)
        return "KV heads";
    if ((!c->moe.experts || c->moe.dense_layers > 0) && c->intermediate % ranks != 0)
        return "inner width";
    if (c->moe.size % ranks != 0 || c->moe.shared % ranks != 0)
        return "width of an expert";
    return NULL;
}

int mb_model_slice(const mb_model_config *whole, int32_t ranks, mb_model_config *slice, mb_error *err)
{
    mb_text possible = {0};
    const char *what = ranks < 1 || ranks > MB_RANKS_MAX ? "devices" : indivisible(whole, ranks);
    *slice = *whole;
    if (whole->local.window > 0 && ranks > 1)
        return mb_fail(
            err, MB_E_INPUT,
            "%s cannot be split over devices yet: its layers differ in their heads; \"parallel\" can be 1",
            whole->name);
    if (what) {
        for (int32_t n = 1; n <= MB_RANKS_MAX; n++)
            if (!indivisible(whole, n))
                mb_text_printf(&possible, "%s%d", n > 1 ? ", " : "", n);
        mb_fail(
            err, 0,
            "%s cannot be split over %d devices: its %s do not divide (%d query heads, %d KV heads, inner width "
            "%d, experts %d wide); \"parallel\" can be %s",
            whole->name, ranks, what, whole->query_heads, whole->kv_heads, whole->intermediate, whole->moe.size,
            possible.data ? possible.data : "1");
        mb_text_free(&possible);
        return MB_E_INPUT;
    }
    slice->query_heads /= ranks;
    slice->kv_heads = whole->kv_heads % ranks == 0 ? whole->kv_heads / ranks : 1;
    slice->intermediate /= ranks;
    slice->moe.size /= ranks;
    slice->moe.shared /= ranks;
    return MB_OK;
}

int32_t mb_slice_kv_head(const mb_model_config *whole, int32_t ranks, int32_t rank)
{
    return (int32_t)((int64_t)rank * whole->kv_heads / ranks);
}

/* Rows of a slice begin at the rank's share of all rows; KV heads that several ranks have begin at the head. */
static int64_t share(int64_t whole, int64_t part, int32_t ranks, int32_t rank)
{
    return part == whole ? 0 : whole * rank / ranks / part * part;
}

int mb_slice_bands(const mb_weight_part *whole, const mb_weight_part *part, const mb_slice_place *place,
                   mb_slice_band bands[MB_SLICE_BANDS])
{
    const mb_model_config *w = place->whole, *s = place->slice;
    /* q, k and v in one tensor of the checkpoint: the device tensor of three is this one part. */
    const bool fused =
        part->rows == ((int64_t)s->query_heads + 2 * s->kv_heads) * s->head_dim &&
        part->rows == part->tensor_rows &&
        (part->field == offsetof(struct mb_layer, qkv) || part->field == offsetof(struct mb_layer, qkv_bias));
    if (!fused || part->rows == whole->rows) {
        bands[0] = (mb_slice_band){share(whole->rows, part->rows, place->ranks, place->rank), part->rows};
        return 1;
    }
    const int64_t d = w->head_dim, q = w->query_heads * d, kv = w->kv_heads * d;
    const int64_t part_q = s->query_heads * d, part_kv = s->kv_heads * d;
    const int64_t first = share(kv, part_kv, place->ranks, place->rank);
    bands[0] = (mb_slice_band){share(q, part_q, place->ranks, place->rank), part_q};
    bands[1] = (mb_slice_band){q + first, part_kv};
    bands[2] = (mb_slice_band){q + kv + first, part_kv};
    return 3;
}

int64_t mb_slice_column(const mb_weight_part *whole, const mb_weight_part *part, const mb_slice_place *place)
{
    return share(whole->cols, part->cols, place->ranks, place->rank);
}
