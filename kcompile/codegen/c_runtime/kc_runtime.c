/* Threads of a compiled model: a pool, a barrier, and the entry that runs the generated code on them.

   Waiting means to spin for some microseconds and then to sleep. When two threads of a pool find themselves on one CPU,
   which happens as soon as another process keeps the other CPU busy, spinning only delays the thread that is awaited;
   so a waiting thread looks where the others are, and sleeps at once. */
#define _GNU_SOURCE

#include "kc_model.h"

#include <pthread.h>
#include <sched.h>
#include <time.h>

#ifdef __linux__
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

/* Generated: the stages from number `first` on and before `last` for slice `slice` of the batch, as thread `thread` of
   `threads`; `worker` goes to kc_barrier. */
int32_t kc_main(const void *const *inputs, void *const *outputs, const void *weights, void *arena,
                const int64_t *symbols, void *worker, int32_t thread, int32_t threads, int32_t slice, int32_t first,
                int32_t last);

typedef struct {
    int64_t bytes;  /* of an arena for one slice; -1 if the symbols' values make an array too large */
    int64_t slices; /* in which the batch is computed; their number is the same for any number of threads */
} kc_measures;

/* Generated. */
int32_t kc_measure(const int64_t *symbols, int32_t threads, kc_measures *measures);

/* Called by the generated code between stages. */
int32_t kc_barrier(void *worker);

#define SPINS 3000
/* Nanoseconds since a thread was last seen to wait from which on it may have lost its CPU, between two runs that follow
   each other closely, and between two attempts to wake threads. */
#define FRESH 2000
#define CLOSE 100000
#define PATIENCE 1000000
#define CACHE_LINE 64

/* A word that threads wait on, alone in its cache line. */
typedef struct {
    uint32_t value;
    char padding[CACHE_LINE - sizeof(uint32_t)];
} __attribute__((aligned(CACHE_LINE))) kc_word;

typedef struct {
    kc_word barriers; /* counts those at which the thread has arrived */
    kc_pool *pool;
    int32_t index;
    uint32_t job; /* the last job that the thread has seen */
    int32_t cpu;
    int64_t seen; /* when the thread was last known to wait for a job, its eyes open */
    pthread_t thread;
    char padding[CACHE_LINE];
} kc_worker;

struct kc_pool {
    kc_word job;    /* counts runs */
    kc_word asleep; /* threads in the kernel */
    const void *const *inputs;
    void *const *outputs;
    const void *weights;
    void *arena;
    const int64_t *symbols;
    int32_t threads;
    int64_t last;        /* when kc_pool_ready was last called, or kc_run_brief ended */
    int64_t woken;       /* when it last woke threads */
    int64_t arena_bytes; /* of one thread's arena */
    int32_t alone;       /* callers that compute without the pool's threads; a single one will soon want them */
    int32_t slices;
    int32_t stop;
    pthread_mutex_t lock;
    kc_worker workers[];
};

static void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static int32_t present_cpu(void)
{
#ifdef __linux__
    return (int32_t)sched_getcpu();
#else
    return -1;
#endif
}

static int64_t nanoseconds_now(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static int shares_cpu(const kc_worker *worker)
{
    const kc_pool *pool = worker->pool;
    if (worker->cpu < 0) {
        return 0;
    }
    for (int32_t i = 0; i < pool->threads; i++) {
        if (i != worker->index && __atomic_load_n(&pool->workers[i].cpu, __ATOMIC_RELAXED) == worker->cpu) {
            return 1;
        }
    }
    return 0;
}

/* A thread that is woken by another of the pool may be put on that one's CPU and stay there, since the two run in turns
   and the kernel sees no CPU that has too much to do. So it keeps to the process's other CPUs from then on. */
static void leave_shared_cpu(kc_worker *worker)
{
#ifdef __linux__
    cpu_set_t others;
    if (worker->index == 0 || !shares_cpu(worker) || sched_getaffinity(getpid(), sizeof others, &others) != 0) {
        return;
    }
    CPU_CLR(worker->cpu, &others);
    if (CPU_COUNT(&others) > 0 && sched_setaffinity(0, sizeof others, &others) == 0) {
        __atomic_store_n(&worker->cpu, present_cpu(), __ATOMIC_RELAXED);
    }
#else
    (void)worker;
#endif
}

static void sleep_while(kc_pool *pool, uint32_t *word, uint32_t old)
{
    __atomic_fetch_add(&pool->asleep.value, 1, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(word, __ATOMIC_SEQ_CST) == old) {
#ifdef __linux__
        syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, old, NULL, NULL, 0);
#else
        sched_yield();
#endif
    }
    __atomic_fetch_sub(&pool->asleep.value, 1, __ATOMIC_SEQ_CST);
}

static void wait_while(kc_worker *worker, uint32_t *word, uint32_t old)
{
    int32_t spins = 0;
    __atomic_store_n(&worker->cpu, present_cpu(), __ATOMIC_RELAXED);
    while (__atomic_load_n(word, __ATOMIC_ACQUIRE) == old) {
        spins++;
        if (spins % 16 == 0) {
            __atomic_store_n(&worker->seen, nanoseconds_now(), __ATOMIC_RELAXED);
        }
        if (__atomic_load_n(&worker->pool->alone, __ATOMIC_RELAXED) == 1) {
            spins %= 16;
        }
        if (spins < SPINS && (spins % 16 != 0 || !shares_cpu(worker))) {
            relax();
        } else {
            sleep_while(worker->pool, word, old);
            __atomic_store_n(&worker->cpu, present_cpu(), __ATOMIC_RELAXED);
            leave_shared_cpu(worker);
            spins = 0;
        }
    }
}

static void wake(kc_pool *pool, uint32_t *word)
{
#ifdef __linux__
    if (__atomic_load_n(&pool->asleep.value, __ATOMIC_SEQ_CST) != 0) {
        syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, pool->threads, NULL, NULL, 0);
    }
#else
    (void)pool;
    (void)word;
#endif
}

static void advance(kc_pool *pool, uint32_t *word)
{
    __atomic_fetch_add(word, 1, __ATOMIC_SEQ_CST);
    wake(pool, word);
}

/* Every thread tells in a word of its own that it has arrived: one cache line's way between two of them, where a common
   counter's would be two. A thread is at most one barrier ahead, so all but the old number says that it was here. */
int32_t kc_barrier(void *context)
{
    kc_worker *worker = context;
    if (worker == NULL) {
        return 0;
    }
    kc_pool *pool = worker->pool;
    uint32_t old = __atomic_load_n(&worker->barriers.value, __ATOMIC_RELAXED);
    advance(pool, &worker->barriers.value);
    for (int32_t i = 0; i < pool->threads; i++) {
        if (i != worker->index) {
            wait_while(worker, &pool->workers[i].barriers.value, old);
        }
    }
    return 0;
}

/* Every thread computes as many slices as the others in an arena of its own; those that are left over, all together.

   Once the last barrier opens, another thread may begin the next run, so nothing of the pool is read after it. */
static void take_part(kc_worker *worker)
{
    kc_pool *pool = worker->pool;
    __atomic_store_n(&worker->cpu, present_cpu(), __ATOMIC_RELAXED);
    int32_t slices = pool->slices, threads = pool->threads, own = slices / threads, index = worker->index;
    if (own > 0) {
        char *arena = (char *)pool->arena + index * pool->arena_bytes;
        for (int32_t slice = own * index; slice < own * (index + 1); slice++) {
            (void)kc_main(pool->inputs, pool->outputs, pool->weights, arena, pool->symbols, NULL, 0, 1, slice, 0,
                          INT32_MAX);
        }
        (void)kc_barrier(worker);
    }
    for (int32_t slice = own * threads; slice < slices; slice++) {
        (void)kc_main(pool->inputs, pool->outputs, pool->weights, pool->arena, pool->symbols, worker, index, threads,
                      slice, 0, INT32_MAX);
        (void)kc_barrier(worker);
    }
}

static void *work(void *context)
{
    kc_worker *worker = context;
    for (;;) {
        wait_while(worker, &worker->pool->job.value, worker->job);
        worker->job++;
        if (__atomic_load_n(&worker->pool->stop, __ATOMIC_ACQUIRE)) {
            return NULL;
        }
        take_part(worker);
    }
}

int64_t kc_arena_bytes(const int64_t *symbols, int32_t threads)
{
    kc_measures own, shared;
    (void)kc_measure(symbols, 1, &own);
    (void)kc_measure(symbols, threads, &shared);
    return own.bytes < 0 || own.slices < threads ? shared.bytes : threads * own.bytes;
}

int kc_run(const void *const *inputs, void *const *outputs, const void *weights, void *arena, const int64_t *symbols,
           kc_pool *pool)
{
    kc_measures measures;
    (void)kc_measure(symbols, 1, &measures);
    if (measures.bytes < 0) {
        return -1;
    }
    if (pool == NULL || pool->threads == 1) {
        for (int32_t slice = 0; slice < measures.slices; slice++) {
            (void)kc_main(inputs, outputs, weights, arena, symbols, NULL, 0, 1, slice, 0, INT32_MAX);
        }
        return 0;
    }
    (void)pthread_mutex_lock(&pool->lock);
    pool->inputs = inputs;
    pool->outputs = outputs;
    pool->weights = weights;
    pool->arena = arena;
    pool->symbols = symbols;
    pool->arena_bytes = measures.bytes;
    pool->slices = (int32_t)measures.slices;
    advance(pool, &pool->job.value);
    take_part(&pool->workers[0]);
    (void)pthread_mutex_unlock(&pool->lock);
    return 0;
}

int kc_pool_ready(kc_pool *pool)
{
    int64_t now = nanoseconds_now(), before = __atomic_exchange_n(&pool->last, now, __ATOMIC_RELAXED);
    int32_t ready = 1;
    for (int32_t i = 1; i < pool->threads; i++) {
        ready &= now - __atomic_load_n(&pool->workers[i].seen, __ATOMIC_RELAXED) < FRESH;
    }
    if (!ready && now - before < CLOSE && now - __atomic_load_n(&pool->woken, __ATOMIC_RELAXED) > PATIENCE) {
        __atomic_store_n(&pool->woken, now, __ATOMIC_RELAXED);
        wake(pool, &pool->job.value);
    }
    return ready;
}

/* Threads that wait awake do so until a single caller's call ends: of several callers each has a CPU's work. */
int kc_run_brief(const void *const *inputs, void *const *outputs, const void *weights, void *arena,
                 const int64_t *symbols, kc_pool *pool)
{
    if (kc_pool_ready(pool)) {
        return kc_run(inputs, outputs, weights, arena, symbols, pool);
    }
    __atomic_store_n(&pool->workers[0].cpu, present_cpu(), __ATOMIC_RELAXED);
    __atomic_fetch_add(&pool->alone, 1, __ATOMIC_RELAXED);
    int failed = kc_run(inputs, outputs, weights, arena, symbols, NULL);
    __atomic_fetch_sub(&pool->alone, 1, __ATOMIC_RELAXED);
    __atomic_store_n(&pool->last, nanoseconds_now(), __ATOMIC_RELAXED);
    return failed;
}

int kc_profile(const void *const *inputs, void *const *outputs, const void *weights, void *arena,
               const int64_t *symbols, int32_t stages, int64_t *times)
{
    kc_measures measures;
    (void)kc_measure(symbols, 1, &measures);
    if (measures.bytes < 0) {
        return -1;
    }
    for (int32_t i = 0; i <= stages; i++) {
        times[i] = 0;
    }
    for (int32_t slice = 0; slice < measures.slices; slice++) {
        for (int32_t i = 0; i <= stages; i++) {
            int64_t begin = nanoseconds_now();
            (void)kc_main(inputs, outputs, weights, arena, symbols, NULL, 0, 1, slice, i, i + 1);
            times[i] += nanoseconds_now() - begin;
        }
    }
    int64_t begin = nanoseconds_now();
    int failed = kc_run(inputs, outputs, weights, arena, symbols, NULL);
    times[stages + 1] = nanoseconds_now() - begin;
    return failed;
}

size_t kc_pool_bytes(int32_t threads)
{
    return sizeof(kc_pool) + (size_t)threads * sizeof(kc_worker);
}

kc_pool *kc_pool_create(void *memory, int32_t threads)
{
    kc_pool *pool = memory;
    pool->job.value = 0;
    pool->asleep.value = 0;
    pool->threads = threads;
    pool->last = 0;
    pool->alone = 0;
    pool->woken = 0;
    pool->stop = 0;
    if (pthread_mutex_init(&pool->lock, NULL) != 0) {
        return NULL;
    }
    for (int32_t i = 0; i < threads; i++) {
        kc_worker *worker = &pool->workers[i];
        worker->barriers.value = 0;
        worker->pool = pool;
        worker->index = i;
        worker->job = 0;
        worker->cpu = -1;
        worker->seen = 0;
    }
    for (int32_t i = 1; i < threads; i++) {
        if (pthread_create(&pool->workers[i].thread, NULL, work, &pool->workers[i]) != 0) {
            pool->threads = i;
            kc_pool_destroy(pool);
            return NULL;
        }
    }
    return pool;
}

void kc_pool_destroy(kc_pool *pool)
{
    __atomic_store_n(&pool->stop, 1, __ATOMIC_RELEASE);
    advance(pool, &pool->job.value);
    for (int32_t i = 1; i < pool->threads; i++) {
        (void)pthread_join(pool->workers[i].thread, NULL);
    }
    (void)pthread_mutex_destroy(&pool->lock);
}
