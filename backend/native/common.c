/* Growing buffers, msgpack as msgspec writes it, SHA-256 by the library that Python itself uses. */
#include "native.h"
#include <dlfcn.h>
#include <structmember.h>
#include <string.h>

/* --- growing buffers ---------------------------------------------------------------------- */

unsigned char *buffer_larger(Buffer *buffer, size_t more) {
    if (more > (size_t)PY_SSIZE_T_MAX / 4 || buffer->size > (size_t)PY_SSIZE_T_MAX / 4) {
        PyErr_NoMemory();
        return NULL;
    }
    size_t room = 2 * (buffer->size + more) + 512;
    unsigned char *data = PyMem_Realloc(buffer->data, room);
    if (data == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    buffer->data = data;
    buffer->room = room;
    return buffer->data + buffer->size;
}

void buffer_free(Buffer *buffer) {
    PyMem_Free(buffer->data);
    memset(buffer, 0, sizeof *buffer);
}

/* --- msgpack ------------------------------------------------------------------------------ */

const char *utf8_of_any(PyObject *text, Py_ssize_t *size) {
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

static void *library; /* `hashlib`'s own */

/* A name found through the library that needs it is that of the very libcrypto it works with. */
void *libcrypto_find(const char *name) { return library != NULL ? dlsym(library, name) : NULL; }

static void find_libcrypto(const char *hashlib_file) {
    library = dlopen(hashlib_file, RTLD_LAZY | RTLD_LOCAL);
    *(void **)&hash_update = libcrypto_find("SHA256_Update");
    *(void **)&hash_final = libcrypto_find("SHA256_Final");
    *(void **)&hash_init = libcrypto_find("SHA256_Init");
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

/* A slot that holds an object: of `__slots__`, or of a struct of msgspec's. */
int field_find(Field *field, PyTypeObject *of, const char *name) {
    PyObject *found = PyObject_GetAttrString((PyObject *)of, name);
    if (found == NULL)
        return FAILED;
    const PyMemberDef *member = NULL;
    if (Py_TYPE(found) == &PyMemberDescr_Type && ((PyMemberDescrObject *)found)->d_common.d_type == of)
        member = ((PyMemberDescrObject *)found)->d_member;
    int is_slot = member != NULL && member->type == T_OBJECT_EX;
    if (is_slot)
        field->offset = member->offset;
    else
        PyErr_Format(PyExc_TypeError, "%s.%s is no slot", of->tp_name, name);
    Py_DECREF(found);
    return is_slot ? DONE : FAILED;
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
    case 'p':
        return Py_TYPE(given) == &prepared_type;
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
