/*
 * recipes.c - what a micro-batch is put through: block diffusion from nothing or from a checkpoint (masks or
 * uniform noise: a batch's matter), and fine-tuning to sparse attention by self-distillation (Kwon et al., arXiv
 * 2602.14209).
 *
 * Fine-tuning has three phases. (1) Exact attention of the noisy blocks, without gradient, selects the keys of
 * each layer and KV head by their mass. (2) The student: the noisy rows read those clean keys alone, everything
 * else is exact; gradients flow here and nowhere else. (3) The teacher: the exact forward. The loss is CE + lambda
 * KL(student || teacher) on the masked tokens. The paper names neither lambda, learning rate, steps, data, the
 * rows that select, nor whether the teacher moves with the student: each is a key of the config.
 */
#include "training/loop.h"

#include <stdlib.h>
#include <string.h>

/* The batch with every noisy token masked, as the first step of a block sees it: the keys are selected there. */
static int select_masked(mb_training *t, const mb_batch *batch, mb_error *err)
{
    const mb_train_layout *layout = &batch->layout;
    const size_t rows = (size_t)mb_train_rows(layout);
    mb_batch masked = *batch;
    masked.ids = malloc(rows * sizeof *masked.ids);
    if (!masked.ids)
        return mb_no_memory(err, "a batch");
    memcpy(masked.ids, batch->ids, rows * sizeof *masked.ids);
    for (int32_t d = 0; d < layout->documents; d++)
        for (int32_t i = 0; i < layout->tail; i++)
            masked.ids[d * (layout->clean + layout->tail) + layout->clean + i] = t->network.config.mask_id;
    int rc = mb_network_feed(&t->network, &masked, err);
    if (rc == MB_OK)
        rc = mb_network_forward(&t->network, &masked, &t->network.weights, MB_ATTEND_SELECT, &t->choice, err);
    free(masked.ids);
    return rc == MB_OK ? mb_network_feed(&t->network, batch, err) : rc;
}

/* Phases 1 and 3: the index and the teacher's rows. One forward where the same rows and weights serve both. */
static int exact_phases(mb_training *t, const mb_batch *batch, const mb_parameters *teacher, mb_error *err)
{
    mb_network *n = &t->network;
    const bool masked = t->request->index_from == MB_INDEX_MASK;
    int rc = masked ? select_masked(t, batch, err)
                    : mb_network_forward(n, batch, &n->weights, MB_ATTEND_SELECT, &t->choice, err);
    if (rc == MB_OK && (masked || teacher != &n->weights))
        rc = mb_network_forward(n, batch, teacher, MB_ATTEND_EXACT, NULL, err);
    return rc == MB_OK ? mb_network_teach(n, batch, teacher, err) : rc;
}

static int step_taught(mb_training *t, const mb_batch *batch, double total, mb_losses *losses, mb_error *err)
{
    mb_network *n = &t->network;
    const mb_parameters *teacher = t->request->teacher == MB_TEACHER_FROZEN ? &n->teacher : &n->weights;
    const mb_loss_request request = {.total = total,
                                     .lambda = t->request->lambda,
                                     .teacher = teacher,
                                     .backward = true,
                                     .mode = MB_ATTEND_SPARSE,
                                     .choice = &t->choice};
    int rc = exact_phases(t, batch, teacher, err);
    if (rc == MB_OK)
        rc = mb_network_forward(n, batch, &n->weights, MB_ATTEND_SPARSE, &t->choice, err);
    return rc == MB_OK ? mb_network_loss(n, batch, &request, losses, err) : rc;
}

static int step_plain(mb_training *t, const mb_batch *batch, double total, mb_losses *losses, mb_error *err)
{
    const mb_loss_request request = {.total = total, .backward = true, .mode = MB_ATTEND_EXACT};
    int rc = mb_network_forward(&t->network, batch, &t->network.weights, MB_ATTEND_EXACT, NULL, err);
    return rc == MB_OK ? mb_network_loss(&t->network, batch, &request, losses, err) : rc;
}

/* Blocks of one token make the layout's mask causal, so that the passes of a block serve this loss, too. */
int mb_recipe_step_causal(mb_training *t, const mb_batch *batch, double total, mb_losses *losses, mb_error *err)
{
    int rc = mb_network_feed(&t->network, batch, err);
    return rc == MB_OK ? step_plain(t, batch, total / t->request->causal_weight, losses, err) : rc;
}

int mb_recipe_step(mb_training *t, const mb_batch *batch, double total, mb_losses *losses, mb_error *err)
{
    int rc = mb_network_feed(&t->network, batch, err);
    if (rc != MB_OK)
        return rc;
    return mb_recipe_taught(t->request->recipe) ? step_taught(t, batch, total, losses, err)
                                                : step_plain(t, batch, total, losses, err);
}
