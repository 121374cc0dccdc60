/* What was seen: keys that are held.
 *
 * Twins: `SeenKeys.add_all` and `SeenKeys.gather` of backend/seen.py.
 */
#include "native.h"
#include <string.h>

static int are_keys(PyObject *keys, PyObject *digests) {
    int are = PyTuple_GET_SIZE(keys) == PyTuple_GET_SIZE(digests);
    for (Py_ssize_t place = 0; are && place < PyTuple_GET_SIZE(keys); place++) {
        PyObject *key = PyTuple_GET_ITEM(keys, place);
        are = PyBytes_CheckExact(key) && PyBytes_GET_SIZE(key) == KEY_BYTES &&
              PyBytes_CheckExact(PyTuple_GET_ITEM(digests, place));
    }
    return are;
}

static int hold_one(PyObject *young, const char *key, const char *digest, Py_ssize_t width, PyObject *status) {
    Py_ssize_t more = PyBytes_GET_SIZE(status);
    PyObject *hash = PyBytes_FromStringAndSize(key + TIME_BYTES, IDENTITY_BYTES);
    PyObject *value = hash != NULL ? PyBytes_FromStringAndSize(NULL, TIME_BYTES + width + more) : NULL;
    int done = FAILED;
    if (value != NULL) {
        char *at = PyBytes_AS_STRING(value);
        memcpy(at, key, TIME_BYTES);
        memcpy(at + TIME_BYTES, digest, (size_t)width);
        memcpy(at + TIME_BYTES + width, PyBytes_AS_STRING(status), (size_t)more);
        done = PyDict_SetItem(young, hash, value);
    }
    Py_XDECREF(hash);
    Py_XDECREF(value);
    return done;
}

static int hold_all(PyObject *const *given, PyObject *keys, PyObject *digests) {
    Py_ssize_t size = PyTuple_GET_SIZE(keys);
    int done = DONE;
    char last[DAY_BYTES] = {0};
    for (Py_ssize_t place = 0; done == DONE && place < size; place++) {
        const char *key = PyBytes_AS_STRING(PyTuple_GET_ITEM(keys, place));
        PyObject *digest = PyTuple_GET_ITEM(digests, place);
        done = hold_one(given[0], key, PyBytes_AS_STRING(digest), PyBytes_GET_SIZE(digest), given[4]);
        if (done == DONE && (place == 0 || memcmp(last, key, DAY_BYTES) != 0)) {
            PyObject *day = PyBytes_FromStringAndSize(key, DAY_BYTES);
            done = day == NULL ? FAILED : PyDict_SetItem(given[1], day, Py_None);
            Py_XDECREF(day);
            memcpy(last, key, DAY_BYTES);
        }
    }
    return done;
}

/* hold(young, days, keys, digests, status) -> bool: False: nothing was done. */
PyObject *native_hold(PyObject *self, PyObject *const *given, Py_ssize_t count) {
    (void)self;
    if (check_arguments("ddllb", given, count) != DONE)
        return NULL;
    /* Copies, for a dictionary compares keys, which may run Python code that changes the lists. */
    PyObject *keys = PyList_AsTuple(given[2]), *digests = keys != NULL ? PyList_AsTuple(given[3]) : NULL;
    int done = FAILED;
    if (digests != NULL)
        done = are_keys(keys, digests) ? hold_all(given, keys, digests) : LEFT;
    Py_XDECREF(keys);
    Py_XDECREF(digests);
    return done == FAILED ? NULL : PyBool_FromLong(done == DONE);
}

/* hold_gathered(young, keys, digests, status) -> bool
 *
 * The same for keys that stand one after the other, as do their digests; False: nothing was done. */
PyObject *native_hold_gathered(PyObject *self, PyObject *const *given, Py_ssize_t count) {
    (void)self;
    if (check_arguments("dbbb", given, count) != DONE)
        return NULL;
    Py_ssize_t size = PyBytes_GET_SIZE(given[1]) / KEY_BYTES, width = size ? PyBytes_GET_SIZE(given[2]) / size : 0;
    if (size * KEY_BYTES != PyBytes_GET_SIZE(given[1]) || size * width != PyBytes_GET_SIZE(given[2]))
        Py_RETURN_FALSE;
    const char *key = PyBytes_AS_STRING(given[1]), *digest = PyBytes_AS_STRING(given[2]);
    for (Py_ssize_t place = 0; place < size; place++)
        if (hold_one(given[0], key + place * KEY_BYTES, digest + place * width, width, given[3]) != DONE)
            return NULL;
    Py_RETURN_TRUE;
}

/* days_of(keys) -> list[bytes]: the days of keys that stand one after the other, each as often as it changes. */
PyObject *native_days_of(PyObject *self, PyObject *const *given, Py_ssize_t count) {
    (void)self;
    if (check_arguments("b", given, count) != DONE)
        return NULL;
    PyObject *days = PyList_New(0);
    const char *last = NULL, *key = PyBytes_AS_STRING(given[0]), *end = key + PyBytes_GET_SIZE(given[0]);
    for (; days != NULL && end - key >= KEY_BYTES; key += KEY_BYTES) {
        if (last != NULL && memcmp(last, key, DAY_BYTES) == 0)
            continue;
        last = key;
        PyObject *day = PyBytes_FromStringAndSize(key, DAY_BYTES);
        if (day == NULL || PyList_Append(days, day) != 0)
            Py_CLEAR(days);
        Py_XDECREF(day);
    }
    return days;
}
