/* The module: see README.md for what it does and what it leaves to Python. */
#include "native.h"

static PyObject *set_up(PyObject *self, PyObject *arguments) {
    (void)self;
    PyObject *record, *limits, *parts;
    if (!PyArg_ParseTuple(arguments, "OO!O!", &record, &PyTuple_Type, &limits, &PyTuple_Type, &parts) || charging_setup(parts) != DONE ||
        outcomes_setup(parts) != DONE || records_setup(record, limits) != DONE)
        return NULL;
    Py_RETURN_NONE;
}

#define CALL(name, text) {#name, (PyCFunction)(void (*)(void))native_##name, METH_FASTCALL, text}

static PyMethodDef methods[] = {
    {"set_up", set_up, METH_VARARGS, "The types, limits and constants of the Python code that this stands in for."},
    CALL(identities, "The identity of each record; None where not all are records."),
    CALL(all_different, "Whether no identity stands there twice; False says nothing."),
    CALL(all_sound, "Whether every record is plainly sound; False says nothing."),
    CALL(prepare, "What every record that was not seen before is charged with."),
    CALL(prepared, "The same, of what Python has prepared."),
    CALL(sealing, "What seals for one tenant, for as long as its sealer lives."),
    CALL(charge, "Charges from a place on, as far as it is plain; the first place that is not."),
    CALL(leaves, "The leaf hashes of events."),
    CALL(append_peaks, "Adds leaves to the peaks of a Merkle tree, in place."),
    CALL(copy_rows, "The rows of a group in PostgreSQL's binary COPY format."),
    CALL(hold, "Holds keys with their digests and a status."),
    CALL(enter, "Enters keys into a table; how many slots they took."),
    CALL(moments, "Under which moments identities may stand in a table."),
    CALL(occupied, "How many slots of a table are taken."),
    CALL(hold_gathered, "Holds keys that stand one after the other."),
    CALL(enter_gathered, "Enters keys that stand one after the other into a table; how many slots they took."),
    CALL(days_of, "The days of keys that stand one after the other."),
    CALL(add_up, "Adds up runs of stored charges."),
    CALL(count_up, "Adds to each counter, as far as none passes its ceiling."),
    CALL(tally, "What stored charges come to, and their rows of usage; None where not all are of that form."),
    CALL(together, "Adds numbers of 8 bytes to those of blocks, one by one."),
    CALL(read_lines, "Reads plain lines of our own shape; where the first begins that was not read."),
    CALL(charged_together, "What a batch of one source came to that was all charged; None where it was not."),
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "allotment.backend.native.slices", "A slice of usage, charged in native code.", -1,
    methods, NULL, NULL, NULL, NULL,
};

/* Grows with whatever makes an older build unfit for the Python code beside it: see using.py. */
enum { INTERFACE = 9 };

PyMODINIT_FUNC PyInit_slices(void) {
    if (hashing_start() != DONE || PyType_Ready(&prepared_type) != 0 || PyType_Ready(&sealing_type) != 0)
        return NULL;
    sealing_start();
    PyObject *module = PyModule_Create(&definition);
    if (module != NULL && (PyModule_AddIntConstant(module, "INTERFACE", INTERFACE) != 0 ||
                           PyModule_AddStringConstant(module, "HASHING", hashing_by()) != 0 ||
                           PyModule_AddStringConstant(module, "SEALING", sealing_by()) != 0))
        Py_CLEAR(module);
    return module;
}
