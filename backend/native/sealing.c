/* The personal part of a record, sealed: what `Sealer.seal_lines` of tenants/sealing.py gives.
 *
 * AES-256-GCM is libcrypto's, found as SHA-256 is (common.c), and tried out against `cryptography` before it is
 * used (using.py); where it is not there, Python seals. One cipher context serves all subjects, with a key set for
 * each record: a context for each would take a kilobyte, which no cache holds for thousands.
 *
 * Token and key of a line are kept in a table: two neighbouring cache lines in place of two dictionaries, and they
 * can be sent for. What it was asked for stays as it is as long as its sealer does: a subject's key never changes.
 */
#include "native.h"
#include <string.h>

enum { KEY_BYTES = 32, TAG_BYTES = 16, LINE_BYTES = 31, LINES_FIRST = 1 << 10, LINES_LAST = 1 << 17, GET_TAG = 0x10 };

/* --- AES-GCM ------------------------------------------------------------------------------- */

static struct {
    void *context;
    int (*init)(void *, const void *, void *, const void *, const void *);
    int (*update)(void *, void *, int *, const void *, int);
    int (*final)(void *, void *, int *);
    int (*control)(void *, int, int, void *);
} gcm;

void sealing_start(void) {
    void *(*make)(void) = NULL;
    const void *(*cipher)(void) = NULL;
    *(void **)&make = libcrypto_find("EVP_CIPHER_CTX_new");
    *(void **)&cipher = libcrypto_find("EVP_aes_256_gcm");
    *(void **)&gcm.init = libcrypto_find("EVP_EncryptInit_ex");
    *(void **)&gcm.update = libcrypto_find("EVP_EncryptUpdate");
    *(void **)&gcm.final = libcrypto_find("EVP_EncryptFinal_ex");
    *(void **)&gcm.control = libcrypto_find("EVP_CIPHER_CTX_ctrl");
    if (make == NULL || cipher == NULL || !gcm.init || !gcm.update || !gcm.final || !gcm.control)
        return;
    gcm.context = make(); /* for as long as the process lives */
    if (gcm.context != NULL && gcm.init(gcm.context, cipher(), NULL, NULL, NULL) != 1)
        gcm.context = NULL;
}

const char *sealing_by(void) { return gcm.context != NULL ? "libcrypto" : "cryptography"; }

/* Nonce, ciphertext and tag, at the end of a buffer. */
static int seal(Buffer *into, const unsigned char *key, const unsigned char *nonce, const Buffer *plain,
                const unsigned char *bound, size_t bound_size) {
    int size = 0, rest = 0;
    if (gcm.context == NULL || plain->size > INT32_MAX / 2 || bound_size > INT32_MAX / 2)
        return LEFT;
    unsigned char *at = buffer_grow(into, NONCE_BYTES + plain->size + TAG_BYTES);
    if (at == NULL)
        return FAILED;
    memcpy(at, nonce, NONCE_BYTES);
    unsigned char *text = at + NONCE_BYTES, *tag = text + plain->size;
    if (gcm.init(gcm.context, NULL, NULL, key, nonce) != 1 ||
        gcm.update(gcm.context, NULL, &size, bound, (int)bound_size) != 1 ||
        gcm.update(gcm.context, text, &size, plain->data, (int)plain->size) != 1 ||
        gcm.final(gcm.context, text + size, &rest) != 1 || (size_t)size + (size_t)rest != plain->size ||
        gcm.control(gcm.context, GET_TAG, TAG_BYTES, tag) != 1) {
        PyErr_SetString(PyExc_RuntimeError, "libcrypto could not seal");
        return FAILED;
    }
    into->size += NONCE_BYTES + plain->size + TAG_BYTES;
    return DONE;
}

/* --- lines ----------------------------------------------------------------------------------- */

typedef struct {
    Py_hash_t hash;
    PyObject *token; /* NULL: nobody */
    unsigned char key[KEY_BYTES];
    unsigned char size;
    char text[LINE_BYTES];
} Line;

typedef struct {
    PyObject_HEAD
    PyObject *keyed, *tenant, *token_of, *key_of;
    Line *lines;
    size_t room, held;
} Sealing;

/* Keys are not left lying about in memory that others are given. */
static void forget(Line *lines, size_t room) {
    volatile unsigned char *bytes = (volatile unsigned char *)lines;
    for (size_t place = 0; place < room; place++)
        Py_CLEAR(lines[place].token);
    for (size_t place = 0; place < room * sizeof *lines; place++)
        bytes[place] = 0;
}

static void sealing_dealloc(PyObject *object) {
    Sealing *with = (Sealing *)object;
    if (with->lines != NULL)
        forget(with->lines, with->room);
    PyMem_Free(with->lines);
    Py_XDECREF(with->keyed);
    Py_XDECREF(with->tenant);
    Py_XDECREF(with->token_of);
    Py_XDECREF(with->key_of);
    PyObject_Free(object);
}

PyTypeObject sealing_type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "allotment.backend.native.slices.Sealing",
    .tp_basicsize = sizeof(Sealing),
    .tp_dealloc = sealing_dealloc,
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_doc = "What seals for one tenant: its digest, and the token and key of each line it was asked for.",
};

/* Where a line is, or would be. */
static Line *place_of(Line *lines, size_t room, Py_hash_t hash, const char *text, size_t size) {
    size_t place = (size_t)hash & (room - 1);
    while (lines[place].token != NULL && (lines[place].hash != hash || lines[place].size != size ||
                                          memcmp(lines[place].text, text, size) != 0))
        place = (place + 1) & (room - 1);
    return &lines[place];
}

/* Twice as much room, or, where there is much already, all anew. */
static int make_room(Sealing *with) {
    if (with->room == LINES_LAST) {
        forget(with->lines, with->room);
        with->held = 0;
        return DONE;
    }
    size_t room = with->room ? 2 * with->room : LINES_FIRST;
    Line *lines = PyMem_Calloc(room, sizeof *lines);
    if (lines == NULL) {
        PyErr_NoMemory();
        return FAILED;
    }
    for (size_t place = 0; place < with->room; place++) {
        Line *line = &with->lines[place];
        if (line->token == NULL)
            continue;
        *place_of(lines, room, line->hash, line->text, line->size) = *line;
        line->token = NULL;
    }
    if (with->lines != NULL)
        forget(with->lines, with->room);
    PyMem_Free(with->lines);
    with->lines = lines;
    with->room = room;
    return DONE;
}

void sealing_send_for(PyObject *sealing, PyObject *line, int step) {
    const Sealing *with = (const Sealing *)sealing;
    if (with->room == 0 || !PyUnicode_CheckExact(line))
        return;
    const Line *there = &with->lines[(size_t)PyObject_Hash(line) & (with->room - 1)];
    send_for(step == 0 ? (const void *)there : there->token);
    send_for((const char *)there + sizeof *there - 1);
}

/* What Python says of a line: its token, a new reference, and its key. */
static PyObject *ask(const Sealing *with, PyObject *line, unsigned char *key) {
    PyObject *token = PyObject_CallOneArg(with->token_of, line);
    PyObject *made = token != NULL ? PyObject_CallOneArg(with->key_of, token) : NULL;
    int right = made != NULL && PyBytes_CheckExact(token) && PyBytes_CheckExact(made) &&
                PyBytes_GET_SIZE(made) == KEY_BYTES;
    if (right)
        memcpy(key, PyBytes_AS_STRING(made), KEY_BYTES);
    else if (made != NULL)
        PyErr_SetString(PyExc_TypeError, "a token is bytes, and a key 32 of them");
    Py_XDECREF(made);
    if (!right)
        Py_CLEAR(token);
    return token;
}

/* The token of a line, a new reference, and its key. */
static PyObject *token_of(Sealing *with, PyObject *line, unsigned char *key) {
    Py_ssize_t size;
    const char *text = utf8_of(line, &size);
    Py_hash_t hash = text != NULL ? PyObject_Hash(line) : -1;
    if (hash == -1 || size > LINE_BYTES)
        return ask(with, line, key);
    const Line *known = with->room ? place_of(with->lines, with->room, hash, text, (size_t)size) : NULL;
    if (known != NULL && known->token != NULL) {
        memcpy(key, known->key, KEY_BYTES);
        return Py_NewRef(known->token);
    }
    PyObject *token = ask(with, line, key);
    /* Only now: whoever was asked may have asked for others. */
    if (token == NULL || (2 * with->held >= with->room && make_room(with) != DONE)) {
        Py_XDECREF(token);
        return NULL;
    }
    Line *place = place_of(with->lines, with->room, hash, text, (size_t)size);
    if (place->token == NULL) {
        place->hash = hash;
        place->token = Py_NewRef(token);
        memcpy(place->key, key, KEY_BYTES);
        place->size = (unsigned char)size;
        memcpy(place->text, text, (size_t)size);
        with->held++;
    }
    return token;
}

/* The keyed digest of a content: `keyed` is a hash that has taken the key in. */
static PyObject *digest_of(const Sealing *with, const Buffer *content) {
    static PyObject *copy, *update, *digest;
    if (copy == NULL)
        copy = PyUnicode_InternFromString("copy");
    if (update == NULL)
        update = PyUnicode_InternFromString("update");
    if (digest == NULL)
        digest = PyUnicode_InternFromString("digest");
    if (copy == NULL || update == NULL || digest == NULL)
        return NULL;
    PyObject *bytes = PyBytes_FromStringAndSize((const char *)content->data, (Py_ssize_t)content->size);
    PyObject *hash = bytes != NULL ? PyObject_CallMethodNoArgs(with->keyed, copy) : NULL;
    PyObject *none = hash != NULL ? PyObject_CallMethodOneArg(hash, update, bytes) : NULL;
    PyObject *made = none != NULL ? PyObject_CallMethodNoArgs(hash, digest) : NULL;
    Py_XDECREF(none);
    Py_XDECREF(hash);
    Py_XDECREF(bytes);
    return made;
}

int sealing_apply(PyObject *sealing, One *one, Buffer *sealed, const Buffer *content, const Buffer *personal,
                  PyObject *line, const unsigned char *nonce) {
    Sealing *with = (Sealing *)sealing;
    unsigned char key[KEY_BYTES], bound[TENANT_BYTES + sizeof one->key];
    if (gcm.context == NULL)
        return LEFT;
    one->digest = digest_of(with, content);
    one->token = one->digest != NULL ? token_of(with, line, key) : NULL;
    if (one->token == NULL)
        return FAILED;
    memcpy(bound, PyBytes_AS_STRING(with->tenant), TENANT_BYTES);
    memcpy(bound + TENANT_BYTES, one->key, sizeof one->key);
    one->sealed_at = sealed->size;
    int done = seal(sealed, key, nonce, personal, bound, sizeof bound);
    one->sealed_size = sealed->size - one->sealed_at;
    return done;
}

/* sealing(keyed, tenant, token_of, key_of) -> Sealing: for one tenant, for as long as its sealer lives. */
PyObject *native_sealing(PyObject *self, PyObject *const *given, Py_ssize_t count) {
    (void)self;
    if (check_arguments("oboo", given, count) != DONE)
        return NULL;
    if (PyBytes_GET_SIZE(given[1]) != TENANT_BYTES) {
        PyErr_SetString(PyExc_ValueError, "a tenant's id has 16 bytes");
        return NULL;
    }
    Sealing *made = PyObject_New(Sealing, &sealing_type);
    if (made == NULL)
        return NULL;
    made->keyed = Py_NewRef(given[0]);
    made->tenant = Py_NewRef(given[1]);
    made->token_of = Py_NewRef(given[2]);
    made->key_of = Py_NewRef(given[3]);
    made->lines = NULL;
    made->room = made->held = 0;
    return (PyObject *)made;
}
