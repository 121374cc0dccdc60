/* What a group adds to the log: leaf hashes, the peaks of the Merkle tree, rows for COPY.
 *
 * Twins: `leaf_hash` and `append_all` of domain/proof.py, `copy_buffer` of backend/copying.py.
 */
#include "native.h"
#include <string.h>

enum { HEAD_BYTES = 41, KEY_BYTES = 16 };

static unsigned char *big_endian(unsigned char *at, uint64_t value, int width) {
    for (int place = width - 1; place >= 0; place--, value >>= 8)
        at[place] = (unsigned char)value;
    return at + width;
}

/* What is hashed of one event; LEFT where it is not of the usual form. */
static int put_leaf(Buffer *buffer, const unsigned char *tenant, int64_t seq, int64_t recorded_at,
                    PyObject *topic, PyObject *key, PyObject *state) {
    Py_ssize_t name_size;
    const char *name = utf8_of(topic, &name_size);
    if (name == NULL || !PyBytes_CheckExact(state) || !(key == Py_None || PyBytes_CheckExact(key)))
        return LEFT;
    size_t key_size = key == Py_None ? 0 : (size_t)PyBytes_GET_SIZE(key);
    size_t size = (size_t)PyBytes_GET_SIZE(state);
    if (key_size > UINT8_MAX || (size_t)name_size > UINT16_MAX || size > UINT32_MAX)
        return LEFT;
    buffer->size = 0;
    unsigned char *at = buffer_grow(buffer, HEAD_BYTES + key_size + (size_t)name_size + size);
    if (at == NULL)
        return FAILED;
    unsigned char *start = at;
    *at++ = 0; /* a leaf */
    *at++ = 1; /* the version of the envelope */
    memcpy(at, tenant, TENANT_BYTES);
    at = big_endian(at + TENANT_BYTES, (uint64_t)seq, 8);
    at = big_endian(at, (uint64_t)recorded_at, 8);
    at = big_endian(at, key_size, 1);
    at = big_endian(at, (uint64_t)name_size, 2);
    at = big_endian(at, size, 4);
    if (key_size)
        memcpy(at, PyBytes_AS_STRING(key), key_size);
    memcpy(at + key_size, name, (size_t)name_size);
    memcpy(at + key_size + (size_t)name_size, PyBytes_AS_STRING(state), size);
    buffer->size = (size_t)(at - start) + key_size + (size_t)name_size + size;
    return DONE;
}

/* leaves(tenant, size, topics, recorded_at, keys, states) -> list[bytes] | None */
PyObject *native_leaves(PyObject *self, PyObject *const *given, Py_ssize_t count) {
    (void)self;
    int64_t seq, recorded_at;
    if (check_arguments("bilill", given, count) != DONE)
        return NULL;
    PyObject *tenant = given[0], *topics = given[2], *keys = given[4], *states = given[5];
    Py_ssize_t size = PyList_GET_SIZE(states);
    if (PyBytes_GET_SIZE(tenant) != TENANT_BYTES || !int_of(given[1], &seq) || !int_of(given[3], &recorded_at) ||
        PyList_GET_SIZE(topics) != size || PyList_GET_SIZE(keys) != size || seq > INT64_MAX - size)
        Py_RETURN_NONE;
    PyObject *leaves = PyList_New(size);
    Buffer buffer = {0};
    int done = leaves == NULL ? FAILED : DONE;
    for (Py_ssize_t place = 0; done == DONE && place < size; place++) {
        unsigned char digest[HASH_BYTES];
        if (PyList_GET_SIZE(topics) != size || PyList_GET_SIZE(keys) != size || PyList_GET_SIZE(states) != size) {
            done = LEFT; /* somebody changed them under our hands */
            break;
        }
        done = put_leaf(&buffer, (const unsigned char *)PyBytes_AS_STRING(tenant), seq + place + 1, recorded_at,
                        PyList_GET_ITEM(topics, place), PyList_GET_ITEM(keys, place),
                        PyList_GET_ITEM(states, place));
        if (done == DONE)
            done = sha256(buffer.data, buffer.size, digest);
        PyObject *leaf = done == DONE ? PyBytes_FromStringAndSize((char *)digest, HASH_BYTES) : NULL;
        if (leaf != NULL)
            PyList_SET_ITEM(leaves, place, leaf);
        else if (done == DONE)
            done = FAILED;
    }
    buffer_free(&buffer);
    if (done == DONE)
        return leaves;
    Py_XDECREF(leaves);
    if (done == LEFT)
        Py_RETURN_NONE;
    return NULL;
}

static int is_hash(PyObject *object) {
    return PyBytes_CheckExact(object) && PyBytes_GET_SIZE(object) == HASH_BYTES;
}

/* Level by level, from the leaves up. `level` has room for one more hash than `count`; `grown` gets the
 * new peaks, the smallest first; of the `old` peaks, `left` stay. */
static int grow_peaks(unsigned char *level, size_t count, uint64_t size, const unsigned char *old,
                      size_t *left, unsigned char *grown, size_t *made) {
    unsigned char node[1 + 2 * HASH_BYTES] = {1};
    for (int place = 0; count > 0; place++) {
        if (place < 64 && size >> place & 1) {
            if (*left == 0)
                return LEFT;
            memmove(level + HASH_BYTES, level, count * HASH_BYTES);
            memcpy(level, old + --*left * HASH_BYTES, HASH_BYTES);
            count++;
        }
        if (count & 1)
            memcpy(grown + (*made)++ * HASH_BYTES, level + (count - 1) * HASH_BYTES, HASH_BYTES);
        count /= 2;
        for (size_t pair = 0; pair < count; pair++) {
            memcpy(node + 1, level + 2 * pair * HASH_BYTES, 2 * HASH_BYTES);
            if (sha256(node, sizeof node, level + pair * HASH_BYTES) != DONE)
                return FAILED;
        }
    }
    return DONE;
}

enum { PEAKS_MAX = 128 };

/* append_peaks(peaks, size, leaves) -> bool: the peaks are changed in place; False: nothing was done. */
PyObject *native_append_peaks(PyObject *self, PyObject *const *given, Py_ssize_t count) {
    (void)self;
    int64_t size;
    if (check_arguments("lil", given, count) != DONE)
        return NULL;
    PyObject *peaks = given[0], *leaves = given[2];
    Py_ssize_t held = PyList_GET_SIZE(peaks), added = PyList_GET_SIZE(leaves);
    unsigned char old[PEAKS_MAX * HASH_BYTES], grown[PEAKS_MAX * HASH_BYTES];
    if (!int_of(given[1], &size) || size < 0 || held > 64)
        Py_RETURN_FALSE;
    for (Py_ssize_t place = 0; place < held; place++) {
        if (!is_hash(PyList_GET_ITEM(peaks, place)))
            Py_RETURN_FALSE;
        memcpy(old + place * HASH_BYTES, PyBytes_AS_STRING(PyList_GET_ITEM(peaks, place)), HASH_BYTES);
    }
    unsigned char *level = PyMem_Malloc(((size_t)added + 1) * HASH_BYTES);
    if (level == NULL)
        return PyErr_NoMemory();
    int done = DONE;
    for (Py_ssize_t place = 0; done == DONE && place < added; place++) {
        PyObject *leaf = PyList_GET_ITEM(leaves, place);
        if (is_hash(leaf))
            memcpy(level + place * HASH_BYTES, PyBytes_AS_STRING(leaf), HASH_BYTES);
        else
            done = LEFT;
    }
    size_t left = (size_t)held, made = 0;
    if (done == DONE)
        done = grow_peaks(level, (size_t)added, (uint64_t)size, old, &left, grown, &made);
    PyMem_Free(level);
    if (done != DONE) {
        if (done == LEFT)
            Py_RETURN_FALSE;
        return NULL;
    }
    PyObject *fresh = PyList_New((Py_ssize_t)made);
    for (size_t place = 0; fresh != NULL && place < made; place++) {
        const unsigned char *peak = grown + (made - 1 - place) * HASH_BYTES;
        PyObject *hash = PyBytes_FromStringAndSize((const char *)peak, HASH_BYTES);
        if (hash == NULL)
            Py_CLEAR(fresh);
        else
            PyList_SET_ITEM(fresh, (Py_ssize_t)place, hash);
    }
    if (fresh == NULL)
        return NULL;
    done = PyList_SetSlice(peaks, (Py_ssize_t)left, held, fresh);
    Py_DECREF(fresh);
    if (done != 0)
        return NULL;
    Py_RETURN_TRUE;
}

/* One row: six columns, each after its length. */
static int put_row(Buffer *buffer, int64_t seq, PyObject *topic, PyObject *state, int64_t at, PyObject *key,
                   PyObject *leaf) {
    Py_ssize_t name_size;
    const char *name = utf8_of(topic, &name_size);
    if (name == NULL || !PyBytes_CheckExact(state) || !is_hash(leaf))
        return LEFT;
    if (key != Py_None && !(PyBytes_CheckExact(key) && PyBytes_GET_SIZE(key) == KEY_BYTES))
        return LEFT;
    size_t size = (size_t)PyBytes_GET_SIZE(state);
    if (size > INT32_MAX || name_size > INT32_MAX)
        return LEFT;
    unsigned char *begin = buffer_grow(buffer, 14 + 4 + (size_t)name_size + 4 + size + 12 + 4 + KEY_BYTES + 4 + HASH_BYTES);
    if (begin == NULL)
        return FAILED;
    unsigned char *row = big_endian(begin, 6, 2);
    row = big_endian(row, 8, 4);
    row = big_endian(row, (uint64_t)seq, 8);
    row = big_endian(row, (uint64_t)name_size, 4);
    memcpy(row, name, (size_t)name_size);
    row = big_endian(row + name_size, size, 4);
    memcpy(row, PyBytes_AS_STRING(state), size);
    row = big_endian(row + size, 8, 4);
    row = big_endian(row, (uint64_t)at, 8);
    if (key == Py_None) {
        row = big_endian(row, UINT32_MAX, 4); /* NULL */
    } else {
        row = big_endian(row, KEY_BYTES, 4);
        memcpy(row, PyBytes_AS_STRING(key), KEY_BYTES);
        row += KEY_BYTES;
    }
    row = big_endian(row, HASH_BYTES, 4);
    memcpy(row, PyBytes_AS_STRING(leaf), HASH_BYTES);
    buffer->size += (size_t)(row + HASH_BYTES - begin);
    return DONE;
}

/* copy_rows(header, trailer, seen, at, topics, states, keys, leaves) -> bytes | None */
PyObject *native_copy_rows(PyObject *self, PyObject *const *given, Py_ssize_t count) {
    (void)self;
    int64_t seen, at;
    if (check_arguments("bbiillll", given, count) != DONE)
        return NULL;
    PyObject *topics = given[4], *states = given[5], *keys = given[6], *leaves = given[7];
    Py_ssize_t size = PyList_GET_SIZE(states);
    if (!int_of(given[2], &seen) || !int_of(given[3], &at) || PyList_GET_SIZE(topics) != size ||
        PyList_GET_SIZE(keys) != size || PyList_GET_SIZE(leaves) != size || seen > INT64_MAX - size)
        Py_RETURN_NONE;
    Buffer buffer = {0};
    int done = buffer_put(&buffer, PyBytes_AS_STRING(given[0]), (size_t)PyBytes_GET_SIZE(given[0]));
    for (Py_ssize_t place = 0; done == DONE && place < size; place++)
        done = put_row(&buffer, seen + place + 1, PyList_GET_ITEM(topics, place), PyList_GET_ITEM(states, place),
                       at, PyList_GET_ITEM(keys, place), PyList_GET_ITEM(leaves, place));
    if (done == DONE)
        done = buffer_put(&buffer, PyBytes_AS_STRING(given[1]), (size_t)PyBytes_GET_SIZE(given[1]));
    PyObject *rows = done == DONE ? PyBytes_FromStringAndSize((char *)buffer.data, (Py_ssize_t)buffer.size) : NULL;
    buffer_free(&buffer);
    if (done == LEFT)
        Py_RETURN_NONE;
    return rows;
}
