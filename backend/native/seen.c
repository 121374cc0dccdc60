/* What was seen: keys that are held, and the Bloom filter of all others.
 *
 * Twins: `SeenKeys.add_all`, `SeenKeys.gather`, `_Filter.add_all` and `_Filter.may_hold` of backend/seen.py.
 */
#include "native.h"
#include <string.h>

enum { DAY_BYTES = 2, KEY_BYTES = 16, IDENTITY_BYTES = 14, PROBES = 4 };

static int are_keys(PyObject *keys, PyObject *digests) {
    int are = PyTuple_GET_SIZE(keys) == PyTuple_GET_SIZE(digests);
    for (Py_ssize_t place = 0; are && place < PyTuple_GET_SIZE(keys); place++) {
        PyObject *key = PyTuple_GET_ITEM(keys, place);
        are = PyBytes_CheckExact(key) && PyBytes_GET_SIZE(key) == KEY_BYTES &&
              PyBytes_CheckExact(PyTuple_GET_ITEM(digests, place));
    }
    return are;
}

static PyObject *hold_all(PyObject *const *given, PyObject *keys, PyObject *digests) {
    Py_ssize_t size = PyTuple_GET_SIZE(keys), status = PyBytes_GET_SIZE(given[4]);
    PyObject *hashes = PyList_New(size);
    char last[DAY_BYTES] = {0};
    for (Py_ssize_t place = 0; hashes != NULL && place < size; place++) {
        const char *key = PyBytes_AS_STRING(PyTuple_GET_ITEM(keys, place));
        PyObject *digest = PyTuple_GET_ITEM(digests, place);
        Py_ssize_t more = PyBytes_GET_SIZE(digest);
        PyObject *hash = PyBytes_FromStringAndSize(key + DAY_BYTES, IDENTITY_BYTES);
        PyObject *value = PyBytes_FromStringAndSize(NULL, DAY_BYTES + more + status);
        int failed = hash == NULL || value == NULL;
        if (!failed) {
            char *at = PyBytes_AS_STRING(value);
            memcpy(at, key, DAY_BYTES);
            memcpy(at + DAY_BYTES, PyBytes_AS_STRING(digest), (size_t)more);
            memcpy(at + DAY_BYTES + more, PyBytes_AS_STRING(given[4]), (size_t)status);
            failed = PyDict_SetItem(given[0], hash, value) != 0;
        }
        if (!failed && (place == 0 || memcmp(last, key, DAY_BYTES) != 0)) {
            PyObject *day = PyBytes_FromStringAndSize(key, DAY_BYTES);
            failed = day == NULL || PyDict_SetItem(given[1], day, Py_None) != 0;
            Py_XDECREF(day);
            memcpy(last, key, DAY_BYTES);
        }
        Py_XDECREF(value);
        if (failed) {
            Py_XDECREF(hash);
            Py_CLEAR(hashes);
        } else {
            PyList_SET_ITEM(hashes, place, hash);
        }
    }
    return hashes;
}

/* hold(young, days, keys, digests, status) -> list[bytes] | None: their hashes, in order. */
PyObject *native_hold(PyObject *self, PyObject *const *given, Py_ssize_t count) {
    (void)self;
    if (check_arguments("ddllb", given, count) != DONE)
        return NULL;
    /* Copies, for a dictionary compares keys, which may run Python code that changes the lists. */
    PyObject *keys = PyList_AsTuple(given[2]), *digests = keys != NULL ? PyList_AsTuple(given[3]) : NULL;
    PyObject *hashes = NULL;
    if (digests != NULL)
        hashes = are_keys(keys, digests) ? hold_all(given, keys, digests) : Py_NewRef(Py_None);
    Py_XDECREF(keys);
    Py_XDECREF(digests);
    return hashes;
}

static int hold_one(PyObject *young, const char *key, const char *digest, Py_ssize_t width, PyObject *status) {
    Py_ssize_t more = PyBytes_GET_SIZE(status);
    PyObject *hash = PyBytes_FromStringAndSize(key + DAY_BYTES, IDENTITY_BYTES);
    PyObject *value = hash != NULL ? PyBytes_FromStringAndSize(NULL, DAY_BYTES + width + more) : NULL;
    int done = FAILED;
    if (value != NULL) {
        char *at = PyBytes_AS_STRING(value);
        memcpy(at, key, DAY_BYTES);
        memcpy(at + DAY_BYTES, digest, (size_t)width);
        memcpy(at + DAY_BYTES + width, PyBytes_AS_STRING(status), (size_t)more);
        done = PyDict_SetItem(young, hash, value);
    }
    Py_XDECREF(hash);
    Py_XDECREF(value);
    return done;
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

static int is_filter(PyObject *bits, int64_t size_bits) {
    return PyByteArray_CheckExact(bits) && size_bits >= 3 && size_bits <= 32 &&
           PyByteArray_GET_SIZE(bits) == (Py_ssize_t)1 << (size_bits - 3);
}

/* A filter and the hashes asked about: LEFT where they are not of the usual form. */
static int filter_of(PyObject *const *given, int64_t *mask) {
    int64_t size_bits;
    if (!int_of(given[1], &size_bits) || !is_filter(given[0], size_bits))
        return LEFT;
    for (Py_ssize_t place = 0; place < PyList_GET_SIZE(given[2]); place++) {
        PyObject *hash = PyList_GET_ITEM(given[2], place);
        if (!PyBytes_CheckExact(hash) || PyBytes_GET_SIZE(hash) != IDENTITY_BYTES)
            return LEFT;
    }
    *mask = ((int64_t)1 << size_bits) - 1;
    return DONE;
}

/* The bits of a hash begin at its first eight bytes, and go on in steps of its last four. */
static void bits_of(const void *hash, uint64_t *first, uint64_t *step) {
    const unsigned char *bytes = hash;
    uint64_t low = 0, high = 0;
    for (int place = 0; place < 8; place++)
        high = high << 8 | bytes[place];
    for (int place = 10; place < IDENTITY_BYTES; place++)
        low = low << 8 | bytes[place];
    *first = high;
    *step = low;
}

static int all_set(const unsigned char *bits, uint64_t mask, uint64_t at, uint64_t step) {
    for (int probe = 0; probe < PROBES; probe++, at += step)
        if (!(bits[(at & mask) >> 3] >> (at & 7) & 1))
            return 0;
    return 1;
}

/* enter(bits, size_bits, hashes) -> bool: False: nothing was done. */
PyObject *native_enter(PyObject *self, PyObject *const *given, Py_ssize_t count) {
    (void)self;
    int64_t mask;
    if (check_arguments("oil", given, count) != DONE)
        return NULL;
    if (filter_of(given, &mask) != DONE)
        Py_RETURN_FALSE;
    unsigned char *bits = (unsigned char *)PyByteArray_AS_STRING(given[0]);
    for (Py_ssize_t place = 0; place < PyList_GET_SIZE(given[2]); place++) {
        uint64_t at, step;
        bits_of(PyBytes_AS_STRING(PyList_GET_ITEM(given[2], place)), &at, &step);
        for (int probe = 0; probe < PROBES; probe++, at += step)
            bits[(at & (uint64_t)mask) >> 3] |= (unsigned char)(1 << (at & 7));
    }
    Py_RETURN_TRUE;
}

enum { AHEAD = 16 }; /* keys whose bits are sent for while others are set: a filter does not fit into a cache */

static void enter_key(unsigned char *bits, uint64_t mask, const char *key, int only_send_for) {
    uint64_t at, step;
    bits_of(key + DAY_BYTES, &at, &step);
    for (int probe = 0; probe < PROBES; probe++, at += step) {
        if (!only_send_for)
            bits[(at & mask) >> 3] |= (unsigned char)(1 << (at & 7));
#if defined(__GNUC__)
        else
            __builtin_prefetch(&bits[(at & mask) >> 3], 1);
#endif
    }
}

/* enter_gathered(bits, size_bits, keys, first, last) -> bool
 *
 * Those from a first to a last of keys that stand one after the other. False: nothing was done. */
PyObject *native_enter_gathered(PyObject *self, PyObject *const *given, Py_ssize_t count) {
    (void)self;
    int64_t size_bits, first, last;
    if (check_arguments("oibii", given, count) != DONE)
        return NULL;
    if (!int_of(given[1], &size_bits) || !int_of(given[3], &first) || !int_of(given[4], &last) ||
        !is_filter(given[0], size_bits) || first < 0 || first > last || last > PyBytes_GET_SIZE(given[2]) / KEY_BYTES)
        Py_RETURN_FALSE;
    unsigned char *bits = (unsigned char *)PyByteArray_AS_STRING(given[0]);
    uint64_t mask = ((uint64_t)1 << size_bits) - 1;
    const char *keys = PyBytes_AS_STRING(given[2]);
    for (int64_t place = first; place < last; place++) {
        if (place + AHEAD < last)
            enter_key(bits, mask, keys + (place + AHEAD) * KEY_BYTES, 1);
        enter_key(bits, mask, keys + place * KEY_BYTES, 0);
    }
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

/* may_hold(bits, size_bits, hashes) -> list[bytes] | None */
PyObject *native_may_hold(PyObject *self, PyObject *const *given, Py_ssize_t count) {
    (void)self;
    int64_t mask;
    if (check_arguments("oil", given, count) != DONE)
        return NULL;
    PyObject *found = PyList_New(0); /* first: a new list may have garbage collected, which may run Python code */
    if (found == NULL)
        return NULL;
    if (filter_of(given, &mask) != DONE) {
        Py_DECREF(found);
        Py_RETURN_NONE;
    }
    const unsigned char *bits = (const unsigned char *)PyByteArray_AS_STRING(given[0]);
    for (Py_ssize_t place = 0; found != NULL && place < PyList_GET_SIZE(given[2]); place++) {
        PyObject *hash = PyList_GET_ITEM(given[2], place);
        uint64_t at, step;
        bits_of(PyBytes_AS_STRING(hash), &at, &step);
        if (all_set(bits, (uint64_t)mask, at, step) && PyList_Append(found, hash) != 0)
            Py_CLEAR(found);
    }
    return found;
}
