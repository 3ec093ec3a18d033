/* The C interface of a compiled model: no globals that change, no allocation while it runs.

   A run needs the weights (the bundle's blob, 64-byte aligned), an arena for intermediate results, the values of the
   model's symbols (batch, open lengths) and, for more than one thread, a pool. Each caller that runs at the same time
   needs an arena of its own; callers may share the weights. Results are the same bits for any number of threads. */
#ifndef KC_MODEL_H
#define KC_MODEL_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct kc_pool kc_pool;

/* Bytes that the arena must have, for `threads` threads; -1 if the symbols' values make an array too large. Where the
   rows of a batch do not meet, it runs in slices, and the arena holds a slice or, of large batches, one per thread.
   `symbols` holds one value from 0 on per symbol, in the manifest's order. */
int64_t kc_arena_bytes(const int64_t *symbols, int32_t threads);

/* Compute the outputs. Arrays are dense and row-major, in the manifest's order, of the shapes that the symbols give.
   `weights` and `arena` are 64-byte aligned; an input or output may have any address that suits its element type.
   Outputs overlap nothing else. A null pool means one thread, the caller's. A pool serves one caller at a time; others
   wait. Returns 0, or -1 if kc_arena_bytes refuses the symbols. */
int kc_run(const void *const *inputs, void *const *outputs, const void *weights, void *arena, const int64_t *symbols,
           kc_pool *pool);

/* Compute the outputs as kc_run does on one thread, slice by slice, stage by stage, and then once more at once. Writes nanoseconds to
   `times`: of each of the `stages` stages, of running no stage, and of all stages at once. */
int kc_profile(const void *const *inputs, void *const *outputs, const void *weights, void *arena,
               const int64_t *symbols, int32_t stages, int64_t *times);

/* Run `rounds` rounds of multiply-adds in registers, as fast as one core of the machine can: x[0] is the factor and
   x[1] the summand; x takes a vector of results. Writes the floating-point operations of a round. Returns 0. */
int32_t kc_peak(float *x, int32_t rounds, int64_t *operations);

/* Bytes of memory that a pool of `threads` threads needs. */
size_t kc_pool_bytes(int32_t threads);

/* Make a pool in `memory`, which is 64-byte aligned and stays the caller's. It starts `threads` - 1 threads: the caller
   of kc_run is one, too. Returns null if the system has no more threads. */
kc_pool *kc_pool_create(void *memory, int32_t threads);

/* Whether the pool's threads wait awake, each on a CPU, so that even a run of some microseconds is faster with them.
   Where they sleep, and runs follow each other closely, it wakes them for later ones. */
int kc_pool_ready(kc_pool *pool);

/* As kc_run, on the pool if it is ready and on the caller's thread alone if it is not. */
int kc_run_brief(const void *const *inputs, void *const *outputs, const void *weights, void *arena,
                 const int64_t *symbols, kc_pool *pool);

/* End the threads of a pool that no caller uses any more; its memory may then be freed. */
void kc_pool_destroy(kc_pool *pool);

#ifdef __cplusplus
}
#endif

#endif
