/* Growing buffers, msgpack as msgspec writes it, SHA-256 by the library that Python itself uses. */
#include "native.h"
#include <dlfcn.h>
#include <string.h>

/* --- growing buffers ---------------------------------------------------------------------- */

unsigned char *buffer_grow(Buffer *buffer, size_t more) {
    if (more > (size_t)PY_SSIZE_T_MAX / 4 || buffer->size > (size_t)PY_SSIZE_T_MAX / 4) {
        PyErr_NoMemory();
        return NULL;
    }
    if (buffer->data == NULL || buffer->room - buffer->size < more) {
        size_t room = 2 * (buffer->size + more) + 512;
        unsigned char *data = PyMem_Realloc(buffer->data, room);
        if (data == NULL) {
            PyErr_NoMemory();
            return NULL;
        }
        buffer->data = data;
        buffer->room = room;
    }
    return buffer->data + buffer->size;
}

int buffer_put(Buffer *buffer, const void *bytes, size_t size) {
    unsigned char *at = buffer_grow(buffer, size);
    if (at == NULL)
        return FAILED;
    if (size)
        memcpy(at, bytes, size);
    buffer->size += size;
    return DONE;
}

void buffer_free(Buffer *buffer) {
    PyMem_Free(buffer->data);
    memset(buffer, 0, sizeof *buffer);
}

/* --- msgpack ------------------------------------------------------------------------------ */

/* A marker byte, then the lowest `width` bytes of a number, the highest first. */
static int put_marked(Buffer *buffer, int marker, uint64_t value, int width) {
    unsigned char *at = buffer_grow(buffer, (size_t)width + 1);
    if (at == NULL)
        return FAILED;
    at[0] = (unsigned char)marker;
    for (int place = width; place > 0; place--, value >>= 8)
        at[place] = (unsigned char)value;
    buffer->size += (size_t)width + 1;
    return DONE;
}

int put_int(Buffer *buffer, int64_t value) {
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
static int put_length(Buffer *buffer, size_t size, size_t small, int fixed, int one, int two, int four) {
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

int put_text(Buffer *buffer, const char *text, size_t size) {
    int put = put_length(buffer, size, 32, 0xa0, 0xd9, 0xda, 0xdb);
    return put == DONE ? buffer_put(buffer, text, size) : put;
}

int put_binary(Buffer *buffer, const void *bytes, size_t size) {
    int put = put_length(buffer, size, 0, 0, 0xc4, 0xc5, 0xc6);
    return put == DONE ? buffer_put(buffer, bytes, size) : put;
}

int put_array(Buffer *buffer, size_t size) { return put_length(buffer, size, 16, 0x90, 0, 0xdc, 0xdd); }

const char *utf8_of(PyObject *text, Py_ssize_t *size) {
    if (!PyUnicode_CheckExact(text))
        return NULL;
    const char *bytes = PyUnicode_AsUTF8AndSize(text, size);
    if (bytes == NULL)
        PyErr_Clear(); /* a lone surrogate: the Python code says so in its own words */
    return bytes;
}

int put_str(Buffer *buffer, PyObject *text) {
    Py_ssize_t size;
    const char *bytes = utf8_of(text, &size);
    return bytes == NULL ? LEFT : put_text(buffer, bytes, (size_t)size);
}

int int_of(PyObject *number, int64_t *value) {
    int overflow = 0;
    if (!PyLong_CheckExact(number))
        return 0;
    *value = PyLong_AsLongLongAndOverflow(number, &overflow);
    return !overflow;
}

/* --- SHA-256 ------------------------------------------------------------------------------ */

/* Python's own `hashlib` is linked with libcrypto, whose three functions have been the same since its
 * version 0.9.8. They are looked up, not linked with, for a machine that runs us need not have their
 * headers; what was found is tried out; where it is not found or wrong, `hashlib` is asked. */
typedef int (*HashInit)(void *);
typedef int (*HashUpdate)(void *, const void *, size_t);
typedef int (*HashFinal)(unsigned char *, void *);

static HashInit hash_init;
static HashUpdate hash_update;
static HashFinal hash_final;
static PyObject *python_sha256;

enum { CONTEXT_BYTES = 1024 }; /* libcrypto's has 112 */

static int hash_direct(const void *bytes, size_t size, unsigned char *digest) {
    _Alignas(16) unsigned char context[CONTEXT_BYTES];
    return hash_init(context) == 1 && hash_update(context, bytes, size) == 1 && hash_final(digest, context) == 1;
}

static int hash_by_python(const void *bytes, size_t size, unsigned char *digest) {
    PyObject *hash = PyObject_CallFunction(python_sha256, "y#", bytes, (Py_ssize_t)size);
    PyObject *made = hash != NULL ? PyObject_CallMethod(hash, "digest", NULL) : NULL;
    int done = FAILED;
    if (made != NULL && PyBytes_Check(made) && PyBytes_GET_SIZE(made) == HASH_BYTES) {
        memcpy(digest, PyBytes_AS_STRING(made), HASH_BYTES);
        done = DONE;
    } else if (made != NULL) {
        PyErr_SetString(PyExc_TypeError, "sha256 gives 32 bytes");
    }
    Py_XDECREF(made);
    Py_XDECREF(hash);
    return done;
}

int sha256(const void *bytes, size_t size, unsigned char *digest) {
    if (hash_init != NULL) {
        if (hash_direct(bytes, size, digest))
            return DONE;
        PyErr_SetString(PyExc_RuntimeError, "libcrypto could not hash");
        return FAILED;
    }
    return hash_by_python(bytes, size, digest);
}

const char *hashing_by(void) { return hash_init != NULL ? "libcrypto" : "hashlib"; }

static void find_libcrypto(const char *hashlib_file) {
    void *library = dlopen(hashlib_file, RTLD_LAZY | RTLD_LOCAL);
    if (library == NULL)
        return;
    /* A name found through the library that needs it is that of the very libcrypto it works with. */
    *(void **)&hash_update = dlsym(library, "SHA256_Update");
    *(void **)&hash_final = dlsym(library, "SHA256_Final");
    *(void **)&hash_init = dlsym(library, "SHA256_Init");
    if (hash_init == NULL || hash_update == NULL || hash_final == NULL)
        hash_init = NULL;
}

/* Whether both hash alike, over lengths around those of a block. */
static int try_out(void) {
    unsigned char bytes[200], direct[HASH_BYTES], asked[HASH_BYTES];
    for (size_t place = 0; place < sizeof bytes; place++)
        bytes[place] = (unsigned char)(7 * place + 1);
    for (size_t size = 0; hash_init != NULL && size <= sizeof bytes; size += 25) {
        if (hash_by_python(bytes, size, asked) != DONE)
            return FAILED;
        if (!hash_direct(bytes, size, direct) || memcmp(direct, asked, HASH_BYTES) != 0)
            hash_init = NULL;
    }
    return DONE;
}

int hashing_start(void) {
    PyObject *hashlib = PyImport_ImportModule("hashlib");
    python_sha256 = hashlib != NULL ? PyObject_GetAttrString(hashlib, "sha256") : NULL;
    Py_XDECREF(hashlib);
    if (python_sha256 == NULL)
        return FAILED;
    PyObject *module = PyImport_ImportModule("_hashlib");
    PyObject *file = module != NULL ? PyObject_GetAttrString(module, "__file__") : NULL;
    const char *path = file != NULL && PyUnicode_Check(file) ? PyUnicode_AsUTF8(file) : NULL;
    PyErr_Clear(); /* a Python without OpenSSL, or with it built in: hashlib does it */
    if (path != NULL)
        find_libcrypto(path);
    Py_XDECREF(file);
    Py_XDECREF(module);
    return try_out();
}

/* --- fields and arguments ----------------------------------------------------------------- */

int field_find(Field *field, PyTypeObject *of, const char *name) {
    PyObject *found = PyObject_GetAttrString((PyObject *)of, name);
    if (found == NULL)
        return FAILED;
    descrgetfunc get = Py_TYPE(found)->tp_descr_get;
    if (get == NULL) {
        Py_DECREF(found);
        PyErr_Format(PyExc_TypeError, "%s.%s is no field", of->tp_name, name);
        return FAILED;
    }
    Py_XSETREF(field->descriptor, found);
    field->get = get;
    return DONE;
}

static int is_a(char type, PyObject *given) {
    switch (type) {
    case 'l':
        return PyList_CheckExact(given);
    case 'd':
        return PyDict_CheckExact(given);
    case 't':
        return PyTuple_CheckExact(given);
    case 's':
        return PyAnySet_CheckExact(given);
    case 'b':
        return PyBytes_CheckExact(given);
    case 'i':
        return PyLong_CheckExact(given);
    default:
        return 1;
    }
}

int check_arguments(const char *types, PyObject *const *given, Py_ssize_t count) {
    if ((size_t)count != strlen(types)) {
        PyErr_Format(PyExc_TypeError, "%zu arguments are needed, not %zd", strlen(types), count);
        return FAILED;
    }
    for (Py_ssize_t place = 0; place < count; place++) {
        if (!is_a(types[place], given[place])) {
            PyErr_Format(PyExc_TypeError, "argument %zd has the wrong type: %s", place + 1,
                         Py_TYPE(given[place])->tp_name);
            return FAILED;
        }
    }
    return DONE;
}
