/* Stored charges, added up as they stand in the log: what a replay counts, without an object for each.
 *
 * Twins: `decode_charges` of backend/reading_log.py, then `count_all` of domain/snapshot.py. Only bytes are
 * read here, and sums are given back: nothing of a tenant's state is seen, so it is done without Python's
 * lock, beside whatever else runs. A charge that counting needs more of (a plan, a steering rule that draws, a
 * number that does not fit) is left: its bytes are given back as they stand. Bytes that are no charge at all
 * leave everything, so that Python says what is wrong with them.
 */
#include "native.h"
#include <string.h>

enum { DEPTH = 80, FAMILIES = 48, USED = 0, DRAWN = 1, PAIR_BYTES = 16, ROOM_MIN = 64 };
enum { BESIDE_MIN = 256 }; /* charges that are worth letting Python's lock go for */
/* The fields of a charge by their places, and where the plan stands in its basis. */
enum { LAST_NEEDED = 19, CREDIT = 20, BASIS = 22, COUNTED = 4 };

static const int64_t LARGE = (int64_t)1 << 60; /* what one charge may bring; a run stays below four times that */

/* --- one charge ------------------------------------------------------------------------------------ */

typedef struct {
    int64_t ordinal, part;
} Pair;

typedef struct {
    int length;
    Pair of[DEPTH];
} Pairs;

typedef struct {
    int64_t path[DEPTH];
    int length, corporate;
    Text usage_type, period, digest;
    int64_t billed, overage, amount;
    Pairs drawn, credit;
} Charge;

static int take_path(Reader *reader, Charge *charge) {
    uint64_t size;
    if (!take_array(reader, &size) || size == 0 || size > DEPTH)
        return 0;
    charge->length = (int)size;
    for (int place = 0; place < charge->length; place++)
        if (!take_int(reader, &charge->path[place]) || charge->path[place] < 0 || charge->path[place] > INT32_MAX)
            return 0;
    return 1;
}

/* Who paid how much, in order: each something, and all of it not more than can be added up. */
static int take_pairs(Reader *reader, Pairs *pairs) {
    uint64_t size, two;
    if (!take_array(reader, &size) || size > DEPTH)
        return 0;
    pairs->length = (int)size;
    for (int place = 0; place < pairs->length; place++) {
        Pair *pair = &pairs->of[place];
        if (!take_array(reader, &two) || two != 2 || !take_int(reader, &pair->ordinal) || !take_int(reader, &pair->part) ||
            pair->ordinal < 0 || pair->ordinal > INT32_MAX || pair->part <= 0 || pair->part > LARGE / DEPTH)
            return 0;
    }
    return 1;
}

/* Whether no plan counted it. */
static int take_basis(Reader *reader) {
    uint64_t size;
    if (has(reader, 1) && *reader->at == 0xc0) {
        reader->at++;
        return 1;
    }
    if (!take_array(reader, &size))
        return 0;
    for (uint64_t field = 0; field < size; field++) {
        if (field == COUNTED && (!has(reader, 1) || *reader->at != 0xc0))
            return 0;
        if (!skip_value(reader))
            return 0;
    }
    return 1;
}

static int skip_texts(Reader *reader, int count) {
    Text text;
    while (count--)
        if (!take_text(reader, &text))
            return 0;
    return 1;
}

static int skip_ints(Reader *reader, int count) {
    int64_t number;
    while (count--)
        if (!take_int(reader, &number))
            return 0;
    return 1;
}

/* The fields in order, as domain/charging.py has them; 0 where any of them is not plain. */
static int take_fields(Reader *reader, Charge *charge, const Text *corporate) {
    uint64_t fields, two;
    Text payer, sealed;
    if (!take_array(reader, &fields) || fields <= LAST_NEEDED || !skip_texts(reader, 2) || !take_path(reader, charge) ||
        !take_text(reader, &charge->usage_type) || !take_text(reader, &charge->period) || !skip_ints(reader, 1) ||
        !skip_texts(reader, 1) || !skip_ints(reader, 1) || !take_int(reader, &charge->billed) || !skip_ints(reader, 2) ||
        !skip_texts(reader, 2) || !take_text(reader, &payer) || !skip_texts(reader, 1) ||
        !take_pairs(reader, &charge->drawn) || !take_int(reader, &charge->overage) || !take_int(reader, &charge->amount) ||
        !take_array(reader, &two) || two != 2 || !skip_value(reader) || !skip_value(reader) || !take_binary(reader, &sealed))
        return 0;
    charge->credit.length = 0;
    charge->corporate = same_bytes(&payer, corporate);
    for (uint64_t field = CREDIT; field < fields; field++) {
        int taken = field == CREDIT ? take_pairs(reader, &charge->credit) : field == BASIS ? take_basis(reader) : skip_value(reader);
        if (!taken)
            return 0;
    }
    return 1;
}

/* Whether it adds up, and is counted by what was read of it. */
static int is_plain(const Charge *charge) {
    int64_t taken = 0;
    for (int place = 0; place < charge->drawn.length; place++)
        taken += charge->drawn.of[place].part;
    return charge->billed >= 0 && charge->billed <= LARGE && charge->amount >= 0 && charge->amount <= LARGE &&
           charge->overage >= 0 && charge->overage <= LARGE && taken + charge->overage == charge->billed &&
           (charge->corporate || !charge->drawn.length);
}

/* --- a run of them ------------------------------------------------------------------------------------ */

typedef struct {
    Text usage_type, period;
    int money; /* the family of the same period's money; -1: not asked for yet */
} Family;

typedef struct {
    int64_t sum;
    uint32_t ordinal, list; /* twice the family, and USED or DRAWN */
} Slot;

typedef struct {
    const unsigned char *from, *to;
} Stretch;

typedef struct {
    Text corporate, money;
    Family families[FAMILIES];
    int family_count;
    Slot *slots; /* in the order in which they were met */
    size_t slot_count, slot_room;
    uint32_t *places; /* of slots, by hash: their number and one */
    size_t place_room, mask;
    Stretch *left;
    size_t left_count, left_room, left_bytes;
    int64_t charged, amount, brought;
    int is_vast; /* some sum does not fit */
} Tally;

static void tally_free(Tally *tally) {
    PyMem_RawFree(tally->slots);
    PyMem_RawFree(tally->places);
    PyMem_RawFree(tally->left);
}

static void *grown(void *block, size_t *room, size_t needed, size_t size) {
    if (needed <= *room)
        return block;
    size_t more = 2 * needed + ROOM_MIN;
    void *larger = PyMem_RawRealloc(block, more * size);
    if (larger != NULL)
        *room = more;
    return larger;
}

static size_t hash_of(uint32_t list, uint32_t ordinal) {
    uint64_t mixed = ((uint64_t)list << 32 | ordinal) * 0x9e3779b97f4a7c15u;
    return (size_t)(mixed >> 32);
}

static uint32_t *place_of(const Tally *tally, uint32_t list, uint32_t ordinal) {
    size_t place = hash_of(list, ordinal) & tally->mask;
    while (tally->places[place]) {
        const Slot *slot = &tally->slots[tally->places[place] - 1];
        if (slot->ordinal == ordinal && slot->list == list)
            break;
        place = (place + 1) & tally->mask;
    }
    return &tally->places[place];
}

/* Room for as many slots as a charge may need, with at least as many places empty. */
static int make_room(Tally *tally, size_t more) {
    size_t needed = tally->slot_count + more;
    if (needed >= UINT32_MAX / 4)
        return FAILED;
    Slot *slots = grown(tally->slots, &tally->slot_room, needed, sizeof *slots);
    if (slots == NULL)
        return FAILED;
    tally->slots = slots;
    if (tally->mask + 1 >= 2 * needed)
        return DONE;
    size_t size = 4 * ROOM_MIN;
    while (size < 4 * needed)
        size *= 2;
    if (size > tally->place_room) {
        uint32_t *places = PyMem_RawRealloc(tally->places, size * sizeof *places);
        if (places == NULL)
            return FAILED;
        tally->places = places;
        tally->place_room = size;
    }
    tally->mask = size - 1;
    memset(tally->places, 0, size * sizeof *tally->places);
    for (size_t number = 0; number < tally->slot_count; number++)
        *place_of(tally, tally->slots[number].list, tally->slots[number].ordinal) = (uint32_t)number + 1;
    return DONE;
}

static void add(Tally *tally, int list, int64_t ordinal, int64_t more) {
    uint32_t *place = place_of(tally, (uint32_t)list, (uint32_t)ordinal);
    if (*place) {
        int64_t *sum = &tally->slots[*place - 1].sum;
        tally->is_vast |= __builtin_add_overflow(*sum, more, sum);
        return;
    }
    Slot *slot = &tally->slots[tally->slot_count++];
    slot->sum = more;
    slot->ordinal = (uint32_t)ordinal;
    slot->list = (uint32_t)list;
    *place = (uint32_t)tally->slot_count;
}

/* -1: there are too many of them. */
static int family_of(Tally *tally, const Text *usage_type, const Text *period) {
    for (int number = 0; number < tally->family_count; number++)
        if (same_bytes(&tally->families[number].usage_type, usage_type) && same_bytes(&tally->families[number].period, period))
            return number;
    if (tally->family_count == FAMILIES)
        return -1;
    Family *family = &tally->families[tally->family_count];
    family->usage_type = *usage_type;
    family->period = *period;
    family->money = -1;
    return tally->family_count++;
}

static int money_of(Tally *tally, int family) {
    if (tally->families[family].money < 0)
        tally->families[family].money = family_of(tally, &tally->money, &tally->families[family].period);
    return tally->families[family].money;
}

static void add_pairs(Tally *tally, int family, const Pairs *pairs) {
    for (int place = 0; place < pairs->length; place++)
        add(tally, 2 * family + DRAWN, pairs->of[place].ordinal, pairs->of[place].part);
}

/* LEFT where Python is to count it, and then nothing has been added. */
static int count(Tally *tally, const Charge *charge) {
    int family = family_of(tally, &charge->usage_type, &charge->period);
    int money = family >= 0 && charge->corporate && charge->amount ? money_of(tally, family) : family;
    if (money < 0 || tally->brought > 4 * LARGE - charge->billed - charge->amount)
        return LEFT;
    size_t most = 2 * (size_t)charge->length + (size_t)(charge->drawn.length + charge->credit.length);
    if (make_room(tally, most) != DONE)
        return FAILED;
    tally->charged++;
    if (!charge->corporate)
        return DONE;
    tally->brought += charge->billed + charge->amount;
    add_pairs(tally, family, &charge->drawn);
    for (int place = 0; place < charge->length; place++)
        add(tally, 2 * family + USED, charge->path[place], charge->billed);
    if (!charge->amount)
        return DONE;
    tally->amount += charge->amount;
    for (int place = 0; place < charge->length; place++)
        add(tally, 2 * money + USED, charge->path[place], charge->amount);
    add_pairs(tally, money, &charge->credit);
    return DONE;
}

static int leave_one(Tally *tally, const unsigned char *from, const unsigned char *to) {
    Stretch *left = grown(tally->left, &tally->left_room, tally->left_count + 1, sizeof *left);
    if (left == NULL)
        return FAILED;
    tally->left = left;
    left[tally->left_count].from = from;
    left[tally->left_count++].to = to;
    tally->left_bytes += (size_t)(to - from);
    return DONE;
}

/* The envelope: DONE when the charge in it follows. Another schema, or another digest, is no charge of ours. */
static int take_envelope(Reader *reader, int64_t schema, size_t digest_bytes, Text *digest) {
    uint64_t four;
    int64_t version;
    Text actor;
    return take_array(reader, &four) && four == 4 && take_int(reader, &version) && version == schema &&
                   take_text(reader, &actor) && take_binary(reader, digest) && digest->size == digest_bytes
               ? DONE
               : LEFT;
}

/* LEFT: these bytes are no charges, or sums of them do not fit: a member that stands on its path more than once, or
 * credit that is more than the amount, is added however often it is told. */
static int tally_run(Tally *tally, Reader *reader, int64_t charges, int64_t schema, size_t digest_bytes, unsigned char *digests) {
    Charge charge;
    tally->family_count = 0;
    tally->slot_count = tally->left_count = tally->left_bytes = tally->mask = 0;
    tally->charged = tally->amount = tally->brought = 0;
    tally->is_vast = 0;
    for (int64_t number = 0; number < charges; number++) {
        Reader begun = *reader;
        if (take_envelope(reader, schema, digest_bytes, &charge.digest) != DONE)
            return LEFT;
        memcpy(digests + number * (int64_t)digest_bytes, charge.digest.bytes, digest_bytes);
        int done = take_fields(reader, &charge, &tally->corporate) && is_plain(&charge) ? count(tally, &charge) : LEFT;
        if (done == LEFT) {
            *reader = begun;
            done = skip_value(reader) ? leave_one(tally, begun.at, reader->at) : LEFT;
        }
        if (done != DONE)
            return done;
    }
    return tally->is_vast ? LEFT : DONE;
}

/* --- given back ---------------------------------------------------------------------------------------- */

/* The slots of a list as pairs of 64 bits, in the order in which they were met. */
static PyObject *pairs_of(const Tally *tally, uint32_t list) {
    size_t count_of = 0;
    for (size_t number = 0; number < tally->slot_count; number++)
        count_of += tally->slots[number].list == list;
    PyObject *pairs = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(count_of * PAIR_BYTES));
    char *at = pairs != NULL ? PyBytes_AS_STRING(pairs) : NULL;
    for (size_t number = 0; at != NULL && number < tally->slot_count; number++) {
        if (tally->slots[number].list != list)
            continue;
        int64_t pair[] = {tally->slots[number].ordinal, tally->slots[number].sum};
        memcpy(at, pair, sizeof pair);
        at += sizeof pair;
    }
    return pairs;
}

static PyObject *family_told(const Tally *tally, int number) {
    const Family *family = &tally->families[number];
    PyObject *used = pairs_of(tally, (uint32_t)(2 * number + USED));
    PyObject *drawn = used != NULL ? pairs_of(tally, (uint32_t)(2 * number + DRAWN)) : NULL;
    PyObject *told = NULL;
    if (drawn != NULL)
        told = Py_BuildValue("s#s#OO", family->usage_type.bytes, (Py_ssize_t)family->usage_type.size, family->period.bytes,
                             (Py_ssize_t)family->period.size, used, drawn);
    Py_XDECREF(used);
    Py_XDECREF(drawn);
    return told;
}

static PyObject *left_told(const Tally *tally) {
    PyObject *left = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)tally->left_bytes);
    char *at = left != NULL ? PyBytes_AS_STRING(left) : NULL;
    for (size_t number = 0; at != NULL && number < tally->left_count; number++) {
        size_t size = (size_t)(tally->left[number].to - tally->left[number].from);
        memcpy(at, tally->left[number].from, size);
        at += size;
    }
    return left;
}

/* (where it ends, charged, their amount, families, how many are left, their bytes) */
static PyObject *run_told(const Tally *tally, Py_ssize_t end) {
    PyObject *families = PyList_New(0), *left = families != NULL ? left_told(tally) : NULL, *told = NULL;
    int done = left != NULL ? DONE : FAILED;
    for (int number = 0; number < tally->family_count && done == DONE; number++) {
        PyObject *one = family_told(tally, number);
        done = one != NULL && PyList_Append(families, one) == 0 ? DONE : FAILED;
        Py_XDECREF(one);
    }
    if (done == DONE)
        told = Py_BuildValue("nLLOnO", end, (long long)tally->charged, (long long)tally->amount, families,
                             (Py_ssize_t)tally->left_count, left);
    Py_XDECREF(families);
    Py_XDECREF(left);
    return told;
}

static int text_of(PyObject *text, Text *told) {
    Py_ssize_t size = 0;
    told->bytes = (const unsigned char *)utf8_of(text, &size);
    told->size = (size_t)size;
    return told->bytes != NULL;
}

static int append_run(PyObject *runs, Tally *tally, Reader *reader, int64_t charges, int64_t schema, int64_t width,
                      const unsigned char *start, unsigned char *digests) {
    PyThreadState *beside = charges >= BESIDE_MIN ? PyEval_SaveThread() : NULL;
    int done = tally_run(tally, reader, charges, schema, (size_t)width, digests);
    if (beside != NULL)
        PyEval_RestoreThread(beside);
    if (done == FAILED)
        PyErr_NoMemory();
    PyObject *told = done == DONE ? run_told(tally, (Py_ssize_t)(reader->at - start)) : NULL;
    if (done == DONE)
        done = told != NULL && PyList_Append(runs, told) == 0 ? DONE : FAILED;
    Py_XDECREF(told);
    return done;
}

static int64_t sum_of(PyObject *counts) {
    int64_t sum = 0, number;
    for (Py_ssize_t place = 0; place < PyTuple_GET_SIZE(counts); place++) {
        if (!int_of(PyTuple_GET_ITEM(counts, place), &number) || number < 0 || number > INT32_MAX)
            return -1;
        sum += number;
    }
    return sum;
}

/* add_up(states, counts, schema, digest_bytes, corporate, money) -> (runs, digests) | None
 *
 * Adds up runs of so many charges each, that stand one after the other. */
PyObject *native_add_up(PyObject *self, PyObject *const *given, Py_ssize_t count_of) {
    (void)self;
    int64_t schema, width;
    Tally tally;
    memset(&tally, 0, sizeof tally);
    if (check_arguments("btiioo", given, count_of) != DONE)
        return NULL;
    int64_t charges = sum_of(given[1]);
    if (charges < 0 || charges > PyBytes_GET_SIZE(given[0]) || !int_of(given[2], &schema) || !int_of(given[3], &width) ||
        width < 1 || width > HASH_BYTES || !text_of(given[4], &tally.corporate) || !text_of(given[5], &tally.money))
        Py_RETURN_NONE;
    const unsigned char *start = (const unsigned char *)PyBytes_AS_STRING(given[0]);
    Reader reader = {start, start + PyBytes_GET_SIZE(given[0])};
    PyObject *digests = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(charges * width));
    PyObject *runs = digests != NULL ? PyList_New(0) : NULL, *told = NULL;
    unsigned char *at = digests != NULL ? (unsigned char *)PyBytes_AS_STRING(digests) : NULL;
    int done = runs != NULL ? DONE : FAILED;
    for (Py_ssize_t place = 0; place < PyTuple_GET_SIZE(given[1]) && done == DONE; place++) {
        int64_t number = 0;
        int_of(PyTuple_GET_ITEM(given[1], place), &number);
        done = append_run(runs, &tally, &reader, number, schema, width, start, at);
        at += number * width;
    }
    if (done == DONE && reader.at != reader.end)
        done = LEFT;
    if (done == DONE)
        told = PyTuple_Pack(2, runs, digests);
    else if (done == LEFT)
        told = Py_NewRef(Py_None);
    tally_free(&tally);
    Py_XDECREF(runs);
    Py_XDECREF(digests);
    return told;
}

/* --- counted up ------------------------------------------------------------------------------------------ */

static int sums_of(PyObject *counters, PyObject *ceilings, const char *pairs, Py_ssize_t count_of, int64_t *sums) {
    for (Py_ssize_t place = 0; place < count_of; place++) {
        int64_t pair[2], before, ceiling;
        memcpy(pair, pairs + place * PAIR_BYTES, sizeof pair);
        if (pair[0] < 0 || pair[0] >= PyList_GET_SIZE(counters) || pair[0] >= PyList_GET_SIZE(ceilings) ||
            !int_of(PyList_GET_ITEM(counters, pair[0]), &before) || !int_of(PyList_GET_ITEM(ceilings, pair[0]), &ceiling) ||
            __builtin_add_overflow(before, pair[1], &sums[place]) || sums[place] > ceiling)
            return LEFT;
    }
    return DONE;
}

/* count_up(counters, ceilings, pairs) -> bool
 *
 * Adds to each counter; False, and nothing was added, where one is unusual or would pass its ceiling.
 * Twin: `add_up` of domain/snapshot.py. */
PyObject *native_count_up(PyObject *self, PyObject *const *given, Py_ssize_t count_of) {
    (void)self;
    if (check_arguments("llb", given, count_of) != DONE)
        return NULL;
    Py_ssize_t size = PyBytes_GET_SIZE(given[2]) / PAIR_BYTES;
    if (PyBytes_GET_SIZE(given[2]) % PAIR_BYTES)
        Py_RETURN_FALSE;
    int64_t *sums = PyMem_Malloc((size_t)size * sizeof *sums + 1);
    if (sums == NULL)
        return PyErr_NoMemory();
    const char *pairs = PyBytes_AS_STRING(given[2]);
    int done = sums_of(given[0], given[1], pairs, size, sums);
    for (Py_ssize_t place = 0; place < size && done == DONE; place++) {
        int64_t pair[2];
        memcpy(pair, pairs + place * PAIR_BYTES, sizeof pair);
        if (int_renew(PyList_GET_ITEM(given[0], pair[0]), sums[place]))
            continue;
        PyObject *sum = PyLong_FromLongLong(sums[place]);
        done = sum != NULL ? PyList_SetItem(given[0], (Py_ssize_t)pair[0], sum) : FAILED;
    }
    PyMem_Free(sums);
    if (done == FAILED)
        return NULL;
    return PyBool_FromLong(done == DONE);
}
