/* What became of a batch, added up at once where all of it was charged, as most are.
 *
 * Twin: `_charged_together` of backend/intake/door.py. Whatever is not plainly that is left: it is counted one by one.
 */
#include "native.h"
#include <string.h>

static PyTypeObject *outcome_of;
static PyObject *charged;
static Field status_field, reason_field, amount_field;

int outcomes_setup(PyObject *parts) {
    PyObject *type = PyTuple_GET_SIZE(parts) > 3 ? PyTuple_GET_ITEM(parts, 2) : NULL;
    if (type == NULL || !PyType_Check(type) || !PyUnicode_CheckExact(PyTuple_GET_ITEM(parts, 3))) {
        PyErr_SetString(PyExc_TypeError, "the type of outcomes is needed, and what is charged is called");
        return FAILED;
    }
    if (field_find(&status_field, (PyTypeObject *)type, "status") != DONE ||
        field_find(&reason_field, (PyTypeObject *)type, "reason") != DONE ||
        field_find(&amount_field, (PyTypeObject *)type, "amount") != DONE)
        return FAILED;
    Py_XSETREF(charged, Py_NewRef(PyTuple_GET_ITEM(parts, 3)));
    Py_XSETREF(outcome_of, (PyTypeObject *)Py_NewRef(type));
    return DONE;
}

static int is_same(PyObject *text, PyObject *other) {
    if (text == other)
        return 1;
    return text != NULL && PyUnicode_CheckExact(text) && PyUnicode_Compare(text, other) == 0;
}

/* What it cost; 0 where it is not plainly a charge. */
static int is_charged(PyObject *outcome, int64_t *amount) {
    if (Py_TYPE(outcome) != outcome_of || !is_same(field_of(&status_field, outcome), charged))
        return 0;
    PyObject *reason = field_of(&reason_field, outcome), *cost = field_of(&amount_field, outcome);
    return reason != NULL && PyUnicode_CheckExact(reason) && PyUnicode_GET_LENGTH(reason) == 0 && cost != NULL &&
           int_of(cost, amount);
}

/* When it began; 0 where it is no record of this source. */
static int is_of(PyObject *record, PyObject *source, int64_t *start) {
    if (Py_TYPE(record) != record_type || !is_same(field_of(&record_field[SOURCE], record), source))
        return 0;
    PyObject *at = field_of(&record_field[STARTED_AT], record);
    return at != NULL && int_of(at, start);
}

/* charged_together(records, outcomes, before) -> (source, amount, late) | None */
PyObject *native_charged_together(PyObject *self, PyObject *const *given, Py_ssize_t count) {
    (void)self;
    int64_t before, amount, start, sum = 0;
    Py_ssize_t late = 0;
    if (check_arguments("lli", given, count) != DONE)
        return NULL;
    Py_ssize_t size = PyList_GET_SIZE(given[0]);
    if (record_type == NULL || outcome_of == NULL || size == 0 || PyList_GET_SIZE(given[1]) != size ||
        !int_of(given[2], &before) || Py_TYPE(PyList_GET_ITEM(given[0], 0)) != record_type)
        Py_RETURN_NONE;
    PyObject *source = field_of(&record_field[SOURCE], PyList_GET_ITEM(given[0], 0));
    if (source == NULL || !PyUnicode_CheckExact(source))
        Py_RETURN_NONE;
    for (Py_ssize_t place = 0; place < size; place++) {
        if (!is_charged(PyList_GET_ITEM(given[1], place), &amount) ||
            !is_of(PyList_GET_ITEM(given[0], place), source, &start) || __builtin_add_overflow(sum, amount, &sum))
            Py_RETURN_NONE;
        late += start < before;
    }
    return Py_BuildValue("OLn", source, (long long)sum, late);
}
