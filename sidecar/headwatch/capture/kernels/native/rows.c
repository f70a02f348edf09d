#define _GNU_SOURCE /* affinity */
/* Head summaries of query rows on a CPU, straight from the paged cache.
 *
 * Two passes.  The first reads K once for all query heads and rows that share a KV head and leaves logits in a scratch
 * that stays in the cache of the core; the second walks each head's logits span by span and accumulates, in one go,
 * the sum of exp(l - max) of each span, of exp(l - max)(l - max) and of exp(l - max) j.  Every feature follows from these.
 * K is never read twice, and no weight is ever stored.
 *
 * Lanes are summed in float for at most FLUSH positions, then in double: the error is that of the logits' float
 * products, not of the length.  Vectors are the compiler's own (GCC, Clang): no intrinsics, any CPU.
 *
 * Layouts of K in a block: columns ([dim][tokens], vLLM's CPU_ATTN isa vec and vec16), or for bfloat16 pairs of dimensions in
 * groups of 16 tokens ([tokens / 16][dim / 2][16][2], isa amx).  Tokens a multiple of 16.
 */
#include "helper.h"

enum { DONE, HANDED_OVER, NO_MEMORY };

/* Summarise all rows of `step` in the layer that is the `index`th in its buffer: beside the engine where there is a helper with
 * a place, else now. */
int hw_rows(hw_helper *helper, const hw_layer *layer, const hw_step *step, int64_t index, const void *query,
            const void *output) {
  static _Thread_local hw_room kept, logits;
  if (helper && submit(helper, layer, step, index, query, output)) return HANDED_OVER;
  hw_job job;
  job.scratch = room_for(&logits, sizeof(float) * (size_t)step->floats);
  if (!job.scratch || !prepare(&job, &kept, layer, step, index, query, output)) return NO_MEMORY;
  work_together(&job);
  return DONE;
}
