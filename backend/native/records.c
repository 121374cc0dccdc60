/* What is known of a usage record before it is decided: whether it is sound, its identity, its key, the
 * digest of its content, and its personal part, sealed.
 *
 * Twins: `checked` of backend/intake/gate.py, `_hashes_of` and `_prepare_all` of backend/deciding.py. The
 * ciphers and keyed digests are those of `cryptography` and `hashlib`: they are called, not written.
 */
#include "native.h"
#include <string.h>

enum { IDENTITY_BYTES = 14, DAY_BYTES = 2, NONCE_BYTES = 12, LAST_DAY = 65535 };
static const int64_t DAY_MICROSECONDS = 86400000000;

PyTypeObject *record_type;
Field record_field[RECORD_FIELDS];
static const char *const FIELDS[RECORD_FIELDS] = {"source",     "record_id", "line",        "usage_type", "quantity",
                                                  "started_at", "direction", "counterpart", "attributes"};
static PyObject *usage_types, *directions;
static int64_t quantity_max, moment_min, moment_max, text_max;
static PyObject *name_copy, *name_update, *name_digest, *name_encrypt;

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
    Py_XSETREF(name_copy, PyUnicode_InternFromString("copy"));
    Py_XSETREF(name_update, PyUnicode_InternFromString("update"));
    Py_XSETREF(name_digest, PyUnicode_InternFromString("digest"));
    Py_XSETREF(name_encrypt, PyUnicode_InternFromString("encrypt"));
    if (PyErr_Occurred())
        return FAILED;
    Py_XSETREF(record_type, (PyTypeObject *)Py_NewRef(type));
    return DONE;
}

/* --- the fields of one record --------------------------------------------------------------- */

typedef struct {
    PyObject *field[RECORD_FIELDS];
} Record;

static void record_release(Record *record) {
    for (int field = 0; field < RECORD_FIELDS; field++)
        Py_CLEAR(record->field[field]);
}

/* Whether all could be read; else none is held. */
static int record_read(Record *record, PyObject *object) {
    memset(record, 0, sizeof *record);
    for (int field = 0; field < RECORD_FIELDS; field++) {
        record->field[field] = field_of(&record_field[field], object);
        if (record->field[field] == NULL) {
            record_release(record);
            return FAILED;
        }
    }
    return DONE;
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
        if (Py_TYPE(item) != record_type)
            Py_RETURN_FALSE;
        if (record_read(&record, item) != DONE)
            return NULL;
        int sound = is_sound(&record);
        record_release(&record);
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
    PyObject *source = field_of(&record_field[SOURCE], item);
    PyObject *record_id = source != NULL ? field_of(&record_field[RECORD_ID], item) : NULL;
    int done = record_id == NULL ? FAILED : put_identity(buffer, source, record_id);
    if (done == DONE)
        done = sha256(buffer->data, buffer->size, digest);
    Py_XDECREF(source);
    Py_XDECREF(record_id);
    if (done == DONE) {
        *made = PyBytes_FromStringAndSize((char *)digest, IDENTITY_BYTES);
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

/* The day it speaks of, then its identity. */
static PyObject *key_of(const Record *record, PyObject *identity) {
    int64_t at = 0;
    char key[DAY_BYTES + IDENTITY_BYTES] = {0};
    int_of(record->field[STARTED_AT], &at); /* put_content has seen that it is one */
    int64_t day = at > 0 ? at / DAY_MICROSECONDS : 0;
    if (day > 0 && day < LAST_DAY) {
        key[0] = (char)(day >> 8);
        key[1] = (char)day;
    }
    memcpy(key + DAY_BYTES, PyBytes_AS_STRING(identity), IDENTITY_BYTES);
    return PyBytes_FromStringAndSize(key, sizeof key);
}

static PyObject *bytes_of(const Buffer *buffer) {
    return PyBytes_FromStringAndSize((const char *)buffer->data, (Py_ssize_t)buffer->size);
}

/* The keyed digest of a content: `keyed` is a hash that has taken the key in. */
static PyObject *digest_of(PyObject *keyed, const Buffer *content) {
    PyObject *bytes = bytes_of(content);
    PyObject *hash = bytes != NULL ? PyObject_CallMethodNoArgs(keyed, name_copy) : NULL;
    PyObject *none = hash != NULL ? PyObject_CallMethodOneArg(hash, name_update, bytes) : NULL;
    PyObject *digest = none != NULL ? PyObject_CallMethodNoArgs(hash, name_digest) : NULL;
    Py_XDECREF(none);
    Py_XDECREF(hash);
    Py_XDECREF(bytes);
    return digest;
}

/* What is kept under a key in a dictionary, else what a function makes of the key. */
static PyObject *known_or_made(PyObject *known, PyObject *key, PyObject *make) {
    PyObject *found = PyDict_GetItemWithError(known, key);
    if (found != NULL)
        return Py_NewRef(found);
    return PyErr_Occurred() ? NULL : PyObject_CallOneArg(make, key);
}

static PyObject *joined(const char *first, Py_ssize_t size, PyObject *second) {
    Py_ssize_t more = PyBytes_GET_SIZE(second);
    PyObject *both = PyBytes_FromStringAndSize(NULL, size + more);
    if (both != NULL) {
        memcpy(PyBytes_AS_STRING(both), first, (size_t)size);
        memcpy(PyBytes_AS_STRING(both) + size, PyBytes_AS_STRING(second), (size_t)more);
    }
    return both;
}

/* What seals for one tenant: see `Sealer.parts`. */
typedef struct {
    PyObject *keyed, *tokens, *ciphers, *tenant, *token, *cipher;
} Sealing;

static PyObject *sealed_with(PyObject *cipher, const char *nonce, const Buffer *plain, PyObject *context) {
    PyObject *bytes = PyBytes_FromStringAndSize(nonce, NONCE_BYTES), *text = bytes ? bytes_of(plain) : NULL;
    PyObject *made = NULL, *sealed = NULL;
    if (text != NULL) {
        PyObject *arguments[] = {cipher, bytes, text, context};
        made = PyObject_VectorcallMethod(name_encrypt, arguments, 4 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
    }
    if (made != NULL && PyBytes_CheckExact(made))
        sealed = joined(nonce, NONCE_BYTES, made);
    else if (made != NULL)
        PyErr_SetString(PyExc_TypeError, "a cipher gives bytes");
    Py_XDECREF(made);
    Py_XDECREF(text);
    Py_XDECREF(bytes);
    return sealed;
}

/* (record, key, digest, token, sealed), as it is charged. */
static int prepare_one(const Sealing *with, Buffer *buffer, PyObject *item, PyObject *identity, const char *nonce,
                       PyObject **made) {
    Record record;
    PyObject *digest = NULL, *key = NULL, *token = NULL, *cipher = NULL, *context = NULL, *sealed = NULL;
    if (record_read(&record, item) != DONE)
        return FAILED;
    int done = put_content(buffer, &record);
    if (done == DONE && (digest = digest_of(with->keyed, buffer)) != NULL)
        done = put_personal(buffer, &record);
    if (done == DONE && digest != NULL) {
        key = key_of(&record, identity);
        token = key != NULL ? known_or_made(with->tokens, record.field[LINE], with->token) : NULL;
        cipher = token != NULL ? known_or_made(with->ciphers, token, with->cipher) : NULL;
        context = cipher != NULL
                      ? joined(PyBytes_AS_STRING(with->tenant), PyBytes_GET_SIZE(with->tenant), key)
                      : NULL;
        sealed = context != NULL ? sealed_with(cipher, nonce, buffer, context) : NULL;
        *made = sealed != NULL ? PyTuple_Pack(5, item, key, digest, token, sealed) : NULL;
    }
    record_release(&record);
    Py_XDECREF(digest);
    Py_XDECREF(key);
    Py_XDECREF(token);
    Py_XDECREF(cipher);
    Py_XDECREF(context);
    Py_XDECREF(sealed);
    return done == LEFT ? LEFT : *made != NULL ? DONE : FAILED;
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

static int prepare_all(const Sealing *with, PyObject *const *given, PyObject *random, PyObject *made) {
    PyObject *items = given[0], *hashes = given[1];
    Buffer buffer = {0};
    int done = DONE;
    for (Py_ssize_t place = 0; done == DONE && place < PyList_GET_SIZE(made); place++) {
        if (PyList_GET_SIZE(items) != PyList_GET_SIZE(made) || PyList_GET_SIZE(hashes) != PyList_GET_SIZE(made)) {
            done = LEFT; /* somebody changed them under our hands */
            break;
        }
        PyObject *item = Py_NewRef(PyList_GET_ITEM(items, place));
        PyObject *identity = Py_NewRef(PyList_GET_ITEM(hashes, place)), *one = NULL;
        int fresh = 0;
        if (!PyBytes_CheckExact(identity) || PyBytes_GET_SIZE(identity) != IDENTITY_BYTES)
            done = LEFT;
        else
            fresh = is_fresh(item, identity, given[2], given[3], given[4]);
        if (fresh < 0)
            done = FAILED;
        else if (fresh > 0)
            done = prepare_one(with, &buffer, item, identity, PyBytes_AS_STRING(random) + place * NONCE_BYTES, &one);
        if (done == DONE)
            PyList_SET_ITEM(made, place, one != NULL ? one : Py_NewRef(Py_None));
        Py_DECREF(item);
        Py_DECREF(identity);
    }
    buffer_free(&buffer);
    return done;
}

/* prepare(items, hashes, repeated, young, old, parts, random) -> list[tuple | None] | None */
PyObject *native_prepare(PyObject *self, PyObject *const *given, Py_ssize_t count) {
    (void)self;
    Sealing with;
    if (check_arguments("llsddtb", given, count) != DONE ||
        !PyArg_ParseTuple(given[5], "OO!O!O!OO", &with.keyed, &PyDict_Type, &with.tokens, &PyDict_Type,
                          &with.ciphers, &PyBytes_Type, &with.tenant, &with.token, &with.cipher))
        return NULL;
    Py_ssize_t size = PyList_GET_SIZE(given[0]);
    if (record_type == NULL || PyList_GET_SIZE(given[1]) != size ||
        PyBytes_GET_SIZE(given[6]) / NONCE_BYTES < size)
        Py_RETURN_NONE;
    PyObject *made = PyList_New(size);
    if (made == NULL)
        return NULL;
    int done = prepare_all(&with, given, given[6], made);
    if (done == DONE)
        return made;
    Py_DECREF(made);
    if (done == LEFT)
        Py_RETURN_NONE;
    return NULL;
}
