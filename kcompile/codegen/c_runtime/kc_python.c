/* Calls from Python in a fraction of a microsecond: functions that read NumPy's arrays where they lie.

   They serve calls whose shapes they have learnt, and give None for any other, which the caller then treats in its own
   way. What they use of CPython is its stable ABI (3.11 on), declared here so that no header of
   Python is needed; the declarations are weak, so that programs without Python can load the library all the same. */
#define _POSIX_C_SOURCE 200112L

#include "kc_model.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Of what Python and this file tell each other; a runtime of another version calls through ctypes instead. */
#define VERSION 2
#define MOST_ARRAYS 16
#define MOST_PLANS 32
#define ALIGNMENT 64

typedef struct kc_object PyObject;
typedef intptr_t Py_ssize_t;

typedef struct {
    void *buf;
    PyObject *obj;
    Py_ssize_t len;
    Py_ssize_t itemsize;
    int readonly;
    int ndim;
    char *format;
    Py_ssize_t *shape;
    Py_ssize_t *strides;
    Py_ssize_t *suboffsets;
    void *internal;
} Py_buffer;

typedef struct {
    const char *name;
    PyObject *(*function)(PyObject *self, PyObject *const *arguments, Py_ssize_t count);
    int flags;
    const char *doc;
} PyMethodDef;

#define METH_FASTCALL 0x80
#define PyBUF_WRITABLE 1
#define PyBUF_FORMAT 4
#define PyBUF_ND 8 /* without strides: C-contiguous, or refused */

#define WEAK __attribute__((weak))
extern PyObject _Py_NoneStruct WEAK;
WEAK PyObject *PyCFunction_NewEx(PyMethodDef *, PyObject *, PyObject *);
WEAK PyObject *PyCapsule_New(void *, const char *, void (*)(PyObject *));
WEAK void *PyCapsule_GetPointer(PyObject *, const char *);
WEAK PyObject *PyTuple_New(Py_ssize_t);
WEAK Py_ssize_t PyTuple_Size(PyObject *);
WEAK PyObject *PyTuple_GetItem(PyObject *, Py_ssize_t);
WEAK int PyTuple_SetItem(PyObject *, Py_ssize_t, PyObject *);
WEAK PyObject *PyDict_New(void);
WEAK Py_ssize_t PyDict_Size(PyObject *);
WEAK PyObject *PyDict_GetItemWithError(PyObject *, PyObject *);
WEAK int PyDict_SetItem(PyObject *, PyObject *, PyObject *);
WEAK PyObject *PyObject_Type(PyObject *);
WEAK PyObject *PyObject_CallObject(PyObject *, PyObject *);
WEAK int PyObject_GetBuffer(PyObject *, Py_buffer *, int);
WEAK void PyBuffer_Release(Py_buffer *);
WEAK int PyBytes_AsStringAndSize(PyObject *, char **, Py_ssize_t *);
WEAK void *PyLong_AsVoidPtr(PyObject *);
WEAK Py_ssize_t PyLong_AsSsize_t(PyObject *);
WEAK PyObject *PyErr_Occurred(void);
WEAK PyObject *PyErr_NoMemory(void);
WEAK void PyErr_Clear(void);
WEAK void *PyEval_SaveThread(void);
WEAK void PyEval_RestoreThread(void *);
WEAK void Py_IncRef(PyObject *);
WEAK void Py_DecRef(PyObject *);

/* Memory of one call at a time: an arena of so many bytes follows this head. */
typedef struct kc_place {
    struct kc_place *next;
    size_t bytes;
} kc_place;

/* How to call for one choice of shapes. `numbers` holds what `learn` takes. */
typedef struct kc_plan {
    struct kc_plan *next;
    size_t arena;
    int alone;                  /* whether other Python threads wait while it computes */
    Py_ssize_t rows;            /* of the batch; 0 where it is never split */
    kc_pool *pool;              /* or null */
    int brief;                  /* whether the pool is worth its waking only where it is awake */
    pid_t process;              /* in which the pool has its threads */
    const int64_t *symbols;
    const int64_t *shapes;      /* of inputs, then of outputs: rank, extents */
    char formats[MOST_ARRAYS];  /* of inputs, then of outputs, as the buffer protocol writes them */
    PyObject *results;          /* for each output, the arguments of `empty` */
    int64_t *numbers;
} kc_plan;

typedef struct {
    kc_plan *plans;
    int32_t count;
    kc_place *free; /* as many as there were calls at once, each as large as those that it served */
    char busy;      /* guards `free` */
    int32_t inputs, outputs;
    const void *weights;
    PyObject *owner; /* of the weights */
    PyObject *takes, *gives; /* names */
    PyObject *array, *empty, *dict; /* numpy.ndarray, numpy.empty, dict */
} kc_caller;

static const char *const CAPSULE = "kcompile";

/* ---- memory */

static kc_place *take_place(kc_caller *caller, size_t bytes)
{
    while (__atomic_test_and_set(&caller->busy, __ATOMIC_ACQUIRE)) {
    }
    kc_place *place = caller->free;
    if (place != NULL) {
        caller->free = place->next;
    }
    __atomic_clear(&caller->busy, __ATOMIC_RELEASE);
    if (place != NULL && place->bytes >= bytes) {
        return place;
    }
    free(place);
    void *fresh = NULL;
    if (posix_memalign(&fresh, ALIGNMENT, ALIGNMENT + bytes) != 0) {
        return NULL;
    }
    place = fresh;
    place->bytes = bytes;
    return place;
}

static void give_place(kc_caller *caller, kc_place *place)
{
    while (__atomic_test_and_set(&caller->busy, __ATOMIC_ACQUIRE)) {
    }
    place->next = caller->free;
    caller->free = place;
    __atomic_clear(&caller->busy, __ATOMIC_RELEASE);
}

static void free_plan(kc_plan *plan)
{
    Py_DecRef(plan->results);
    free(plan->numbers);
    free(plan);
}

static void forget(PyObject *capsule)
{
    kc_caller *caller = PyCapsule_GetPointer(capsule, CAPSULE);
    while (caller->plans != NULL) {
        kc_plan *next = caller->plans->next;
        free_plan(caller->plans);
        caller->plans = next;
    }
    while (caller->free != NULL) {
        kc_place *next = caller->free->next;
        free(caller->free);
        caller->free = next;
    }
    PyObject *held[] = {caller->owner, caller->takes, caller->gives, caller->array, caller->empty, caller->dict};
    for (size_t i = 0; i < sizeof held / sizeof *held; i++) {
        Py_DecRef(held[i]);
    }
    free(caller);
}

/* ---- arrays */

static int has_type(PyObject *object, PyObject *type)
{
    PyObject *own = PyObject_Type(object);
    Py_DecRef(own);
    return own == type;
}

static const int64_t *next_shape(const int64_t *shape)
{
    return shape + 1 + shape[0];
}

static int fits(const Py_buffer *view, char format, const int64_t *shape)
{
    if (view->format == NULL || view->format[0] != format || view->format[1] != '\0' || view->ndim != shape[0]) {
        return 0;
    }
    for (int i = 0; i < view->ndim; i++) {
        if (view->shape[i] != shape[1 + i]) {
            return 0;
        }
    }
    return (uintptr_t)view->buf % (uintptr_t)view->itemsize == 0;
}

static int overlap(const Py_buffer *x, const Py_buffer *y)
{
    const char *a = x->buf, *b = y->buf;
    return a < b + y->len && b < a + x->len;
}

static void release(Py_buffer *views, int32_t count)
{
    for (int32_t i = 0; i < count; i++) {
        PyBuffer_Release(&views[i]);
    }
}

/* The plan for the inputs, whose buffers are then open in `views`; null if there is none. */
static kc_plan *open_inputs(kc_caller *caller, PyObject *const *arrays, Py_buffer *views)
{
    for (int32_t i = 0; i < caller->inputs; i++) {
        if (!has_type(arrays[i], caller->array) ||
            PyObject_GetBuffer(arrays[i], &views[i], PyBUF_ND | PyBUF_FORMAT) != 0) {
            PyErr_Clear();
            release(views, i);
            return NULL;
        }
    }
    kc_plan *plan = __atomic_load_n(&caller->plans, __ATOMIC_ACQUIRE);
    for (; plan != NULL; plan = plan->next) {
        const int64_t *shape = plan->shapes;
        int32_t i = 0;
        while (i < caller->inputs && fits(&views[i], plan->formats[i], shape)) {
            shape = next_shape(shape);
            i++;
        }
        if (i == caller->inputs) {
            return plan;
        }
    }
    release(views, caller->inputs);
    return NULL;
}

/* Make the outputs, in `results` and open in `views`; not 0, and none of them, for an exception. */
static int make_outputs(kc_caller *caller, kc_plan *plan, PyObject **results, Py_buffer *views)
{
    for (int32_t i = 0; i < caller->outputs; i++) {
        results[i] = PyObject_CallObject(caller->empty, PyTuple_GetItem(plan->results, i));
        if (results[i] == NULL || PyObject_GetBuffer(results[i], &views[i], PyBUF_ND | PyBUF_WRITABLE) != 0) {
            release(views, i);
            for (; i >= 0; i--) {
                if (results[i] != NULL) {
                    Py_DecRef(results[i]);
                }
                results[i] = NULL;
            }
            return -1;
        }
    }
    return 0;
}

/* Open `out`, which the one output is to be written to; not 0 if it does not fit. */
static int open_output(kc_caller *caller, kc_plan *plan, PyObject *out, const Py_buffer *inputs, Py_buffer *view)
{
    if (!has_type(out, caller->array) || PyObject_GetBuffer(out, view, PyBUF_ND | PyBUF_FORMAT | PyBUF_WRITABLE) != 0) {
        PyErr_Clear();
        return -1;
    }
    const int64_t *shape = plan->shapes;
    int alike = 1;
    for (int32_t i = 0; i < caller->inputs; i++) {
        shape = next_shape(shape);
        alike = alike && !overlap(view, &inputs[i]);
    }
    if (!alike || !fits(view, plan->formats[caller->inputs], shape)) {
        PyBuffer_Release(view);
        return -1;
    }
    return 0;
}

/* ---- calls */

/* Not 0 if it failed, with an exception or without one. */
static int compute(kc_caller *caller, kc_plan *plan, const Py_buffer *inputs, const Py_buffer *outputs)
{
    const void *x[MOST_ARRAYS];
    void *y[MOST_ARRAYS];
    for (int32_t i = 0; i < caller->inputs; i++) {
        x[i] = inputs[i].buf;
    }
    for (int32_t i = 0; i < caller->outputs; i++) {
        y[i] = outputs[i].buf;
    }
    if (plan->pool != NULL && plan->process != getpid()) {
        return -1;
    }
    kc_place *place = take_place(caller, plan->arena);
    if (place == NULL) {
        (void)PyErr_NoMemory();
        return -1;
    }
    void *waiting = plan->alone ? NULL : PyEval_SaveThread();
    int failed = (plan->brief ? kc_run_brief : kc_run)(x, y, caller->weights, (char *)place + ALIGNMENT, plan->symbols,
                                                       plan->pool);
    if (!plan->alone) {
        PyEval_RestoreThread(waiting);
    }
    give_place(caller, place);
    return failed;
}

static PyObject *none(void)
{
    Py_IncRef(&_Py_NoneStruct);
    return &_Py_NoneStruct;
}

/* `failed` says that there is no result: an exception, or None. */
static PyObject *result(int failed, PyObject *made)
{
    if (!failed) {
        return made;
    }
    return PyErr_Occurred() != NULL ? NULL : none();
}

static PyObject *named(kc_caller *caller, PyObject *const *results)
{
    PyObject *outputs = PyDict_New();
    for (int32_t i = 0; outputs != NULL && i < caller->outputs; i++) {
        if (PyDict_SetItem(outputs, PyTuple_GetItem(caller->gives, i), results[i]) != 0) {
            Py_DecRef(outputs);
            outputs = NULL;
        }
    }
    return outputs;
}

/* run(feeds): the outputs by name. */
static PyObject *run(PyObject *self, PyObject *const *arguments, Py_ssize_t count)
{
    kc_caller *caller = PyCapsule_GetPointer(self, CAPSULE);
    PyObject *arrays[MOST_ARRAYS], *results[MOST_ARRAYS];
    Py_buffer inputs[MOST_ARRAYS], outputs[MOST_ARRAYS];
    if (count != 1 || !has_type(arguments[0], caller->dict) || PyDict_Size(arguments[0]) != caller->inputs) {
        return none();
    }
    for (int32_t i = 0; i < caller->inputs; i++) {
        arrays[i] = PyDict_GetItemWithError(arguments[0], PyTuple_GetItem(caller->takes, i));
        if (arrays[i] == NULL) {
            return result(1, NULL);
        }
    }
    kc_plan *plan = open_inputs(caller, arrays, inputs);
    if (plan == NULL) {
        return none();
    }
    int failed = make_outputs(caller, plan, results, outputs);
    PyObject *made = NULL;
    if (!failed) {
        failed = compute(caller, plan, inputs, outputs);
        release(outputs, caller->outputs);
        made = failed ? NULL : named(caller, results);
        for (int32_t i = 0; i < caller->outputs; i++) {
            Py_DecRef(results[i]);
        }
    }
    release(inputs, caller->inputs);
    return result(failed, made);
}

/* predict(x, most_rows, out): the one output, in `out` unless that is None. */
static PyObject *predict(PyObject *self, PyObject *const *arguments, Py_ssize_t count)
{
    kc_caller *caller = PyCapsule_GetPointer(self, CAPSULE);
    PyObject *made = NULL;
    Py_buffer input, output;
    if (count != 3 || caller->inputs != 1 || caller->outputs != 1) {
        return none();
    }
    Py_ssize_t most = PyLong_AsSsize_t(arguments[1]);
    if (most < 1) {
        PyErr_Clear();
        return none();
    }
    kc_plan *plan = open_inputs(caller, arguments, &input);
    if (plan == NULL) {
        return none();
    }
    int failed = plan->rows > most;
    if (!failed && arguments[2] == &_Py_NoneStruct) {
        failed = make_outputs(caller, plan, &made, &output);
    } else if (!failed) {
        failed = open_output(caller, plan, arguments[2], &input, &output);
        made = arguments[2];
        Py_IncRef(made);
    }
    if (!failed) {
        failed = compute(caller, plan, &input, &output);
        PyBuffer_Release(&output);
    }
    release(&input, 1);
    if (failed && made != NULL) {
        Py_DecRef(made);
    }
    return result(failed, made);
}

/* ---- what Python tells */

static kc_plan *new_plan(kc_caller *caller, const int64_t *numbers, size_t bytes, const char *formats)
{
    kc_plan *plan = calloc(1, sizeof *plan);
    int64_t *copy = malloc(bytes);
    if (plan == NULL || copy == NULL) {
        free(plan);
        free(copy);
        (void)PyErr_NoMemory();
        return NULL;
    }
    memcpy(copy, numbers, bytes);
    memcpy(plan->formats, formats, (size_t)(caller->inputs + caller->outputs));
    plan->numbers = copy;
    plan->arena = (size_t)copy[0];
    plan->alone = copy[1] != 0;
    plan->rows = (Py_ssize_t)copy[2];
    plan->pool = (kc_pool *)(intptr_t)copy[3];
    plan->brief = copy[4] != 0;
    plan->process = getpid();
    plan->symbols = copy + 6;
    plan->shapes = plan->symbols + copy[5];
    return plan;
}

/* learn(numbers, formats, results): how to call for one choice of shapes.

   `numbers`, bytes of int64: the arena's size, whether other Python threads wait meanwhile, the rows of the batch, the
   pool's address, whether it has to be awake, how many symbols there are, their values, and for each input and output its
   rank and extents. `formats`, bytes: one character for each. `results`: for each output the arguments of numpy.empty. */
static PyObject *learn(PyObject *self, PyObject *const *arguments, Py_ssize_t count)
{
    kc_caller *caller = PyCapsule_GetPointer(self, CAPSULE);
    char *numbers, *formats;
    Py_ssize_t bytes, characters;
    if (count != 3 || PyBytes_AsStringAndSize(arguments[0], &numbers, &bytes) != 0 ||
        PyBytes_AsStringAndSize(arguments[1], &formats, &characters) != 0) {
        return result(1, NULL);
    }
    if (characters != caller->inputs + caller->outputs ||
        __atomic_fetch_add(&caller->count, 1, __ATOMIC_RELAXED) >= MOST_PLANS) {
        return none();
    }
    kc_plan *plan = new_plan(caller, (const int64_t *)(void *)numbers, (size_t)bytes, formats);
    if (plan == NULL) {
        return NULL;
    }
    plan->results = arguments[2];
    Py_IncRef(plan->results);
    plan->next = __atomic_load_n(&caller->plans, __ATOMIC_ACQUIRE);
    while (!__atomic_compare_exchange_n(&caller->plans, &plan->next, plan, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
    }
    return none();
}

static PyMethodDef methods[] = {
    {"run", run, METH_FASTCALL, NULL},
    {"predict", predict, METH_FASTCALL, NULL},
    {"learn", learn, METH_FASTCALL, NULL},
};
#define METHODS (sizeof methods / sizeof *methods)

static PyObject *held(PyObject *settings, Py_ssize_t i)
{
    PyObject *item = PyTuple_GetItem(settings, i);
    Py_IncRef(item);
    return item;
}

static PyObject *bound(PyObject *capsule)
{
    PyObject *functions = PyTuple_New(METHODS);
    for (size_t i = 0; functions != NULL && i < METHODS; i++) {
        PyObject *function = PyCFunction_NewEx(&methods[i], capsule, NULL);
        if (function == NULL || PyTuple_SetItem(functions, (Py_ssize_t)i, function) != 0) {
            Py_DecRef(functions);
            functions = NULL;
        }
    }
    return functions;
}

/* Called by the runtime, which knows it by name alone. */
PyObject *kc_python(PyObject *settings);

/* The functions run, predict and learn for a session. `settings` is a tuple: the version, the weights' address and
   owner, the names of inputs and of outputs as tuples, numpy.ndarray, numpy.empty and dict. None where the version is
   another or the session has too many arrays, null without an exception in a process whose Python cannot be seen from
   here. */
PyObject *kc_python(PyObject *settings)
{
    if (&PyCFunction_NewEx == NULL || &_Py_NoneStruct == NULL) {
        return NULL;
    }
    if (PyLong_AsSsize_t(PyTuple_GetItem(settings, 0)) != VERSION) {
        return none();
    }
    kc_caller *caller = calloc(1, sizeof *caller);
    if (caller == NULL) {
        return PyErr_NoMemory();
    }
    caller->weights = PyLong_AsVoidPtr(PyTuple_GetItem(settings, 1));
    PyObject **fields[] = {&caller->owner, &caller->takes, &caller->gives,
                           &caller->array, &caller->empty, &caller->dict};
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        *fields[i] = held(settings, (Py_ssize_t)i + 2);
    }
    PyObject *capsule = PyCapsule_New(caller, CAPSULE, forget);
    if (capsule == NULL) {
        return NULL;
    }
    Py_ssize_t inputs = PyTuple_Size(caller->takes), outputs = PyTuple_Size(caller->gives);
    PyObject *functions = NULL;
    if (inputs < 0 || outputs < 0 || inputs + outputs > MOST_ARRAYS) {
        functions = none();
    } else {
        caller->inputs = (int32_t)inputs;
        caller->outputs = (int32_t)outputs;
        functions = bound(capsule);
    }
    Py_DecRef(capsule);
    return functions;
}
