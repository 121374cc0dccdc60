/* What a group adds to the log: leaf hashes, the peaks of the Merkle tree, rows for COPY.
 *
 * Twins: `leaf_hash` and `append_all` of domain/proof.py, `copy_buffer` of backend/copying.py.
 */
#include "native.h"
#include <string.h>

enum { HEAD_BYTES = 41 };

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

/* What a row is made of, and how much room it takes; LEFT where it is not of the usual form. */
typedef struct {
    const char *name;
    size_t name_size, state_size;
    PyObject *state, *key, *leaf;
} LogRow;

enum { ROW_BYTES = 2 + 4 + 8 + 4 + 4 + 4 + 8 + 4 + 4 + HASH_BYTES };

static int row_read(LogRow *row, PyObject *topic, PyObject *state, PyObject *key, PyObject *leaf) {
    Py_ssize_t name_size;
    row->name = utf8_of(topic, &name_size);
    if (row->name == NULL || !PyBytes_CheckExact(state) || !is_hash(leaf))
        return LEFT;
    if (key != Py_None && !(PyBytes_CheckExact(key) && PyBytes_GET_SIZE(key) == KEY_BYTES))
        return LEFT;
    row->name_size = (size_t)name_size, row->state_size = (size_t)PyBytes_GET_SIZE(state);
    row->state = state, row->key = key, row->leaf = leaf;
    return row->state_size > INT32_MAX || row->name_size > INT32_MAX ? LEFT : DONE;
}

static size_t row_room(const LogRow *row) {
    return ROW_BYTES + row->name_size + row->state_size + (row->key == Py_None ? 0 : KEY_BYTES);
}

/* One row: six columns, each after its length. */
static unsigned char *put_row(unsigned char *at, const LogRow *row, int64_t seq, int64_t recorded_at) {
    at = big_endian(at, 6, 2);
    at = big_endian(at, 8, 4);
    at = big_endian(at, (uint64_t)seq, 8);
    at = big_endian(at, row->name_size, 4);
    memcpy(at, row->name, row->name_size);
    at = big_endian(at + row->name_size, row->state_size, 4);
    memcpy(at, PyBytes_AS_STRING(row->state), row->state_size);
    at = big_endian(at + row->state_size, 8, 4);
    at = big_endian(at, (uint64_t)recorded_at, 8);
    if (row->key == Py_None) {
        at = big_endian(at, UINT32_MAX, 4); /* NULL */
    } else {
        at = big_endian(at, KEY_BYTES, 4);
        memcpy(at, PyBytes_AS_STRING(row->key), KEY_BYTES);
        at += KEY_BYTES;
    }
    at = big_endian(at, HASH_BYTES, 4);
    memcpy(at, PyBytes_AS_STRING(row->leaf), HASH_BYTES);
    return at + HASH_BYTES;
}

typedef struct {
    PyObject *topics, *states, *keys, *leaves;
} Columns;

static int row_at(LogRow *row, const Columns *of, Py_ssize_t place) {
    return row_read(row, PyList_GET_ITEM(of->topics, place), PyList_GET_ITEM(of->states, place),
                    PyList_GET_ITEM(of->keys, place), PyList_GET_ITEM(of->leaves, place));
}

/* The room that all rows take together; nothing of Python's own runs between this and writing them. */
static int rows_room(const Columns *of, Py_ssize_t size, size_t *room) {
    LogRow row;
    int done = DONE;
    for (Py_ssize_t place = 0; done == DONE && place < size; place++) {
        done = row_at(&row, of, place);
        if (done == DONE)
            *room += row_room(&row);
    }
    return *room > (size_t)PY_SSIZE_T_MAX / 2 ? LEFT : done;
}

/* copy_rows(header, trailer, seen, at, topics, states, keys, leaves) -> bytes | None */
PyObject *native_copy_rows(PyObject *self, PyObject *const *given, Py_ssize_t count) {
    (void)self;
    int64_t seen, recorded_at;
    if (check_arguments("bbiillll", given, count) != DONE)
        return NULL;
    Columns of = {given[4], given[5], given[6], given[7]};
    Py_ssize_t size = PyList_GET_SIZE(of.states);
    if (!int_of(given[2], &seen) || !int_of(given[3], &recorded_at) || PyList_GET_SIZE(of.topics) != size ||
        PyList_GET_SIZE(of.keys) != size || PyList_GET_SIZE(of.leaves) != size || seen > INT64_MAX - size)
        Py_RETURN_NONE;
    size_t head = (size_t)PyBytes_GET_SIZE(given[0]), tail = (size_t)PyBytes_GET_SIZE(given[1]), room = head + tail;
    if (rows_room(&of, size, &room) != DONE)
        Py_RETURN_NONE;
    PyObject *rows = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)room);
    if (rows == NULL)
        return NULL;
    unsigned char *at = (unsigned char *)PyBytes_AS_STRING(rows);
    memcpy(at, PyBytes_AS_STRING(given[0]), head);
    at += head;
    LogRow row;
    for (Py_ssize_t place = 0; place < size; place++) {
        row_at(&row, &of, place);
        at = put_row(at, &row, seen + place + 1, recorded_at);
    }
    memcpy(at, PyBytes_AS_STRING(given[1]), tail);
    return rows;
}
