/* The table of keys that tells their moments.
 *
 * Twins: `KeyTable._add_all`, `KeyTable._dated` and `_occupied` of backend/key_table.py.
 */
#include "native.h"
#include <string.h>

enum { SHELF_BYTES = 64, SLOTS = 12, REST_BYTES = 2, ENTRY_BYTES = REST_BYTES + MOMENT_BYTES };
enum { SIZE_BITS_MAX = 24, FULL = -1 };
enum { AHEAD = 16 }; /* keys whose shelves are sent for while others are looked at: no table fits into a cache */

typedef struct {
    unsigned char *shelves;
    uint32_t mask; /* of places */
} Table;

/* LEFT where it is not of that size. */
static int table_of(PyObject *shelves, PyObject *bits, Table *table) {
    int64_t size_bits;
    if (!PyByteArray_CheckExact(shelves) || !int_of(bits, &size_bits) || size_bits < 0 || size_bits > SIZE_BITS_MAX ||
        PyByteArray_GET_SIZE(shelves) != (Py_ssize_t)SHELF_BYTES << size_bits)
        return LEFT;
    table->shelves = (unsigned char *)PyByteArray_AS_STRING(shelves);
    table->mask = ((uint32_t)1 << size_bits) - 1;
    return DONE;
}

/* A tag of 0 is that of nothing. */
static unsigned char tag_of(const unsigned char *identity) {
    return identity[0] != 0 ? identity[0] : 1;
}

/* It ends as its key does. */
static uint32_t place_of(const Table *table, const unsigned char *identity) {
    const unsigned char *end = identity + IDENTITY_BYTES - 4;
    uint32_t place = (uint32_t)end[0] << 24 | (uint32_t)end[1] << 16 | (uint32_t)end[2] << 8 | end[3];
    return place & table->mask;
}

static unsigned char *shelf_at(const Table *table, uint32_t place) {
    return table->shelves + (size_t)place * SHELF_BYTES;
}

static unsigned char *entry_at(unsigned char *shelf, int slot) {
    return shelf + SLOTS + slot * ENTRY_BYTES;
}

static void send_for_shelf(const Table *table, const void *identity) {
    send_for(shelf_at(table, place_of(table, identity)));
}

/* Eight bytes at once, the first of them lowest, whatever the machine. */
static uint64_t eight_of(const unsigned char *from) {
    uint64_t made;
    memcpy(&made, from, sizeof made);
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    made = __builtin_bswap64(made);
#endif
    return made;
}

/* The highest bit of each byte that is 0, none of any other. */
static uint64_t zeros_of(uint64_t bytes) {
    const uint64_t low = 0x7f7f7f7f7f7f7f7f;
    return ~(((bytes & low) + low) | bytes | low);
}

/* A bit for each slot with that tag; of the last twelve bytes read the first four were looked at before. */
static uint32_t slots_with(const unsigned char *shelf, unsigned char tag) {
    const uint64_t all = 0x0101010101010101 * tag;
    uint64_t first = zeros_of(eight_of(shelf) ^ all), last = zeros_of(eight_of(shelf + 4) ^ all);
    /* The bits of eight bytes are put next to each other. */
    uint32_t low = (uint32_t)((first >> 7) * 0x0102040810204080 >> 56);
    uint32_t high = (uint32_t)((last >> 7) * 0x0102040810204080 >> 56);
    return low | high << 4;
}

/* Of bits of which there is one at least. */
static int lowest_of(uint32_t bits) {
#if defined(__GNUC__)
    return __builtin_ctz(bits);
#else
    int lowest = 0;
    for (; !(bits & 1); bits >>= 1)
        lowest++;
    return lowest;
#endif
}

/* 1 where a slot was taken for it, 0 where it has one; FULL where there is none. */
static int enter_key(const Table *table, const char *key) {
    const unsigned char *identity = (const unsigned char *)key + TIME_BYTES;
    unsigned char tag = tag_of(identity), entry[ENTRY_BYTES];
    memcpy(entry, identity + 1, REST_BYTES);
    memcpy(entry + REST_BYTES, key + DAY_BYTES, MOMENT_BYTES);
    uint32_t place = place_of(table, identity);
    for (uint32_t looked = 0; looked <= table->mask; looked++, place = (place + 1) & table->mask) {
        unsigned char *shelf = shelf_at(table, place);
        uint32_t alike = slots_with(shelf, tag);
        for (; alike != 0; alike &= alike - 1)
            if (memcmp(entry_at(shelf, lowest_of(alike)), entry, ENTRY_BYTES) == 0)
                return 0;
        if (shelf[SLOTS - 1] != 0)
            continue;
        int slot = lowest_of(slots_with(shelf, 0));
        memcpy(entry_at(shelf, slot), entry, ENTRY_BYTES);
        shelf[slot] = tag;
        return 1;
    }
    return FULL;
}

static int are_all(PyObject *list, Py_ssize_t size) {
    for (Py_ssize_t place = 0; place < PyList_GET_SIZE(list); place++) {
        PyObject *one = PyList_GET_ITEM(list, place);
        if (!PyBytes_CheckExact(one) || PyBytes_GET_SIZE(one) != size)
            return 0;
    }
    return 1;
}

/* enter(shelves, size_bits, keys) -> int | None: how many slots were taken. None: Python does it, or says what is wrong. */
PyObject *native_enter(PyObject *self, PyObject *const *given, Py_ssize_t count) {
    (void)self;
    Table table;
    if (check_arguments("oil", given, count) != DONE)
        return NULL;
    if (table_of(given[0], given[1], &table) != DONE || !are_all(given[2], KEY_BYTES))
        Py_RETURN_NONE;
    Py_ssize_t size = PyList_GET_SIZE(given[2]), taken = 0;
    for (Py_ssize_t place = 0; place < size; place++) {
        if (place + AHEAD < size)
            send_for_shelf(&table, PyBytes_AS_STRING(PyList_GET_ITEM(given[2], place + AHEAD)) + TIME_BYTES);
        int done = enter_key(&table, PyBytes_AS_STRING(PyList_GET_ITEM(given[2], place)));
        if (done == FULL)
            Py_RETURN_NONE;
        taken += done;
    }
    return PyLong_FromSsize_t(taken);
}

/* enter_gathered(shelves, size_bits, keys, first, last) -> int | None
 *
 * The same of those from a first to a last of keys that stand one after the other. */
PyObject *native_enter_gathered(PyObject *self, PyObject *const *given, Py_ssize_t count) {
    (void)self;
    Table table;
    int64_t first, last;
    if (check_arguments("oibii", given, count) != DONE)
        return NULL;
    if (table_of(given[0], given[1], &table) != DONE || !int_of(given[3], &first) || !int_of(given[4], &last) ||
        first < 0 || first > last || last > PyBytes_GET_SIZE(given[2]) / KEY_BYTES)
        Py_RETURN_NONE;
    const char *keys = PyBytes_AS_STRING(given[2]);
    int64_t taken = 0;
    for (int64_t place = first; place < last; place++) {
        if (place + AHEAD < last)
            send_for_shelf(&table, keys + (place + AHEAD) * KEY_BYTES + TIME_BYTES);
        int done = enter_key(&table, keys + place * KEY_BYTES);
        if (done == FULL)
            Py_RETURN_NONE;
        taken += done;
    }
    return PyLong_FromLongLong(taken);
}

static int append_dated(PyObject *found, const unsigned char *moment, PyObject *identity) {
    PyObject *dated = PyBytes_FromStringAndSize(NULL, MOMENT_BYTES + IDENTITY_BYTES);
    if (dated == NULL)
        return FAILED;
    memcpy(PyBytes_AS_STRING(dated), moment, MOMENT_BYTES);
    memcpy(PyBytes_AS_STRING(dated) + MOMENT_BYTES, PyBytes_AS_STRING(identity), IDENTITY_BYTES);
    int done = PyList_Append(found, dated);
    Py_DECREF(dated);
    return done;
}

static int append_moments(const Table *table, PyObject *found, PyObject *asked) {
    const unsigned char *identity = (const unsigned char *)PyBytes_AS_STRING(asked);
    unsigned char tag = tag_of(identity);
    uint32_t place = place_of(table, identity);
    for (uint32_t looked = 0; looked <= table->mask; looked++, place = (place + 1) & table->mask) {
        unsigned char *shelf = shelf_at(table, place);
        uint32_t alike = slots_with(shelf, tag);
        for (; alike != 0; alike &= alike - 1) {
            const unsigned char *entry = entry_at(shelf, lowest_of(alike));
            if (memcmp(entry, identity + 1, REST_BYTES) == 0 &&
                append_dated(found, entry + REST_BYTES, asked) != DONE)
                return FAILED;
        }
        if (shelf[SLOTS - 1] == 0)
            break;
    }
    return DONE;
}

/* moments(shelves, size_bits, identities) -> list[bytes] | None: each moment of those that may stand there, and the identity. */
PyObject *native_moments(PyObject *self, PyObject *const *given, Py_ssize_t count) {
    (void)self;
    Table table;
    if (check_arguments("oil", given, count) != DONE)
        return NULL;
    PyObject *found = PyList_New(0); /* first: a new list may have garbage collected, which may run Python code */
    if (found == NULL)
        return NULL;
    if (table_of(given[0], given[1], &table) != DONE || !are_all(given[2], IDENTITY_BYTES)) {
        Py_DECREF(found);
        Py_RETURN_NONE;
    }
    Py_ssize_t size = PyList_GET_SIZE(given[2]);
    for (Py_ssize_t place = 0; found != NULL && place < size; place++) {
        if (place + AHEAD < size)
            send_for_shelf(&table, PyBytes_AS_STRING(PyList_GET_ITEM(given[2], place + AHEAD)));
        if (append_moments(&table, found, PyList_GET_ITEM(given[2], place)) != DONE)
            Py_CLEAR(found);
    }
    return found;
}

/* occupied(shelves) -> int | None: how many slots are taken. */
PyObject *native_occupied(PyObject *self, PyObject *const *given, Py_ssize_t count) {
    (void)self;
    if (check_arguments("o", given, count) != DONE)
        return NULL;
    if (!PyByteArray_CheckExact(given[0]))
        Py_RETURN_NONE;
    Py_ssize_t taken = 0, size = PyByteArray_GET_SIZE(given[0]) / SHELF_BYTES;
    const unsigned char *shelf = (const unsigned char *)PyByteArray_AS_STRING(given[0]);
    for (; size-- > 0; shelf += SHELF_BYTES)
        for (int slot = 0; slot < SLOTS; slot++)
            taken += shelf[slot] != 0;
    return PyLong_FromSsize_t(taken);
}
