/* What every record of a slice is charged with, side by side: to Python a sequence of tuples, or None where a
 * record is not fresh. The sealed parts lie one after the other in one piece of memory. */
#include "native.h"
#include <string.h>

static void prepared_dealloc(PyObject *object) {
    Prepared *prepared = (Prepared *)object;
    for (Py_ssize_t place = 0; place < prepared->size; place++) {
        One *one = &prepared->ones[place];
        Py_XDECREF(one->record);
        Py_XDECREF(one->digest);
        Py_XDECREF(one->token);
    }
    PyMem_Free(prepared->ones);
    buffer_free(&prepared->sealed);
    PyObject_Free(object);
}

Prepared *prepared_new(Py_ssize_t size) {
    Prepared *made = PyObject_New(Prepared, &prepared_type);
    if (made == NULL)
        return NULL;
    memset(&made->sealed, 0, sizeof made->sealed);
    made->size = size;
    made->ones = PyMem_Calloc((size_t)size + 1, sizeof(One));
    if (made->ones == NULL) {
        made->size = 0;
        Py_DECREF(made);
        PyErr_NoMemory();
        return NULL;
    }
    return made;
}

static Py_ssize_t prepared_length(PyObject *object) { return ((Prepared *)object)->size; }

static PyObject *prepared_item(PyObject *object, Py_ssize_t place) {
    const Prepared *prepared = (Prepared *)object;
    if (place < 0 || place >= prepared->size) {
        PyErr_SetString(PyExc_IndexError, "there is no such record");
        return NULL;
    }
    const One *one = &prepared->ones[place];
    if (one->record == NULL)
        Py_RETURN_NONE;
    return Py_BuildValue("Oy#OOy#", one->record, (const char *)one->key, (Py_ssize_t)sizeof one->key, one->digest,
                         one->token, (const char *)prepared->sealed.data + one->sealed_at,
                         (Py_ssize_t)one->sealed_size);
}

static PySequenceMethods as_sequence = {.sq_length = prepared_length, .sq_item = prepared_item};

PyTypeObject prepared_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "allotment.backend.native.slices.Prepared",
    .tp_basicsize = sizeof(Prepared),
    .tp_dealloc = prepared_dealloc,
    .tp_as_sequence = &as_sequence,
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_doc = "What every record of a slice is charged with; None for what is not plain.",
};

/* Takes over what Python has prepared, where it is of the usual form. */
static int take_over(Prepared *prepared, One *one, PyObject *tuple) {
    if (!PyTuple_CheckExact(tuple) || PyTuple_GET_SIZE(tuple) != 5)
        return DONE;
    PyObject *key = PyTuple_GET_ITEM(tuple, 1), *sealed = PyTuple_GET_ITEM(tuple, 4);
    if (!PyBytes_CheckExact(key) || PyBytes_GET_SIZE(key) != sizeof one->key ||
        !PyBytes_CheckExact(PyTuple_GET_ITEM(tuple, 2)) || !PyBytes_CheckExact(PyTuple_GET_ITEM(tuple, 3)) ||
        !PyBytes_CheckExact(sealed))
        return DONE;
    one->sealed_at = prepared->sealed.size;
    one->sealed_size = (size_t)PyBytes_GET_SIZE(sealed);
    if (buffer_put(&prepared->sealed, PyBytes_AS_STRING(sealed), one->sealed_size) != DONE)
        return FAILED;
    memcpy(one->key, PyBytes_AS_STRING(key), sizeof one->key);
    one->record = Py_NewRef(PyTuple_GET_ITEM(tuple, 0));
    one->digest = Py_NewRef(PyTuple_GET_ITEM(tuple, 2));
    one->token = Py_NewRef(PyTuple_GET_ITEM(tuple, 3));
    return DONE;
}

/* prepared(list) -> Prepared: the same, of what Python has prepared. */
PyObject *native_prepared(PyObject *self, PyObject *const *given, Py_ssize_t count) {
    (void)self;
    if (check_arguments("l", given, count) != DONE)
        return NULL;
    Prepared *made = prepared_new(PyList_GET_SIZE(given[0]));
    int done = made == NULL ? FAILED : DONE;
    for (Py_ssize_t place = 0; done == DONE && place < made->size; place++)
        done = take_over(made, &made->ones[place], PyList_GET_ITEM(given[0], place));
    if (done != DONE)
        Py_CLEAR(made);
    return (PyObject *)made;
}
