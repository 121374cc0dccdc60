/* The personal part of a record, sealed: what `Sealer.seal_lines` of tenants/sealing.py gives.
 *
 * AES-256-GCM is libcrypto's, found as SHA-256 is (common.c), and tried out against `cryptography` before it is
 * used (using.py); where it is not there, Python seals. One cipher context serves all subjects, with a key set for
 * each record: a context for each would take a kilobyte, which no cache holds for thousands.
 *
 * Token and key of a line are kept in a table: two neighbouring cache lines in place of two dictionaries, and they
 * can be sent for. What it was asked for stays as it is as long as its sealer does: a subject's key never changes.
 * A line that is not in it has its token made and its key unwrapped here, as `Sealer.token` and `_key_for` do: of
 * a million devices most are not. Only a subject without a key is left to Python, which makes one.
 */
#include "native.h"
#include <string.h>

enum { SUBJECT_KEY_BYTES = 32, TAG_BYTES = 16, LINE_BYTES = 31, LINES_FIRST = 1 << 10, LINES_LAST = 1 << 17 };
enum { GET_TAG = 0x10, SET_TAG = 0x11, TOKEN_BYTES = 16, PAD_BYTES = 64, WRAPPED_BYTES = NONCE_BYTES + SUBJECT_KEY_BYTES + TAG_BYTES };

/* --- AES-GCM ------------------------------------------------------------------------------- */

static struct {
    void *context;
    int (*init)(void *, const void *, void *, const void *, const void *);
    int (*update)(void *, void *, int *, const void *, int);
    int (*final)(void *, void *, int *);
    int (*control)(void *, int, int, void *);
    /* The same, to unwrap. */
    void *opening;
    int (*open_init)(void *, const void *, void *, const void *, const void *);
    int (*open_update)(void *, void *, int *, const void *, int);
    int (*open_final)(void *, void *, int *);
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
    *(void **)&gcm.open_init = libcrypto_find("EVP_DecryptInit_ex");
    *(void **)&gcm.open_update = libcrypto_find("EVP_DecryptUpdate");
    *(void **)&gcm.open_final = libcrypto_find("EVP_DecryptFinal_ex");
    gcm.opening = gcm.open_init && gcm.open_update && gcm.open_final ? make() : NULL;
    if (gcm.opening != NULL && gcm.open_init(gcm.opening, cipher(), NULL, NULL, NULL) != 1)
        gcm.opening = NULL;
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
    unsigned char key[SUBJECT_KEY_BYTES];
    unsigned char size;
    char text[LINE_BYTES];
} Line;

typedef struct {
    PyObject_HEAD
    PyObject *keyed, *tenant, *token_of, *key_of, *wrapped;
    unsigned char tenant_key[SUBJECT_KEY_BYTES], inner[PAD_BYTES], outer[PAD_BYTES]; /* of the HMAC that makes tokens */
    Line *lines;
    size_t room, held;
} Sealing;

/* Keys are not left lying about in memory that others are given. */
static void wipe(void *what, size_t size) {
    volatile unsigned char *bytes = (volatile unsigned char *)what;
    for (size_t place = 0; place < size; place++)
        bytes[place] = 0;
}

static void forget(Line *lines, size_t room) {
    for (size_t place = 0; place < room; place++)
        Py_CLEAR(lines[place].token);
    wipe(lines, room * sizeof *lines);
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
    Py_XDECREF(with->wrapped);
    wipe(with->tenant_key, sizeof with->tenant_key);
    wipe(with->inner, sizeof with->inner);
    wipe(with->outer, sizeof with->outer);
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
                PyBytes_GET_SIZE(made) == SUBJECT_KEY_BYTES;
    if (right)
        memcpy(key, PyBytes_AS_STRING(made), SUBJECT_KEY_BYTES);
    else if (made != NULL)
        PyErr_SetString(PyExc_TypeError, "a token is bytes, and a key 32 of them");
    Py_XDECREF(made);
    if (!right)
        Py_CLEAR(token);
    return token;
}

/* HMAC-SHA256 under the tenant's token key, cut to a token. */
static int make_token(const Sealing *with, const char *text, size_t size, unsigned char *token) {
    unsigned char inner[PAD_BYTES + LINE_BYTES], outer[PAD_BYTES + HASH_BYTES], made[HASH_BYTES];
    memcpy(inner, with->inner, PAD_BYTES);
    memcpy(inner + PAD_BYTES, text, size);
    memcpy(outer, with->outer, PAD_BYTES);
    if (sha256(inner, PAD_BYTES + size, outer + PAD_BYTES) != DONE || sha256(outer, sizeof outer, made) != DONE)
        return FAILED;
    memcpy(token, made, TOKEN_BYTES);
    return DONE;
}

/* A subject's key out of what it is wrapped in; LEFT where that does not open. */
static int unwrap(const Sealing *with, const unsigned char *token, const unsigned char *wrapped, unsigned char *key) {
    unsigned char bound[TENANT_BYTES + TOKEN_BYTES], tag[TAG_BYTES], none[TAG_BYTES];
    const unsigned char *text = wrapped + NONCE_BYTES;
    int size = 0, rest = 0;
    memcpy(bound, PyBytes_AS_STRING(with->tenant), TENANT_BYTES);
    memcpy(bound + TENANT_BYTES, token, TOKEN_BYTES);
    memcpy(tag, text + SUBJECT_KEY_BYTES, TAG_BYTES);
    return gcm.opening != NULL && gcm.open_init(gcm.opening, NULL, NULL, with->tenant_key, wrapped) == 1 &&
                   gcm.open_update(gcm.opening, NULL, &size, bound, sizeof bound) == 1 &&
                   gcm.open_update(gcm.opening, key, &size, text, SUBJECT_KEY_BYTES) == 1 && size == SUBJECT_KEY_BYTES &&
                   gcm.control(gcm.opening, SET_TAG, TAG_BYTES, tag) == 1 &&
                   gcm.open_final(gcm.opening, none, &rest) == 1 && rest == 0
               ? DONE
               : LEFT;
}

/* Its token, a new reference, and its key, of a line whose subject has one; LEFT where Python is to be asked. */
static int find_key(const Sealing *with, const char *text, size_t size, PyObject **token, unsigned char *key) {
    unsigned char made[TOKEN_BYTES];
    if (gcm.opening == NULL || PyDict_GET_SIZE(with->wrapped) == 0)
        return LEFT;
    if (make_token(with, text, size, made) != DONE)
        return FAILED;
    PyObject *known = PyBytes_FromStringAndSize((const char *)made, TOKEN_BYTES);
    PyObject *wrapped = known != NULL ? PyDict_GetItemWithError(with->wrapped, known) : NULL;
    int done = PyErr_Occurred() ? FAILED : LEFT;
    if (wrapped != NULL && PyBytes_CheckExact(wrapped) && PyBytes_GET_SIZE(wrapped) == WRAPPED_BYTES)
        done = unwrap(with, made, (const unsigned char *)PyBytes_AS_STRING(wrapped), key);
    if (done == DONE)
        *token = known;
    else
        Py_XDECREF(known);
    return done;
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
        memcpy(key, known->key, SUBJECT_KEY_BYTES);
        return Py_NewRef(known->token);
    }
    PyObject *token = NULL;
    int done = find_key(with, text, (size_t)size, &token, key);
    if (done == LEFT)
        token = ask(with, line, key);
    /* Only now: whoever was asked may have asked for others. */
    if (token == NULL || (2 * with->held >= with->room && make_room(with) != DONE)) {
        Py_XDECREF(token);
        return NULL;
    }
    Line *place = place_of(with->lines, with->room, hash, text, (size_t)size);
    if (place->token == NULL) {
        place->hash = hash;
        place->token = Py_NewRef(token);
        memcpy(place->key, key, SUBJECT_KEY_BYTES);
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
    unsigned char key[SUBJECT_KEY_BYTES], bound[TENANT_BYTES + sizeof one->key];
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

/* What HMAC hashes before a message, and before what came of that. */
static void pad(Sealing *with, const char *key) {
    for (int place = 0; place < PAD_BYTES; place++) {
        unsigned char byte = place < SUBJECT_KEY_BYTES ? (unsigned char)key[place] : 0;
        with->inner[place] = byte ^ 0x36;
        with->outer[place] = byte ^ 0x5c;
    }
}

/* sealing(keyed, tenant, token_of, key_of, token_key, tenant_key, wrapped) -> Sealing
 *
 * For one tenant, for as long as its sealer lives. */
PyObject *native_sealing(PyObject *self, PyObject *const *given, Py_ssize_t count) {
    (void)self;
    if (check_arguments("oboobbd", given, count) != DONE)
        return NULL;
    if (PyBytes_GET_SIZE(given[1]) != TENANT_BYTES || PyBytes_GET_SIZE(given[4]) != SUBJECT_KEY_BYTES ||
        PyBytes_GET_SIZE(given[5]) != SUBJECT_KEY_BYTES) {
        PyErr_SetString(PyExc_ValueError, "a tenant's id has 16 bytes, its keys have 32");
        return NULL;
    }
    Sealing *made = PyObject_New(Sealing, &sealing_type);
    if (made == NULL)
        return NULL;
    made->keyed = Py_NewRef(given[0]);
    made->tenant = Py_NewRef(given[1]);
    made->token_of = Py_NewRef(given[2]);
    made->key_of = Py_NewRef(given[3]);
    made->wrapped = Py_NewRef(given[6]);
    pad(made, PyBytes_AS_STRING(given[4]));
    memcpy(made->tenant_key, PyBytes_AS_STRING(given[5]), SUBJECT_KEY_BYTES);
    made->lines = NULL;
    made->room = made->held = 0;
    return (PyObject *)made;
}
