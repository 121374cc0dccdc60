/* What a chunk of stored charges comes to, and their rows of usage: read where they stand, with no object for each.
 *
 * Its twin is `projections/tally.py` with `projections/usages.py` `copied`. Charges that are not plain (somebody else
 * pays, allowances of money pay, a plan counts) are handed back to be counted there; what is not a charge of the
 * form it was written for has the whole chunk left.
 */
#include "native.h"
#include <stdlib.h>
#include <string.h>

enum { EVENT_FIELDS_MIN = 20, EVENT_FIELDS_MAX = 23, KEYS_MAX = 6, FIGURES_MAX = 6, KEY_SIZE = 16 };

static const uint64_t SINCE_2000 = 946684800000000u; /* PostgreSQL counts time from the year 2000 */

/* --- texts that repeat -------------------------------------------------------------------- */

typedef struct {
    Text *texts;
    int32_t *slots; /* number of a text, and one more; 0 where none is */
    int32_t *ranks; /* in the order of their bytes, once all are there */
    size_t count, room, slot_count;
} Texts;

static uint64_t hash_of(const void *bytes, size_t size) {
    const unsigned char *at = bytes;
    uint64_t hash = 14695981039346656037u;
    for (size_t place = 0; place < size; place++)
        hash = (hash ^ at[place]) * 1099511628211u;
    return hash ^ hash >> 29;
}

static int texts_grow(Texts *texts) {
    size_t room = texts->room ? 2 * texts->room : 64, slot_count = 4 * room;
    Text *more = PyMem_RawRealloc(texts->texts, room * sizeof *more);
    if (more != NULL)
        texts->texts = more;
    int32_t *slots = PyMem_RawCalloc(slot_count, sizeof *slots);
    if (more == NULL || slots == NULL) {
        PyMem_RawFree(slots);
        return FAILED;
    }
    for (size_t place = 0; place < texts->count; place++) {
        size_t slot = hash_of(more[place].bytes, more[place].size) & (slot_count - 1);
        while (slots[slot])
            slot = (slot + 1) & (slot_count - 1);
        slots[slot] = (int32_t)place + 1;
    }
    PyMem_RawFree(texts->slots);
    texts->slots = slots;
    texts->room = room;
    texts->slot_count = slot_count;
    return DONE;
}

/* The number of a text; FAILED where there is no room. */
static int32_t number_of(Texts *texts, Text text) {
    if (texts->count >= texts->room && texts_grow(texts) != DONE)
        return FAILED;
    size_t slot = hash_of(text.bytes, text.size) & (texts->slot_count - 1);
    for (; texts->slots[slot]; slot = (slot + 1) & (texts->slot_count - 1)) {
        const Text *held = texts->texts + texts->slots[slot] - 1;
        if (same_bytes(held, &text))
            return texts->slots[slot] - 1;
    }
    texts->texts[texts->count] = text;
    texts->slots[slot] = (int32_t)++texts->count;
    return (int32_t)texts->count - 1;
}

typedef struct {
    Text text;
    int32_t number;
} Ranked;

static int by_bytes(const void *one, const void *other) {
    const Text *a = &((const Ranked *)one)->text, *b = &((const Ranked *)other)->text;
    int order = memcmp(a->bytes, b->bytes, a->size < b->size ? a->size : b->size);
    return order ? order : (a->size > b->size) - (a->size < b->size);
}

static int texts_rank(Texts *texts) {
    Ranked *ranked = PyMem_RawMalloc((texts->count + 1) * sizeof *ranked);
    texts->ranks = PyMem_RawMalloc((texts->count + 1) * sizeof *texts->ranks);
    if (ranked == NULL || texts->ranks == NULL) {
        PyMem_RawFree(ranked);
        return FAILED;
    }
    for (size_t place = 0; place < texts->count; place++)
        ranked[place] = (Ranked){texts->texts[place], (int32_t)place};
    qsort(ranked, texts->count, sizeof *ranked, by_bytes);
    for (size_t place = 0; place < texts->count; place++)
        texts->ranks[ranked[place].number] = (int32_t)place;
    PyMem_RawFree(ranked);
    return DONE;
}

/* --- figures by key ----------------------------------------------------------------------- */

typedef struct {
    int32_t key[KEYS_MAX]; /* texts by their number */
    int64_t figures[FIGURES_MAX];
} Sum;

typedef struct {
    const char *kinds; /* of the key: 't' text, 'i' integer, 'k' kind of line */
    int keys, figures;
    Sum *sums;
    uint32_t *slots; /* place of a sum, and one more; 0 where none is */
    size_t count, room, slot_count;
} Sums;

static size_t slot_of(const Sums *sums, const int32_t *key) {
    uint64_t hash = 0;
    for (int place = 0; place < sums->keys; place++) {
        hash = (hash ^ (uint32_t)key[place]) * 0x9e3779b97f4a7c15u;
        hash ^= hash >> 32;
    }
    return hash & (sums->slot_count - 1);
}

static int sums_grow(Sums *sums) {
    size_t room = sums->room ? 2 * sums->room : 1024, slot_count = 2 * room;
    Sum *more = PyMem_RawRealloc(sums->sums, room * sizeof *more);
    if (more != NULL)
        sums->sums = more;
    uint32_t *slots = PyMem_RawCalloc(slot_count, sizeof *slots);
    if (more == NULL || slots == NULL) {
        PyMem_RawFree(slots);
        return FAILED;
    }
    PyMem_RawFree(sums->slots);
    sums->slots = slots;
    sums->room = room;
    sums->slot_count = slot_count;
    for (size_t place = 0; place < sums->count; place++) {
        size_t slot = slot_of(sums, more[place].key);
        while (slots[slot])
            slot = (slot + 1) & (slot_count - 1);
        slots[slot] = (uint32_t)place + 1;
    }
    return DONE;
}

/* What is held under a key, nothing at first; NULL where there is no room. */
static Sum *sum_of(Sums *sums, const int32_t *key) {
    if (sums->count >= sums->room && sums_grow(sums) != DONE)
        return NULL;
    size_t slot = slot_of(sums, key), width = (size_t)sums->keys * sizeof *key;
    for (; sums->slots[slot]; slot = (slot + 1) & (sums->slot_count - 1)) {
        Sum *held = sums->sums + sums->slots[slot] - 1;
        if (memcmp(held->key, key, width) == 0)
            return held;
    }
    Sum *sum = sums->sums + sums->count;
    memset(sum, 0, sizeof *sum);
    memcpy(sum->key, key, width);
    sums->slots[slot] = (uint32_t)++sums->count;
    return sum;
}

static int add(Sums *sums, const int32_t *key, const int64_t *more) {
    Sum *sum = sum_of(sums, key);
    if (sum == NULL)
        return FAILED;
    for (int place = 0; place < sums->figures; place++)
        if (__builtin_add_overflow(sum->figures[place], more[place], sum->figures + place))
            return LEFT;
    return DONE;
}

/* --- one charge --------------------------------------------------------------------------- */

enum { USED_OWN, USED, OVERAGE, CHARGES, USED_FIGURES };
enum { USED_SUMS, CONSUMED_SUMS, LINE_SUMS, DAY_SUMS, PERIOD_SUMS, SOURCE_SUMS, KIND_SUMS, ALL_SUMS };
enum { DAY_FIGURES = 6 };  /* `projections/daily.py`: what moved is the last, and no charge's */
enum { BEGINNING = 0 }; /* `projections/tally.py`: the day of what buckets of resources paid */
enum { BLOCK_BITS = 12 }; /* `projections/usages.py`: rows of a period are found by blocks of so many seqs */

typedef struct {
    Texts texts;
    Sums sums[ALL_SUMS];
    Buffer rows;
    PyObject *around, *kind_of;
    int64_t *kinds; /* of lines, each by its number in KIND_SUMS, once all are there */
    int64_t day, day_starts, day_ends, since;
    Text corporate;
    int32_t money;
    int64_t schema;
    const char *parents; /* of every member by its ordinal, as the hierarchy stands: 4 bytes each */
    int64_t members;
    int standing; /* whether all that buckets paid of came the way that stands */
} Work;

typedef struct {
    Text source, record_id, usage_type, period, direction, zone, payer;
    int64_t started_at, quantity, billed, overage, amount;
    int32_t tariff, rate, ordinal, node;
    Reader path, drawn; /* behind their heads */
    uint64_t path_size, drawn_size;
    int plain;
} Charge;

static int take_small(Reader *reader, int32_t *value) {
    int64_t wide;
    if (!take_int(reader, &wide) || wide < INT32_MIN || wide > INT32_MAX)
        return 0;
    *value = (int32_t)wide;
    return 1;
}

static int read_event(Reader *reader, Charge *charge, uint64_t fields) {
    uint64_t credit = 0;
    Text passed;
    if (!take_text(reader, &charge->source) || !take_text(reader, &charge->record_id) ||
        !take_array(reader, &charge->path_size) || charge->path_size < 2)
        return 0;
    charge->path = *reader;
    for (uint64_t place = 0; place < charge->path_size; place++) {
        int32_t ordinal = 0;
        if (!take_small(reader, &ordinal))
            return 0;
        if (place < 2)
            *(place ? &charge->node : &charge->ordinal) = ordinal;
    }
    if (!take_text(reader, &charge->usage_type) || !take_text(reader, &charge->period) ||
        !take_int(reader, &charge->started_at) || !take_text(reader, &charge->direction) ||
        !take_int(reader, &charge->quantity) || !take_int(reader, &charge->billed) ||
        !take_small(reader, &charge->tariff) || !take_small(reader, &charge->rate) || !take_text(reader, &passed) ||
        !take_text(reader, &charge->zone) || !take_text(reader, &charge->payer) || !take_text(reader, &passed) ||
        !take_array(reader, &charge->drawn_size))
        return 0;
    charge->drawn = *reader;
    for (uint64_t place = 0; place < charge->drawn_size; place++) {
        uint64_t two;
        int32_t bucket;
        int64_t part;
        if (!take_array(reader, &two) || two != 2 || !take_small(reader, &bucket) || !take_int(reader, &part))
            return 0;
    }
    if (!take_int(reader, &charge->overage) || !take_int(reader, &charge->amount) || !skip_value(reader) ||
        !skip_value(reader))
        return 0;
    charge->plain = 1;
    if (fields > 20) {
        Reader credited = *reader;
        if (!take_array(&credited, &credit) || !skip_value(reader))
            return 0;
        charge->plain = credit == 0;
    }
    if (fields > 21 && !skip_value(reader))
        return 0;
    if (fields > 22) {
        if (reader->at >= reader->end)
            return 0;
        charge->plain = charge->plain && *reader->at == 0xc0;
        if (!skip_value(reader))
            return 0;
    }
    return 1;
}

static int read_charge(Reader *reader, Charge *charge, const Work *work) {
    uint64_t fields;
    int64_t schema;
    Text actor, digest;
    if (!take_array(reader, &fields) || fields != 4 || !take_int(reader, &schema) || schema != work->schema ||
        !take_text(reader, &actor) || !take_binary(reader, &digest) || !take_array(reader, &fields) ||
        fields < EVENT_FIELDS_MIN || fields > EVENT_FIELDS_MAX || !read_event(reader, charge, fields))
        return 0;
    charge->plain = charge->plain && same_bytes(&charge->payer, &work->corporate);
    return 1;
}

/* The calendar is Python's: it is asked once for each day. */
static int find_day(Work *work, int64_t at) {
    if (at >= work->day_starts && at < work->day_ends)
        return DONE;
    PyObject *found = PyObject_CallFunction(work->around, "L", (long long)at);
    long long day, starts, ends;
    if (found == NULL || !PyArg_ParseTuple(found, "LLL", &day, &starts, &ends)) {
        Py_XDECREF(found);
        return FAILED;
    }
    Py_DECREF(found);
    if (day < INT32_MIN || day > INT32_MAX)
        return LEFT;
    work->day = day;
    work->day_starts = starts;
    work->day_ends = ends;
    return DONE;
}

/* Whether somebody is a node that the charge came by. */
static int is_above(const Charge *charge, int32_t ordinal) {
    Reader path = charge->path;
    for (uint64_t place = 0; place < charge->path_size; place++) {
        int32_t at = 0;
        if (take_small(&path, &at) && place > 0 && at == ordinal)
            return 1;
    }
    return 0;
}

/* What buckets at `ordinal` paid. */
static int64_t drawn_at(const Charge *charge, int32_t ordinal) {
    Reader drawn = charge->drawn;
    int64_t part, sum = 0;
    uint64_t two;
    int32_t bucket;
    for (uint64_t place = 0; place < charge->drawn_size; place++)
        if (take_array(&drawn, &two) && take_small(&drawn, &bucket) && take_int(&drawn, &part) && bucket == ordinal)
            sum += part;
    return sum;
}

/* What buckets paid that are at no node the charge came by; less than nothing where a part is, or sums are vast. */
static int64_t drawn_beside(const Charge *charge) {
    Reader drawn = charge->drawn;
    int64_t part, sum = 0;
    uint64_t two;
    int32_t bucket;
    for (uint64_t place = 0; place < charge->drawn_size; place++)
        if (!take_array(&drawn, &two) || !take_small(&drawn, &bucket) || !take_int(&drawn, &part) || part < 0 ||
            part > INT64_MAX / 256 || place > 128)
            return -1;
        else if (!is_above(charge, bucket))
            sum += part;
    return sum;
}

enum { ROOT = -1 }; /* `projections/chunk.py`: the parent of who has none */

static int32_t parent_of(const Work *work, int32_t ordinal) {
    int32_t parent = ROOT;
    if (ordinal >= 0 && ordinal < work->members)
        memcpy(&parent, work->parents + sizeof parent * (size_t)ordinal, sizeof parent);
    return parent;
}

/* Whether the way up is the one that its resource has now, to the root. */
static int is_standing(const Work *work, const Charge *charge) {
    Reader path = charge->path;
    int32_t ordinal = 0, above = charge->ordinal;
    for (uint64_t place = 0; place < charge->path_size; place++) {
        if (!take_small(&path, &ordinal) || ordinal != above || ordinal < 0 || ordinal >= work->members)
            return 0;
        above = parent_of(work, ordinal);
    }
    return above == ROOT;
}

static int count_along(Work *work, const Charge *charge, int32_t type, int32_t period) {
    int64_t drawn = drawn_beside(charge);
    if (drawn < 0)
        return LEFT;
    int64_t used[USED_FIGURES] = {charge->billed, charge->billed, charge->overage, 1};
    int64_t cost[USED_FIGURES] = {charge->amount, charge->amount, 0, 1};
    Reader path = charge->path;
    int done = DONE;
    for (uint64_t place = 0; done == DONE && place < charge->path_size; place++) {
        int32_t ordinal = 0;
        take_small(&path, &ordinal);
        if (place == 1)
            used[USED_OWN] = cost[USED_OWN] = 0;
        done = add(work->sums + USED_SUMS, (int32_t[]){period, type, ordinal}, used);
        if (done == DONE && charge->amount)
            done = add(work->sums + USED_SUMS, (int32_t[]){period, work->money, ordinal}, cost);
        if (done == DONE && place > 0) {
            if (__builtin_add_overflow(drawn, drawn_at(charge, ordinal), &drawn))
                return LEFT;
            int64_t day[] = {charge->billed, charge->overage, charge->amount, 1, drawn};
            done = add(work->sums + DAY_SUMS, (int32_t[]){period, type, (int32_t)work->day, ordinal}, day);
        }
    }
    Reader parts = charge->drawn;
    for (uint64_t place = 0; done == DONE && place < charge->drawn_size; place++) {
        uint64_t two;
        int32_t bucket;
        int64_t part;
        if (!take_array(&parts, &two) || !take_small(&parts, &bucket) || !take_int(&parts, &part))
            return LEFT;
        done = add(work->sums + CONSUMED_SUMS, (int32_t[]){period, type, bucket}, &part);
        if (done == DONE && !is_above(charge, bucket))
            done = add(work->sums + DAY_SUMS, (int32_t[]){period, type, BEGINNING, bucket},
                       (int64_t[]){0, 0, 0, 0, part});
    }
    return done;
}

/* A line is told by the number of its kind while it is counted. */
static int add_to_line(Work *work, const Charge *charge, const int32_t *key) {
    Sums *kinds = work->sums + KIND_SUMS;
    const Sum *kind = sum_of(kinds, key);
    if (kind == NULL)
        return FAILED;
    return add(work->sums + LINE_SUMS, (int32_t[]){(int32_t)(kind - kinds->sums), charge->node},
               (int64_t[]){1, charge->quantity, charge->billed, charge->overage, charge->amount, 0});
}

static int count(Work *work, const Charge *charge) {
    int32_t type = number_of(&work->texts, charge->usage_type), period = number_of(&work->texts, charge->period);
    int32_t direction = number_of(&work->texts, charge->direction), zone = number_of(&work->texts, charge->zone);
    int32_t source = number_of(&work->texts, charge->source);
    if (type < 0 || period < 0 || direction < 0 || zone < 0 || source < 0)
        return FAILED;
    if (work->standing && charge->drawn_size > 0)
        work->standing = is_standing(work, charge);
    int done = find_day(work, charge->started_at);
    if (done == DONE)
        done = count_along(work, charge, type, period);
    if (done == DONE)
        done = add_to_line(work, charge, (int32_t[]){period, type, direction, zone, charge->tariff, charge->rate});
    if (done == DONE)
        done = add(work->sums + SOURCE_SUMS, (int32_t[]){source, type}, (int64_t[]){1, charge->amount});
    return done;
}

/* Plain or not: it has a row all the same. */
static int find_block(Work *work, const Charge *charge, int64_t seq) {
    int32_t period = number_of(&work->texts, charge->period);
    if (period < 0)
        return FAILED;
    if (seq < 0 || seq >> BLOCK_BITS > INT32_MAX)
        return LEFT;
    return add(work->sums + PERIOD_SUMS, (int32_t[]){period, (int32_t)(seq >> BLOCK_BITS)}, (int64_t[]){1});
}

/* --- rows for COPY ------------------------------------------------------------------------ */

static void put_number(unsigned char **at, uint64_t value, int width) {
    for (int place = width; place > 0; place--, value >>= 8)
        (*at)[place - 1] = (unsigned char)value;
    *at += width;
}

static void put_field(unsigned char **at, uint64_t value, int width) {
    put_number(at, (uint64_t)width, 4);
    put_number(at, value, width);
}

static void put_bytes(unsigned char **at, Text text) {
    put_number(at, text.size, 4);
    memcpy(*at, text.bytes, text.size);
    *at += text.size;
}

/* `projections/usages.py`: the columns of COPY, in this order. */
static int put_row(Buffer *rows, const Charge *charge, int64_t seq, const unsigned char *key, uint64_t recorded_at) {
    const Text texts[] = {charge->record_id, {(const unsigned char *)"charged", 7}, {key, 0},      charge->usage_type,
                          charge->direction, charge->source,                        charge->period, charge->zone};
    const int64_t numbers[] = {charge->started_at, charge->quantity, charge->billed, charge->overage, charge->amount};
    size_t width = 2 + 12 + 4 + KEY_SIZE + 8 + 8 + 6 * 12;
    for (size_t place = 0; place < sizeof texts / sizeof *texts; place++)
        width += 4 + texts[place].size;
    unsigned char *at = buffer_grow(rows, width);
    if (at == NULL)
        return FAILED;
    put_number(&at, 18, 2);
    put_field(&at, (uint64_t)seq, 8);
    put_bytes(&at, (Text){key, KEY_SIZE});
    put_field(&at, (uint32_t)charge->ordinal, 4);
    put_field(&at, (uint32_t)charge->node, 4);
    for (size_t place = 0; place < sizeof numbers / sizeof *numbers; place++)
        put_field(&at, (uint64_t)numbers[place], 8);
    put_field(&at, recorded_at, 8);
    for (size_t place = 0; place < sizeof texts / sizeof *texts; place++)
        put_bytes(&at, texts[place]);
    rows->size += width;
    return DONE;
}

/* --- what Python is told ------------------------------------------------------------------ */

typedef struct {
    uint64_t order[KEYS_MAX];
    const Sum *sum;
} Ordered;

static int by_key(const void *one, const void *other) {
    const Ordered *a = one, *b = other;
    for (int place = 0; place < KEYS_MAX; place++)
        if (a->order[place] != b->order[place])
            return a->order[place] < b->order[place] ? -1 : 1;
    return 0;
}

static uint64_t order_of(const Work *work, char kind, int32_t key) {
    if (kind == 't')
        return (uint64_t)work->texts.ranks[key];
    int64_t number = kind == 'k' ? work->kinds[key] : key;
    return (uint64_t)number ^ (uint64_t)1 << 63;
}

/* The sums in the order of their keys; NULL where there is no room. */
static Ordered *in_order(const Sums *sums, const Work *work) {
    Ordered *ordered = PyMem_RawCalloc(sums->count + 1, sizeof *ordered);
    for (size_t place = 0; ordered != NULL && place < sums->count; place++) {
        const Sum *sum = ordered[place].sum = sums->sums + place;
        for (int key = 0; key < sums->keys; key++)
            ordered[place].order[key] = order_of(work, sums->kinds[key], sum->key[key]);
    }
    if (ordered != NULL)
        qsort(ordered, sums->count, sizeof *ordered, by_key);
    return ordered;
}

enum { BYTEA = 17, INT4 = 23, INT8 = 20, TEXT = 25 };

/* The head of a PostgreSQL array in binary. */
static int put_array_head(Buffer *column, int of, size_t size) {
    unsigned char *at = buffer_grow(column, 20);
    if (at == NULL)
        return FAILED;
    put_number(&at, 1, 4);
    put_number(&at, 0, 4);
    put_number(&at, (uint64_t)of, 4);
    put_number(&at, size, 4);
    put_number(&at, 1, 4);
    column->size += 20;
    return DONE;
}

static PyObject *taken(Buffer *column, int done) {
    PyObject *bytes = done == DONE ? PyBytes_FromStringAndSize((const char *)column->data, (Py_ssize_t)column->size) : NULL;
    buffer_free(column);
    return bytes;
}

static PyObject *key_column(const Ordered *ordered, size_t size, int place, char kind, const Work *work) {
    Buffer column = {0};
    const Text *texts = work->texts.texts;
    int done = put_array_head(&column, kind == 't' ? TEXT : kind == 'k' ? INT8 : INT4, size);
    for (size_t row = 0; done == DONE && row < size; row++) {
        int32_t key = ordered[row].sum->key[place];
        size_t width = kind == 't' ? 4 + (size_t)texts[key].size : kind == 'k' ? 12 : 8;
        unsigned char *at = buffer_grow(&column, width);
        if (at == NULL)
            done = FAILED;
        else if (kind == 't')
            put_bytes(&at, texts[key]);
        else if (kind == 'k')
            put_field(&at, (uint64_t)work->kinds[key], 8);
        else
            put_field(&at, (uint32_t)key, 4);
        column.size += width;
    }
    return taken(&column, done);
}

/* None where all are nothing. */
static PyObject *figure_column(const Ordered *ordered, size_t size, int place) {
    Buffer column = {0};
    int64_t any = 0;
    for (size_t row = 0; row < size; row++)
        any |= ordered[row].sum->figures[place];
    if (!any)
        Py_RETURN_NONE;
    int done = put_array_head(&column, INT8, size);
    unsigned char *at = done == DONE ? buffer_grow(&column, 12 * size) : NULL;
    for (size_t row = 0; at != NULL && row < size; row++)
        put_field(&at, (uint64_t)ordered[row].sum->figures[place], 8);
    column.size += 12 * size;
    return taken(&column, at != NULL ? DONE : FAILED);
}

/* How many rows, and their columns as binary arrays: the key's, then the figures'. */
static PyObject *columns_of(const Sums *sums, const Work *work) {
    PyObject *columns = PyTuple_New(sums->keys + sums->figures);
    Ordered *ordered = in_order(sums, work);
    if (ordered == NULL)
        PyErr_NoMemory();
    for (int place = 0; columns != NULL && place < sums->keys + sums->figures; place++) {
        PyObject *column = ordered == NULL      ? NULL
                           : place < sums->keys ? key_column(ordered, sums->count, place, sums->kinds[place], work)
                                                : figure_column(ordered, sums->count, place - sums->keys);
        if (column == NULL)
            Py_CLEAR(columns);
        else
            PyTuple_SET_ITEM(columns, place, column);
    }
    PyMem_RawFree(ordered);
    return columns != NULL ? Py_BuildValue("nN", (Py_ssize_t)sums->count, columns) : NULL;
}

/* --- blocks of counters ------------------------------------------------------------------- */

enum { MEMBER_BITS = 4, MEMBERS = 1 << MEMBER_BITS }; /* `projections/blocks.py`: so many members in a row */

static PyObject *key_of(const Sum *sum, int place, char kind, const Texts *texts) {
    const Text *text = texts->texts + sum->key[place];
    return kind == 't' ? PyUnicode_DecodeUTF8((const char *)text->bytes, (Py_ssize_t)text->size, NULL)
                       : PyLong_FromLong(sum->key[place]);
}

/* What comes before the ordinal in a key, with the numbers of its blocks. */
static int put_group(PyObject *groups, const Sums *sums, const Sum *sum, const Texts *texts, Buffer *blocks) {
    PyObject *group = PyTuple_New(sums->keys - 1);
    for (int place = 0; group != NULL && place < sums->keys - 1; place++) {
        PyObject *key = key_of(sum, place, sums->kinds[place], texts);
        if (key == NULL)
            Py_CLEAR(group);
        else
            PyTuple_SET_ITEM(group, place, key);
    }
    PyObject *one = group == NULL ? NULL : Py_BuildValue("Ny#", group, (const char *)blocks->data, (Py_ssize_t)blocks->size);
    int done = one != NULL && PyList_Append(groups, one) == 0 ? DONE : FAILED;
    Py_XDECREF(one);
    blocks->size = 0;
    return done;
}

static int same_group(const Sums *sums, const Sum *one, const Sum *other) {
    return memcmp(one->key, other->key, (size_t)(sums->keys - 1) * sizeof *one->key) == 0;
}

static int put_block(Buffer *blocks, Buffer *figures, int32_t number, size_t size) {
    unsigned char *at = buffer_grow(blocks, sizeof number), *all = buffer_grow(figures, size);
    if (at == NULL || all == NULL)
        return FAILED;
    memcpy(at, &number, sizeof number);
    memset(all, 0, size);
    blocks->size += sizeof number;
    figures->size += size;
    return DONE;
}

/* Blocks of `width` figures for each member, of which the last may be none that is counted here. */
static int put_blocks(const Sums *sums, const Work *work, size_t width, PyObject *groups, Buffer *figures) {
    Ordered *ordered = in_order(sums, work);
    Buffer blocks = {0};
    size_t size = MEMBERS * width * 8;
    int done = ordered != NULL ? DONE : FAILED, last = sums->keys - 1;
    for (size_t row = 0; done == DONE && row < sums->count; row++) {
        const Sum *sum = ordered[row].sum, *before = row ? ordered[row - 1].sum : NULL;
        int begun = before != NULL && same_group(sums, before, sum);
        if (before != NULL && !begun)
            done = put_group(groups, sums, before, &work->texts, &blocks);
        if (done == DONE && !(begun && before->key[last] >> MEMBER_BITS == sum->key[last] >> MEMBER_BITS))
            done = put_block(&blocks, figures, sum->key[last] >> MEMBER_BITS, size);
        if (done != DONE)
            break;
        unsigned char *at = figures->data + figures->size - size + (size_t)(sum->key[last] & (MEMBERS - 1)) * width * 8;
        for (int place = 0; place < sums->figures; place++)
            put_number(&at, (uint64_t)sum->figures[place], 8);
    }
    if (done == DONE && sums->count)
        done = put_group(groups, sums, ordered[sums->count - 1].sum, &work->texts, &blocks);
    buffer_free(&blocks);
    PyMem_RawFree(ordered);
    return done;
}

static PyObject *blocks_of(const Sums *sums, const Work *work, size_t width) {
    PyObject *groups = PyList_New(0);
    Buffer figures = {0};
    PyObject *told = NULL;
    if (groups != NULL && put_blocks(sums, work, width, groups, &figures) == DONE)
        told = Py_BuildValue("Oy#", groups, figures.data != NULL ? (const char *)figures.data : "", (Py_ssize_t)figures.size);
    else if (!PyErr_Occurred())
        PyErr_NoMemory();
    Py_XDECREF(groups);
    buffer_free(&figures);
    return told;
}

static int64_t number_at(const unsigned char *at) {
    uint64_t number = 0;
    for (int place = 0; place < 8; place++)
        number = number << 8 | at[place];
    return (int64_t)number;
}

/* One block with more added to it; most of what is added is nothing. */
static PyObject *block_sum(PyObject *held, const unsigned char *more, Py_ssize_t size) {
    static const unsigned char nothing[8];
    if (!PyBytes_Check(held) || PyBytes_GET_SIZE(held) != size)
        return PyErr_Format(PyExc_ValueError, "a block is not of the size of what is added");
    PyObject *sum = PyBytes_FromStringAndSize(PyBytes_AS_STRING(held), size);
    unsigned char *at = sum != NULL ? (unsigned char *)PyBytes_AS_STRING(sum) : NULL;
    for (Py_ssize_t place = 0; at != NULL && place < size; place += 8, at += 8, more += 8) {
        int64_t number;
        if (memcmp(more, nothing, 8) == 0)
            continue;
        if (__builtin_add_overflow(number_at(at), number_at(more), &number)) {
            PyErr_Format(PyExc_OverflowError, "a sum does not fit into 8 bytes");
            Py_CLEAR(sum);
            break;
        }
        unsigned char *to = at;
        put_number(&to, (uint64_t)number, 8);
    }
    return sum;
}

static int put_sum(PyObject *sums, Buffer *column, PyObject *sum, Py_ssize_t place) {
    if (sum == NULL)
        return FAILED;
    PyList_SET_ITEM(sums, place, sum);
    size_t size = (size_t)PyBytes_GET_SIZE(sum);
    unsigned char *at = buffer_grow(column, 4 + size);
    if (at == NULL)
        return FAILED;
    put_bytes(&at, (Text){(const unsigned char *)PyBytes_AS_STRING(sum), size});
    column->size += 4 + size;
    return DONE;
}

/* Blocks with more added to each, and the same as a PostgreSQL array in binary. */
PyObject *native_together(PyObject *self, PyObject *const *given, Py_ssize_t arguments) {
    (void)self;
    if (check_arguments("lb", given, arguments) != DONE)
        return NULL;
    Py_ssize_t count_given = PyList_GET_SIZE(given[0]), size = PyBytes_GET_SIZE(given[1]);
    if (count_given ? size % (8 * count_given) != 0 : size != 0)
        return PyErr_Format(PyExc_ValueError, "what is added is not of whole blocks");
    size /= count_given ? count_given : 1;
    const unsigned char *more = (const unsigned char *)PyBytes_AS_STRING(given[1]);
    PyObject *sums = PyList_New(count_given), *told = NULL;
    Buffer column = {0};
    int done = sums != NULL ? put_array_head(&column, BYTEA, (size_t)count_given) : FAILED;
    for (Py_ssize_t place = 0; done == DONE && place < count_given; place++, more += size)
        done = put_sum(sums, &column, block_sum(PyList_GET_ITEM(given[0], place), more, size), place);
    if (done == DONE)
        told = Py_BuildValue("Oy#", sums, (const char *)column.data, (Py_ssize_t)column.size);
    else if (!PyErr_Occurred())
        PyErr_NoMemory();
    Py_XDECREF(sums);
    buffer_free(&column);
    return told;
}

/* By source and usage type: records and amount. */
static PyObject *sources_of(const Sums *sums, const Texts *texts) {
    PyObject *found = PyList_New(0);
    for (size_t place = 0; found != NULL && place < sums->count; place++) {
        const Sum *sum = sums->sums + place;
        const Text source = texts->texts[sum->key[0]], type = texts->texts[sum->key[1]];
        PyObject *one = Py_BuildValue("s#s#LL", (const char *)source.bytes, (Py_ssize_t)source.size,
                                      (const char *)type.bytes, (Py_ssize_t)type.size, (long long)sum->figures[0],
                                      (long long)sum->figures[1]);
        if (one == NULL || PyList_Append(found, one) != 0)
            Py_CLEAR(found);
        Py_XDECREF(one);
    }
    return found;
}

static PyObject *unicode_of(const Work *work, int32_t number) {
    const Text *text = work->texts.texts + number;
    return PyUnicode_DecodeUTF8((const char *)text->bytes, (Py_ssize_t)text->size, NULL);
}

/* Which number a kind of line has is Python's to say: it is asked once for each. */
static PyObject *kinds_of(Work *work) {
    const Sums *sums = work->sums + KIND_SUMS;
    PyObject *found = PyDict_New();
    work->kinds = PyMem_RawCalloc(sums->count + 1, sizeof *work->kinds);
    if (work->kinds == NULL)
        PyErr_NoMemory();
    int done = work->kinds != NULL && found != NULL;
    for (size_t place = 0; done && place < sums->count; place++) {
        const int32_t *key = sums->sums[place].key;
        PyObject *of = Py_BuildValue("(NNNNii)", unicode_of(work, key[0]), unicode_of(work, key[1]), unicode_of(work, key[2]),
                                     unicode_of(work, key[3]), (int)key[4], (int)key[5]);
        PyObject *kind = of != NULL ? PyObject_CallOneArg(work->kind_of, of) : NULL;
        done = kind != NULL && int_of(kind, work->kinds + place) && PyDict_SetItem(found, kind, of) == 0;
        Py_XDECREF(kind);
        Py_XDECREF(of);
    }
    if (!done)
        Py_CLEAR(found);
    return found;
}

static PyObject *told(Work *work, PyObject *left) {
    if (texts_rank(&work->texts) != DONE)
        return PyErr_NoMemory();
    PyObject *parts[ALL_SUMS] = {0}, *rows = NULL, *all = NULL;
    int done = (parts[KIND_SUMS] = kinds_of(work)) != NULL;
    for (int of = 0; done && of < SOURCE_SUMS; of++) {
        const Sums *sums = work->sums + of;
        parts[of] = of == USED_SUMS  ? blocks_of(sums, work, USED_FIGURES)
                    : of == DAY_SUMS ? blocks_of(sums, work, DAY_FIGURES)
                                     : columns_of(sums, work);
        done = parts[of] != NULL;
    }
    done = done && (parts[SOURCE_SUMS] = sources_of(work->sums + SOURCE_SUMS, &work->texts)) != NULL;
    if (done)
        rows = PyBytes_FromStringAndSize((const char *)work->rows.data, (Py_ssize_t)work->rows.size);
    if (rows != NULL)
        all = Py_BuildValue("OOOOOOOLOiO", rows, parts[USED_SUMS], parts[CONSUMED_SUMS], parts[LINE_SUMS], parts[DAY_SUMS],
                            parts[PERIOD_SUMS], parts[SOURCE_SUMS], (long long)work->since, left, work->standing,
                            parts[KIND_SUMS]);
    for (int of = 0; of < ALL_SUMS; of++)
        Py_XDECREF(parts[of]);
    Py_XDECREF(rows);
    return all;
}

/* --- all charges -------------------------------------------------------------------------- */

static int hand_back(PyObject *left, Reader from, const Reader *to) {
    PyObject *state = PyBytes_FromStringAndSize((const char *)from.at, to->at - from.at);
    int done = state != NULL && PyList_Append(left, state) == 0 ? DONE : FAILED;
    Py_XDECREF(state);
    return done;
}

static int go_through(Work *work, Reader *reader, Py_ssize_t count_given, PyObject *const *columns, PyObject *left) {
    const unsigned char *keys = (const unsigned char *)PyBytes_AS_STRING(columns[1]);
    const unsigned char *times = (const unsigned char *)PyBytes_AS_STRING(columns[2]);
    const char *seqs = PyBytes_AS_STRING(columns[0]);
    for (Py_ssize_t place = 0; place < count_given; place++) {
        Reader from = *reader, time = {times + 8 * place, times + 8 * place + 8};
        Charge charge;
        int64_t seq;
        uint64_t recorded_at;
        memcpy(&seq, seqs + 8 * place, 8);
        if (!read_charge(reader, &charge, work) || !take_number(&time, 8, &recorded_at))
            return LEFT;
        int done = put_row(&work->rows, &charge, seq, keys + KEY_SIZE * place, recorded_at + SINCE_2000);
        if (done == DONE)
            done = find_block(work, &charge, seq);
        if (done == DONE)
            done = charge.plain ? count(work, &charge) : hand_back(left, from, reader);
        if (done != DONE)
            return done;
        if (charge.plain && (charge.started_at < work->since))
            work->since = charge.started_at;
    }
    return reader->at == reader->end ? DONE : LEFT;
}

static int begin(Work *work, PyObject *const *given, Py_ssize_t count_given) {
    static const struct {
        const char *kinds;
        int figures;
    } forms[ALL_SUMS] = {
        {"tti", USED_FIGURES}, {"tti", 1}, {"ki", 6}, {"ttii", 5}, {"ti", 1}, {"tt", 2}, {"ttttii", 0}};
    for (int of = 0; of < ALL_SUMS; of++) {
        work->sums[of].kinds = forms[of].kinds;
        work->sums[of].keys = (int)strlen(forms[of].kinds);
        work->sums[of].figures = forms[of].figures;
    }
    Py_ssize_t size;
    const char *corporate = utf8_of(given[5], &size), *money;
    if (corporate == NULL || !int_of(given[4], &work->schema))
        return LEFT;
    work->corporate = (Text){(const unsigned char *)corporate, (size_t)size};
    money = utf8_of(given[6], &size);
    if (money == NULL || PyBytes_GET_SIZE(given[1]) != 8 * count_given ||
        PyBytes_GET_SIZE(given[2]) != KEY_SIZE * count_given || PyBytes_GET_SIZE(given[3]) != 8 * count_given)
        return LEFT;
    work->money = number_of(&work->texts, (Text){(const unsigned char *)money, (size_t)size});
    work->around = given[7];
    work->parents = PyBytes_AS_STRING(given[8]);
    work->kind_of = given[9];
    work->members = PyBytes_GET_SIZE(given[8]) / (Py_ssize_t)sizeof(int32_t);
    work->standing = work->members > 0;
    work->since = INT64_MAX;
    return work->money < 0 ? FAILED : DONE;
}

PyObject *native_tally(PyObject *self, PyObject *const *given, Py_ssize_t arguments) {
    (void)self;
    if (check_arguments("bbbbiooobo", given, arguments) != DONE)
        return NULL;
    Work work = {0};
    Reader reader = {(const unsigned char *)PyBytes_AS_STRING(given[0]),
                     (const unsigned char *)PyBytes_AS_STRING(given[0]) + PyBytes_GET_SIZE(given[0])};
    Py_ssize_t count_given = PyBytes_GET_SIZE(given[1]) / 8;
    PyObject *left = PyList_New(0), *all = NULL;
    int done = left != NULL ? begin(&work, given, count_given) : FAILED;
    if (done == DONE)
        done = go_through(&work, &reader, count_given, given + 1, left);
    if (done == DONE)
        all = told(&work, left);
    else if (done == LEFT)
        all = Py_NewRef(Py_None);
    else if (!PyErr_Occurred())
        PyErr_NoMemory();
    Py_XDECREF(left);
    buffer_free(&work.rows);
    for (int of = 0; of < ALL_SUMS; of++) {
        PyMem_RawFree(work.sums[of].sums);
        PyMem_RawFree(work.sums[of].slots);
    }
    PyMem_RawFree(work.kinds);
    PyMem_RawFree(work.texts.texts);
    PyMem_RawFree(work.texts.slots);
    PyMem_RawFree(work.texts.ranks);
    return all;
}
