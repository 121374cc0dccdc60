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

enum { DONE = 0, LEFT = 1, FAILED = -1 }; /* FAILED: a Python exception is set */

/* --- growing buffers ---------------------------------------------------------------------- */

typedef struct {
    unsigned char *data;
    size_t size, room;
} Buffer;

/* Room for `more` bytes at the end; NULL, with an exception, where there is none. */
unsigned char *buffer_grow(Buffer *buffer, size_t more);
int buffer_put(Buffer *buffer, const void *bytes, size_t size);
void buffer_free(Buffer *buffer);

/* --- msgpack ------------------------------------------------------------------------------ */

int put_int(Buffer *buffer, int64_t value);
int put_text(Buffer *buffer, const char *text, size_t size);
int put_binary(Buffer *buffer, const void *bytes, size_t size);
int put_array(Buffer *buffer, size_t size);
/* An exact `str` that UTF-8 can say; anything else is left. */
int put_str(Buffer *buffer, PyObject *text);
/* The UTF-8 of an exact `str`, which lives as long as it does; NULL (no exception) otherwise. */
const char *utf8_of(PyObject *text, Py_ssize_t *size);
/* An exact `int` of 64 bits; 0 (no exception) otherwise. */
int int_of(PyObject *number, int64_t *value);

/* --- SHA-256 ------------------------------------------------------------------------------ */

enum { HASH_BYTES = 32 };
int hashing_start(void);
/* "libcrypto" or "hashlib": who hashes. */
const char *hashing_by(void);
int sha256(const void *bytes, size_t size, unsigned char *digest);

/* --- fields of objects, by their descriptors ---------------------------------------------- */

typedef struct {
    PyObject *descriptor;
    descrgetfunc get;
} Field;

int field_find(Field *field, PyTypeObject *of, const char *name);
static inline PyObject *field_of(const Field *field, PyObject *object) {
    return field->get(field->descriptor, object, (PyObject *)Py_TYPE(object));
}

enum {
    SOURCE, RECORD_ID, LINE, USAGE_TYPE, QUANTITY, STARTED_AT, DIRECTION, COUNTERPART, ATTRIBUTES, RECORD_FIELDS
};
extern PyTypeObject *record_type; /* domain/usage.py: UsageRecord */
extern Field record_field[RECORD_FIELDS];

/* --- what Python calls -------------------------------------------------------------------- */

PyObject *native_identities(PyObject *, PyObject *const *, Py_ssize_t);
PyObject *native_all_sound(PyObject *, PyObject *const *, Py_ssize_t);
PyObject *native_prepare(PyObject *, PyObject *const *, Py_ssize_t);
PyObject *native_charge(PyObject *, PyObject *const *, Py_ssize_t);
PyObject *native_leaves(PyObject *, PyObject *const *, Py_ssize_t);
PyObject *native_append_peaks(PyObject *, PyObject *const *, Py_ssize_t);
PyObject *native_copy_rows(PyObject *, PyObject *const *, Py_ssize_t);
PyObject *native_hold(PyObject *, PyObject *const *, Py_ssize_t);
PyObject *native_enter(PyObject *, PyObject *const *, Py_ssize_t);
PyObject *native_may_hold(PyObject *, PyObject *const *, Py_ssize_t);

int records_setup(PyObject *type, PyObject *limits);
int charging_setup(PyObject *parts);

/* So many arguments of these types, or a TypeError: 'l' list, 'd' dict, 't' tuple, 's' set, 'b' bytes, 'i' int,
 * 'o' any. */
int check_arguments(const char *types, PyObject *const *given, Py_ssize_t count);

#endif
