/* What the parts of the native module share: growing buffers, msgpack as msgspec writes it, SHA-256,
 * and the fields of usage records.
 *
 * Whatever is not as expected is LEFT to the Python code that does the same (see README.md): a part
 * that leaves something has changed nothing that anybody else can see.
 */
#ifndef ALLOTMENT_NATIVE_H
#define ALLOTMENT_NATIVE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

enum { DONE = 0, LEFT = 1, FAILED = -1 }; /* FAILED: a Python exception is set */

/* --- growing buffers ---------------------------------------------------------------------- */

typedef struct {
    unsigned char *data;
    size_t size, room;
} Buffer;

/* Room for `more` bytes at the end; NULL, with an exception, where there is none. */
unsigned char *buffer_larger(Buffer *buffer, size_t more);
static inline unsigned char *buffer_grow(Buffer *buffer, size_t more) {
    if (buffer->data == NULL || buffer->room - buffer->size < more)
        return buffer_larger(buffer, more);
    return buffer->data + buffer->size;
}

static inline int buffer_put(Buffer *buffer, const void *bytes, size_t size) {
    unsigned char *at = buffer_grow(buffer, size);
    if (at == NULL)
        return FAILED;
    if (size)
        memcpy(at, bytes, size);
    buffer->size += size;
    return DONE;
}

void buffer_free(Buffer *buffer);

/* --- msgpack ------------------------------------------------------------------------------ */

/* A marker byte, then the lowest `width` bytes of a number, the highest first. */
static inline int put_marked(Buffer *buffer, int marker, uint64_t value, int width) {
    unsigned char *at = buffer_grow(buffer, (size_t)width + 1);
    if (at == NULL)
        return FAILED;
    at[0] = (unsigned char)marker;
    for (int place = width; place > 0; place--, value >>= 8)
        at[place] = (unsigned char)value;
    buffer->size += (size_t)width + 1;
    return DONE;
}

static inline int put_int(Buffer *buffer, int64_t value) {
    if (value >= 0) {
        if (value < 0x80)
            return put_marked(buffer, (int)value, 0, 0);
        if (value <= UINT8_MAX)
            return put_marked(buffer, 0xcc, (uint64_t)value, 1);
        if (value <= UINT16_MAX)
            return put_marked(buffer, 0xcd, (uint64_t)value, 2);
        if (value <= UINT32_MAX)
            return put_marked(buffer, 0xce, (uint64_t)value, 4);
        return put_marked(buffer, 0xcf, (uint64_t)value, 8);
    }
    if (value >= -32)
        return put_marked(buffer, (int)(value & 0xff), 0, 0);
    if (value >= INT8_MIN)
        return put_marked(buffer, 0xd0, (uint64_t)value, 1);
    if (value >= INT16_MIN)
        return put_marked(buffer, 0xd1, (uint64_t)value, 2);
    if (value >= INT32_MIN)
        return put_marked(buffer, 0xd2, (uint64_t)value, 4);
    return put_marked(buffer, 0xd3, (uint64_t)value, 8);
}

/* The head of what has a length; `small` is the number of lengths that fit into the marker itself. */
static inline int put_length(Buffer *buffer, size_t size, size_t small, int fixed, int one, int two, int four) {
    if (size < small)
        return put_marked(buffer, fixed | (int)size, 0, 0);
    if (one && size <= UINT8_MAX)
        return put_marked(buffer, one, size, 1);
    if (size <= UINT16_MAX)
        return put_marked(buffer, two, size, 2);
    if (size <= UINT32_MAX)
        return put_marked(buffer, four, size, 4);
    return LEFT;
}

static inline int put_text(Buffer *buffer, const char *text, size_t size) {
    int put = put_length(buffer, size, 32, 0xa0, 0xd9, 0xda, 0xdb);
    return put == DONE ? buffer_put(buffer, text, size) : put;
}

static inline int put_binary(Buffer *buffer, const void *bytes, size_t size) {
    int put = put_length(buffer, size, 0, 0, 0xc4, 0xc5, 0xc6);
    return put == DONE ? buffer_put(buffer, bytes, size) : put;
}

static inline int put_array(Buffer *buffer, size_t size) { return put_length(buffer, size, 16, 0x90, 0, 0xdc, 0xdd); }

/* An exact `str` that UTF-8 can say; anything else is left. */
int put_str(Buffer *buffer, PyObject *text);
/* The UTF-8 of an exact `str`, which lives as long as it does; NULL (no exception) otherwise. */
const char *utf8_of_any(PyObject *text, Py_ssize_t *size);
static inline const char *utf8_of(PyObject *text, Py_ssize_t *size) {
    if (!PyUnicode_CheckExact(text) || !PyUnicode_IS_COMPACT_ASCII(text))
        return utf8_of_any(text, size);
    *size = PyUnicode_GET_LENGTH(text);
    return (const char *)PyUnicode_1BYTE_DATA(text);
}
/* An exact `int` of 64 bits; 0 (no exception) otherwise. Most are small, and need no call. */
static inline int int_of(PyObject *number, int64_t *value) {
    int overflow = 0;
    if (!PyLong_CheckExact(number))
        return 0;
#if PY_VERSION_HEX < 0x030C0000
    const digit *digits = ((PyLongObject *)number)->ob_digit;
    Py_ssize_t size = Py_SIZE(number);
    if (size >= 0 && size <= 2) {
        *value = size == 0 ? 0 : (int64_t)digits[0] | (size == 2 ? (int64_t)digits[1] << PyLong_SHIFT : 0);
        return 1;
    }
#else
    if (PyUnstable_Long_IsCompact((PyLongObject *)number)) {
        *value = (int64_t)PyUnstable_Long_CompactValue((PyLongObject *)number);
        return 1;
    }
#endif
    *value = PyLong_AsLongLongAndOverflow(number, &overflow);
    return !overflow;
}

/* Another value for an exact `int` that nobody but its one owner, who asks for this, has in hand: 1, or 0 where a
 * new one is to be made. So a counter keeps its place in memory, and none is asked for and given back for each
 * step. Whoever copied it holds it too, and keeps what it copied; small ints are everybody's. */
static inline int int_renew(PyObject *number, int64_t value) {
#if defined(Py_GIL_DISABLED) || PY_VERSION_HEX >= 0x030E0000
    (void)number, (void)value;
    return 0;
#else
    enum { SMALL = 256 };
    if (Py_REFCNT(number) != 1 || !PyLong_CheckExact(number) || value <= SMALL)
        return 0;
    int size = (uint64_t)value >> PyLong_SHIFT == 0 ? 1 : (uint64_t)value >> (2 * PyLong_SHIFT) == 0 ? 2 : 3;
#if PY_VERSION_HEX < 0x030C0000
    if (Py_SIZE(number) != size)
        return 0;
    digit *digits = ((PyLongObject *)number)->ob_digit;
#else
    enum { SIZE_AT = 3 }; /* before that stands the sign, which is 0 */
    if (((PyLongObject *)number)->long_value.lv_tag != (uintptr_t)size << SIZE_AT)
        return 0;
    digit *digits = ((PyLongObject *)number)->long_value.ob_digit;
#endif
    for (int place = 0; place < size; place++, value >>= PyLong_SHIFT)
        digits[place] = (digit)(value & PyLong_MASK);
    return 1;
#endif
}

/* What is stored is read where it lies, and never behind its end. Each of these goes behind what it took; 0 where
 * something else stands there, or not all of it. */
typedef struct {
    const unsigned char *at, *end;
} Reader;

typedef struct {
    const unsigned char *bytes;
    size_t size;
} Text;

static inline int has(const Reader *reader, uint64_t size) { return (uint64_t)(reader->end - reader->at) >= size; }
/* So many bytes as a number, the highest first. */
static inline int take_number(Reader *reader, int width, uint64_t *value) {
    if (!has(reader, (uint64_t)width))
        return 0;
    *value = 0;
    for (int place = 0; place < width; place++)
        *value = *value << 8 | *reader->at++;
    return 1;
}

int take_wide_int(Reader *reader, int64_t *value);
int take_wide_text(Reader *reader, Text *text);
int take_wide_array(Reader *reader, uint64_t *size);
int take_binary(Reader *reader, Text *text);
/* Over one value, whatever it is. */
int skip_value(Reader *reader);

/* An int of 64 bits. */
static inline int take_int(Reader *reader, int64_t *value) {
    if (!has(reader, 1) || (*reader->at >= 0x80 && *reader->at < 0xe0))
        return take_wide_int(reader, value);
    *value = (signed char)*reader->at++;
    return 1;
}

static inline int take_bytes(Reader *reader, uint64_t size, Text *text) {
    if (!has(reader, size) || size > INT32_MAX)
        return 0;
    text->bytes = reader->at;
    text->size = (size_t)size;
    reader->at += size;
    return 1;
}

/* Its bytes: whether they are UTF-8 was not asked. */
static inline int take_text(Reader *reader, Text *text) {
    if (!has(reader, 1) || (*reader->at & 0xe0) != 0xa0)
        return take_wide_text(reader, text);
    return take_bytes(reader, *reader->at++ & 0x1f, text);
}

/* How many values it has, which follow. */
static inline int take_array(Reader *reader, uint64_t *size) {
    if (!has(reader, 1) || (*reader->at & 0xf0) != 0x90)
        return take_wide_array(reader, size);
    *size = *reader->at++ & 0x0f;
    return 1;
}

static inline int same_bytes(const Text *one, const Text *other) {
    return one->size == other->size && memcmp(one->bytes, other->bytes, one->size) == 0;
}

/* --- SHA-256 ------------------------------------------------------------------------------ */

enum { HASH_BYTES = 32 };
int hashing_start(void);
/* "libcrypto" or "hashlib": who hashes. */
const char *hashing_by(void);
int sha256(const void *bytes, size_t size, unsigned char *digest);
/* A function of the libcrypto that Python's own `hashlib` is linked with; NULL where it cannot be found. */
void *libcrypto_find(const char *name);

/* --- fields of objects, by their descriptors ---------------------------------------------- */

typedef struct {
    Py_ssize_t offset;
} Field;

int field_find(Field *field, PyTypeObject *of, const char *name);
/* Borrowed; NULL (no exception) where it was never set. */
static inline PyObject *field_of(const Field *field, PyObject *object) {
    return *(PyObject **)(void *)((char *)object + field->offset);
}

enum {
    SOURCE, RECORD_ID, LINE, USAGE_TYPE, QUANTITY, STARTED_AT, DIRECTION, COUNTERPART, ATTRIBUTES, RECORD_FIELDS
};
extern PyTypeObject *record_type; /* domain/usage.py: UsageRecord */
extern Field record_field[RECORD_FIELDS];

/* --- what will be needed soon ---------------------------------------------------------------- */

static inline void send_for(const void *what) {
#if defined(__GNUC__)
    __builtin_prefetch(what);
#else
    (void)what;
#endif
}

/* --- what a record is charged with ------------------------------------------------------------ */

enum { TENANT_BYTES = 16, KEY_BYTES = 16, DAY_BYTES = 2, TIME_BYTES = 4, NONCE_BYTES = 12 };
enum { MOMENT_BYTES = TIME_BYTES - DAY_BYTES, IDENTITY_BYTES = KEY_BYTES - TIME_BYTES };

typedef struct {
    PyObject *record, *digest, *token; /* all NULL: it is not fresh */
    size_t sealed_at, sealed_size;
    unsigned char key[KEY_BYTES];
} One;

typedef struct {
    PyObject_HEAD
    Py_ssize_t size;
    One *ones;
    Buffer sealed;
} Prepared;

extern PyTypeObject prepared_type, sealing_type;
Prepared *prepared_new(Py_ssize_t size);

/* Looks for AES-GCM; without it nothing is sealed here. */
void sealing_start(void);
const char *sealing_by(void);
/* Where a line would be kept is sent for; then, as the next step, its token. */
void sealing_send_for(PyObject *sealing, PyObject *line, int step);
/* Digest, token and sealed part of one whose key is known. */
int sealing_apply(PyObject *sealing, One *one, Buffer *sealed, const Buffer *content, const Buffer *personal,
                  PyObject *line, const unsigned char *nonce);

/* --- what Python calls -------------------------------------------------------------------- */

PyObject *native_identities(PyObject *, PyObject *const *, Py_ssize_t);
PyObject *native_all_sound(PyObject *, PyObject *const *, Py_ssize_t);
PyObject *native_prepare(PyObject *, PyObject *const *, Py_ssize_t);
PyObject *native_all_different(PyObject *, PyObject *const *, Py_ssize_t);
PyObject *native_prepared(PyObject *, PyObject *const *, Py_ssize_t);
PyObject *native_sealing(PyObject *, PyObject *const *, Py_ssize_t);
PyObject *native_charge(PyObject *, PyObject *const *, Py_ssize_t);
PyObject *native_leaves(PyObject *, PyObject *const *, Py_ssize_t);
PyObject *native_append_peaks(PyObject *, PyObject *const *, Py_ssize_t);
PyObject *native_copy_rows(PyObject *, PyObject *const *, Py_ssize_t);
PyObject *native_hold(PyObject *, PyObject *const *, Py_ssize_t);
PyObject *native_enter(PyObject *, PyObject *const *, Py_ssize_t);
PyObject *native_moments(PyObject *, PyObject *const *, Py_ssize_t);
PyObject *native_occupied(PyObject *, PyObject *const *, Py_ssize_t);
PyObject *native_hold_gathered(PyObject *, PyObject *const *, Py_ssize_t);
PyObject *native_enter_gathered(PyObject *, PyObject *const *, Py_ssize_t);
PyObject *native_days_of(PyObject *, PyObject *const *, Py_ssize_t);
PyObject *native_add_up(PyObject *, PyObject *const *, Py_ssize_t);
PyObject *native_count_up(PyObject *, PyObject *const *, Py_ssize_t);
PyObject *native_tally(PyObject *, PyObject *const *, Py_ssize_t);
PyObject *native_together(PyObject *, PyObject *const *, Py_ssize_t);
PyObject *native_read_lines(PyObject *, PyObject *const *, Py_ssize_t);
PyObject *native_charged_together(PyObject *, PyObject *const *, Py_ssize_t);

int records_setup(PyObject *type, PyObject *limits);
int charging_setup(PyObject *parts);
int outcomes_setup(PyObject *parts);

/* So many arguments of these types, or a TypeError: 'l' list, 'd' dict, 't' tuple, 's' set, 'b' bytes, 'i' int,
 * 'o' any, 'p' what was prepared. */
int check_arguments(const char *types, PyObject *const *given, Py_ssize_t count);

#endif
