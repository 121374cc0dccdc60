/* What is known of a usage record before it is decided: whether it is sound, its identity, its key, the
 * digest of its content, and its personal part, sealed.
 *
 * Twins: `checked` of backend/intake/gate.py, `_hashes_of` of backend/asking.py, `_prepare_all` of
 * backend/deciding.py. See sealing.c for digest, token and sealed part.
 */
#include "native.h"
#include <string.h>

enum { LAST_DAY = 65535, MOMENTS = 65536, BLOCK = 32 };
static const int64_t DAY_MICROSECONDS = 86400000000;

PyTypeObject *record_type;
Field record_field[RECORD_FIELDS];
static const char *const FIELDS[RECORD_FIELDS] = {"source",     "record_id", "line",        "usage_type", "quantity",
                                                  "started_at", "direction", "counterpart", "attributes"};
static PyObject *usage_types, *directions;
static int64_t quantity_max, moment_min, moment_max, text_max;

int records_setup(PyObject *type, PyObject *limits) {
    if (!PyType_Check(type)) {
        PyErr_SetString(PyExc_TypeError, "the type of usage records is needed");
        return FAILED;
    }
    for (int field = 0; field < RECORD_FIELDS; field++)
        if (field_find(&record_field[field], (PyTypeObject *)type, FIELDS[field]) != DONE)
            return FAILED;
    long long quantity, from, upto, text;
    PyObject *types, *ways;
    if (!PyArg_ParseTuple(limits, "OOLLLL", &types, &ways, &quantity, &from, &upto, &text))
        return FAILED;
    quantity_max = quantity, moment_min = from, moment_max = upto, text_max = text;
    Py_XSETREF(usage_types, Py_NewRef(types));
    Py_XSETREF(directions, Py_NewRef(ways));
    Py_XSETREF(record_type, (PyTypeObject *)Py_NewRef(type));
    return DONE;
}

/* --- the fields of one record --------------------------------------------------------------- */

typedef struct {
    PyObject *field[RECORD_FIELDS];
} Record;

/* Borrowed from the record, which is frozen; LEFT where a field was never set. */
static int record_read(Record *record, PyObject *object) {
    int done = DONE;
    for (int field = 0; field < RECORD_FIELDS; field++) {
        record->field[field] = field_of(&record_field[field], object);
        done |= record->field[field] == NULL;
    }
    return done == DONE ? DONE : LEFT;
}

/* --- whether it is sound ------------------------------------------------------------------- */

/* Printable ASCII of at most `text_max` characters; what is not ASCII is left to `str.isprintable`. */
static int is_plain_text(PyObject *text, int64_t least) {
    if (!PyUnicode_CheckExact(text) || !PyUnicode_IS_ASCII(text))
        return 0;
    Py_ssize_t size = PyUnicode_GET_LENGTH(text);
    if (size < least || size > text_max)
        return 0;
    const Py_UCS1 *characters = PyUnicode_1BYTE_DATA(text);
    for (Py_ssize_t place = 0; place < size; place++)
        if (characters[place] < 0x20 || characters[place] > 0x7e)
            return 0;
    return 1;
}

static int is_one_of(PyObject *these, PyObject *text) {
    return PyUnicode_CheckExact(text) ? PySequence_Contains(these, text) : 0;
}

static int is_sound(const Record *record) {
    PyObject *const *of = record->field;
    int64_t quantity, at;
    if (!int_of(of[QUANTITY], &quantity) || quantity < 0 || quantity > quantity_max ||
        !int_of(of[STARTED_AT], &at) || at < moment_min || at > moment_max || !is_plain_text(of[SOURCE], 1) ||
        !is_plain_text(of[RECORD_ID], 1) || !is_plain_text(of[LINE], 1) || !is_plain_text(of[COUNTERPART], 0) ||
        !PyTuple_CheckExact(of[ATTRIBUTES]) || PyTuple_GET_SIZE(of[ATTRIBUTES]) != 0)
        return 0;
    int known = is_one_of(usage_types, of[USAGE_TYPE]);
    return known == 1 ? is_one_of(directions, of[DIRECTION]) : known;
}

/* all_sound(records) -> bool: whether every one is plainly sound. False says nothing: look at each. */
PyObject *native_all_sound(PyObject *self, PyObject *const *given, Py_ssize_t count) {
    (void)self;
    if (check_arguments("o", given, count) != DONE)
        return NULL;
    if (!PyList_CheckExact(given[0]) || record_type == NULL)
        Py_RETURN_FALSE;
    for (Py_ssize_t place = 0; place < PyList_GET_SIZE(given[0]); place++) {
        PyObject *item = PyList_GET_ITEM(given[0], place);
        Record record;
        if (Py_TYPE(item) != record_type || record_read(&record, item) != DONE)
            Py_RETURN_FALSE;
        int sound = is_sound(&record);
        if (sound < 0)
            return NULL;
        if (!sound)
            Py_RETURN_FALSE;
    }
    Py_RETURN_TRUE;
}

/* --- identities ---------------------------------------------------------------------------- */

static int put_identity(Buffer *buffer, PyObject *source, PyObject *record_id) {
    Py_ssize_t size, more;
    const char *first = utf8_of(source, &size), *second = first ? utf8_of(record_id, &more) : NULL;
    if (second == NULL)
        return LEFT;
    buffer->size = 0;
    if (buffer_put(buffer, "usage\x1f", 6) != DONE || buffer_put(buffer, first, (size_t)size) != DONE ||
        buffer_put(buffer, "\x1f", 1) != DONE || buffer_put(buffer, second, (size_t)more) != DONE)
        return FAILED;
    return DONE;
}

static int identity_of(Buffer *buffer, PyObject *item, PyObject **made) {
    unsigned char digest[HASH_BYTES];
    if (Py_TYPE(item) != record_type)
        return LEFT;
    PyObject *source = field_of(&record_field[SOURCE], item), *record_id = field_of(&record_field[RECORD_ID], item);
    int done = source == NULL || record_id == NULL ? LEFT : put_identity(buffer, source, record_id);
    if (done == DONE)
        done = sha256(buffer->data, buffer->size, digest);
    if (done == DONE) {
        *made = PyBytes_FromStringAndSize((char *)digest + MOMENT_BYTES, IDENTITY_BYTES);
        done = *made == NULL ? FAILED : DONE;
    }
    return done;
}

/* identities(items) -> list[bytes] | None: None where not all are records. */
PyObject *native_identities(PyObject *self, PyObject *const *given, Py_ssize_t count) {
    (void)self;
    if (check_arguments("l", given, count) != DONE)
        return NULL;
    Buffer buffer = {0};
    Py_ssize_t size = PyList_GET_SIZE(given[0]);
    PyObject *made = PyList_New(size);
    int done = made == NULL ? FAILED : DONE;
    for (Py_ssize_t place = 0; done == DONE && place < size; place++) {
        PyObject *identity = NULL;
        done = PyList_GET_SIZE(given[0]) == size
                   ? identity_of(&buffer, PyList_GET_ITEM(given[0], place), &identity)
                   : LEFT;
        if (done == DONE)
            PyList_SET_ITEM(made, place, identity);
    }
    buffer_free(&buffer);
    if (done == DONE)
        return made;
    Py_XDECREF(made);
    if (done == LEFT)
        Py_RETURN_NONE;
    return NULL;
}

/* Identities begin like chance: a place in the table is as good as a hash of one. */
static int are_different(PyObject *hashes, uint32_t *table, size_t room) {
    for (Py_ssize_t place = 0; place < PyList_GET_SIZE(hashes); place++) {
        PyObject *hash = PyList_GET_ITEM(hashes, place);
        uint64_t start;
        if (!PyBytes_CheckExact(hash) || PyBytes_GET_SIZE(hash) != IDENTITY_BYTES)
            return 0;
        const char *bytes = PyBytes_AS_STRING(hash);
        memcpy(&start, bytes, sizeof start);
        size_t at = (size_t)start & (room - 1);
        for (; table[at] != 0; at = (at + 1) & (room - 1))
            if (memcmp(PyBytes_AS_STRING(PyList_GET_ITEM(hashes, table[at] - 1)), bytes, IDENTITY_BYTES) == 0)
                return 0;
        table[at] = (uint32_t)place + 1;
    }
    return 1;
}

/* all_different(hashes) -> bool: False says nothing: some may be no identities. */
PyObject *native_all_different(PyObject *self, PyObject *const *given, Py_ssize_t count) {
    (void)self;
    if (check_arguments("l", given, count) != DONE)
        return NULL;
    size_t room = 1024;
    if (PyList_GET_SIZE(given[0]) > INT32_MAX / 8)
        Py_RETURN_FALSE;
    while (room < 2 * (size_t)PyList_GET_SIZE(given[0]))
        room *= 2;
    uint32_t *table = PyMem_Calloc(room, sizeof *table);
    if (table == NULL)
        return PyErr_NoMemory();
    int different = are_different(given[0], table, room);
    PyMem_Free(table);
    return PyBool_FromLong(different);
}

/* --- content, key, personal part ----------------------------------------------------------- */

static int put_attributes(Buffer *buffer, PyObject *attributes) {
    if (!PyTuple_CheckExact(attributes))
        return LEFT;
    int done = put_array(buffer, (size_t)PyTuple_GET_SIZE(attributes));
    for (Py_ssize_t place = 0; done == DONE && place < PyTuple_GET_SIZE(attributes); place++) {
        PyObject *pair = PyTuple_GET_ITEM(attributes, place);
        if (!PyTuple_CheckExact(pair) || PyTuple_GET_SIZE(pair) != 2)
            return LEFT;
        done = put_array(buffer, 2);
        if (done == DONE)
            done = put_str(buffer, PyTuple_GET_ITEM(pair, 0));
        if (done == DONE)
            done = put_str(buffer, PyTuple_GET_ITEM(pair, 1));
    }
    return done;
}

/* The whole record, as `msgspec.msgpack` writes it. */
static int put_content(Buffer *buffer, const Record *record) {
    buffer->size = 0;
    int done = put_array(buffer, RECORD_FIELDS);
    for (int field = 0; done == DONE && field < ATTRIBUTES; field++) {
        int64_t number;
        if (field != QUANTITY && field != STARTED_AT)
            done = put_str(buffer, record->field[field]);
        else
            done = int_of(record->field[field], &number) ? put_int(buffer, number) : LEFT;
    }
    return done == DONE ? put_attributes(buffer, record->field[ATTRIBUTES]) : done;
}

static int put_personal(Buffer *buffer, const Record *record) {
    buffer->size = 0;
    int done = put_array(buffer, 2);
    if (done == DONE)
        done = put_str(buffer, record->field[LINE]);
    return done == DONE ? put_str(buffer, record->field[COUNTERPART]) : done;
}

/* The day and moment it speaks of, then its identity. */
static void key_of(const Record *record, PyObject *identity, unsigned char *key) {
    int64_t at = 0;
    int_of(record->field[STARTED_AT], &at); /* put_content has seen that it is one */
    int64_t day = at > 0 ? at / DAY_MICROSECONDS : 0;
    int has_day = day > 0 && day < LAST_DAY;
    int64_t moment = has_day ? at % DAY_MICROSECONDS * MOMENTS / DAY_MICROSECONDS : 0;
    key[0] = has_day ? (unsigned char)(day >> 8) : 0;
    key[1] = has_day ? (unsigned char)day : 0;
    key[2] = (unsigned char)(moment >> 8);
    key[3] = (unsigned char)moment;
    memcpy(key + TIME_BYTES, PyBytes_AS_STRING(identity), IDENTITY_BYTES);
}

typedef struct {
    Buffer content, personal;
} Packed;

static int prepare_one(PyObject *sealing, Packed *packed, Prepared *into, One *one, PyObject *item,
                       PyObject *identity, const unsigned char *nonce) {
    Record record;
    int done = record_read(&record, item);
    if (done == DONE)
        done = put_content(&packed->content, &record);
    if (done == DONE)
        done = put_personal(&packed->personal, &record);
    if (done != DONE)
        return done;
    key_of(&record, identity, one->key);
    done = sealing_apply(sealing, one, &into->sealed, &packed->content, &packed->personal, record.field[LINE], nonce);
    if (done == DONE)
        one->record = Py_NewRef(item);
    return done;
}

/* Whether it is a record that nobody has seen before: 1, 0, or -1 with an exception. */
static int is_fresh(PyObject *item, PyObject *identity, PyObject *repeated, PyObject *young, PyObject *old) {
    if (Py_TYPE(item) != record_type)
        return 0;
    int found = PySet_GET_SIZE(repeated) ? PySet_Contains(repeated, identity) : 0;
    if (found == 0)
        found = PyDict_Contains(young, identity);
    if (found == 0)
        found = PyDict_Contains(old, identity);
    return found < 0 ? FAILED : !found;
}

/* Where the next lines are kept is sent for. */
static void send_for_lines(PyObject *sealing, PyObject *items, Py_ssize_t from, int step) {
    for (Py_ssize_t place = from; place < from + BLOCK && place < PyList_GET_SIZE(items); place++) {
        PyObject *item = PyList_GET_ITEM(items, place);
        PyObject *line = Py_TYPE(item) == record_type ? field_of(&record_field[LINE], item) : NULL;
        if (line != NULL)
            sealing_send_for(sealing, line, step);
    }
}

static int is_identity(PyObject *object) {
    return PyBytes_CheckExact(object) && PyBytes_GET_SIZE(object) == IDENTITY_BYTES;
}

/* Which of the next are fresh: one after the other, so that none waits for another's memory. */
static int find_fresh(PyObject *const *given, Py_ssize_t size, Py_ssize_t from, int *fresh) {
    for (Py_ssize_t place = from; place < from + BLOCK && place < size; place++) {
        if (PyList_GET_SIZE(given[0]) != size || PyList_GET_SIZE(given[1]) != size)
            return LEFT; /* somebody changed them under our hands */
        PyObject *item = Py_NewRef(PyList_GET_ITEM(given[0], place));
        PyObject *identity = Py_NewRef(PyList_GET_ITEM(given[1], place));
        int found = is_identity(identity) ? is_fresh(item, identity, given[2], given[3], given[4]) : 0;
        Py_DECREF(item);
        Py_DECREF(identity);
        if (found < 0)
            return FAILED;
        fresh[place - from] = found;
    }
    return DONE;
}

static int prepare_all(PyObject *const *given, const unsigned char *random, Packed *packed, Prepared *made) {
    PyObject *items = given[0], *hashes = given[1];
    int fresh[BLOCK] = {0}, done = DONE;
    for (Py_ssize_t place = 0; done == DONE && place < made->size; place++) {
        if (PyList_GET_SIZE(items) != made->size || PyList_GET_SIZE(hashes) != made->size)
            return LEFT; /* somebody changed them under our hands */
        if (place % BLOCK == 0) {
            send_for_lines(given[5], items, place, 0);
            done = find_fresh(given, made->size, place, fresh);
            if (done != DONE || PyList_GET_SIZE(items) != made->size || PyList_GET_SIZE(hashes) != made->size)
                return done == DONE ? LEFT : done;
            send_for_lines(given[5], items, place, 1);
        }
        PyObject *item = Py_NewRef(PyList_GET_ITEM(items, place));
        PyObject *identity = Py_NewRef(PyList_GET_ITEM(hashes, place));
        if (!is_identity(identity))
            done = LEFT;
        else if (fresh[place % BLOCK] && Py_TYPE(item) == record_type)
            done = prepare_one(given[5], packed, made, &made->ones[place], item, identity,
                               random + place * NONCE_BYTES);
        Py_DECREF(item);
        Py_DECREF(identity);
    }
    return done;
}

/* prepare(items, hashes, repeated, young, old, sealing, random) -> Prepared | None */
PyObject *native_prepare(PyObject *self, PyObject *const *given, Py_ssize_t count) {
    (void)self;
    if (check_arguments("llsddob", given, count) != DONE)
        return NULL;
    if (Py_TYPE(given[5]) != &sealing_type) {
        PyErr_SetString(PyExc_TypeError, "what seals for a tenant is needed");
        return NULL;
    }
    Py_ssize_t size = PyList_GET_SIZE(given[0]);
    if (record_type == NULL || PyList_GET_SIZE(given[1]) != size || PyBytes_GET_SIZE(given[6]) / NONCE_BYTES < size)
        Py_RETURN_NONE;
    Prepared *made = prepared_new(size);
    if (made == NULL)
        return NULL;
    Packed packed = {{0}, {0}};
    int done = prepare_all(given, (const unsigned char *)PyBytes_AS_STRING(given[6]), &packed, made);
    buffer_free(&packed.content);
    buffer_free(&packed.personal);
    if (done == DONE)
        return (PyObject *)made;
    Py_DECREF(made);
    if (done == LEFT)
        Py_RETURN_NONE;
    return NULL;
}
