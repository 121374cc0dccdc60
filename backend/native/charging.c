/* Plain charges: decided, counted and encoded, record by record, as far as they are plain.
 *
 * Twins: `PlainCharges.charge` of domain/plain_charge.py, then `encode` of domain/events.py. What is not
 * plain here need not be unusual there: the Python code is asked next. A record is looked at first, then
 * told, and only then counted; up to there it may be left, and then nothing has changed.
 *
 * Parts of the state are read once for a run of records, and what a run adds to totals is put back at
 * its end. Python code that is called in between (a rate that was never looked up, a window that was not
 * compiled, a path of several stays) only looks things up.
 */
#include "native.h"
#include <string.h>

enum { DEPTH = 80, BLOCK = 32, WINDOWS = 8, FAMILIES = 32, LANES = 64, RATES = 64, METHODS = 4 };

enum { AHEAD = 16, LONGEST = 7, REMEMBERED = 64 };

typedef __int128 Wide;
static const int64_t LARGE = (int64_t)1 << 62;
static const char *const METHOD[METHODS] = {"up", "down", "half_up", "half_even"};
enum { UP, DOWN, HALF_UP, HALF_EVEN };

/* Names of attributes, made once: looking one up by its characters costs more than what is found. */
#define NAMES(NAME)                                                                                              \
    NAME(_frozen) NAME(_hierarchy) NAME(_longest) NAME(_remembered) NAME(by_token) NAME(consumed)                \
    NAME(consumed_total) NAME(deck) NAME(den) NAME(ends_at) NAME(expired_total) NAME(family) NAME(fee)           \
    NAME(granted_total) NAME(holders) NAME(included) NAME(increment) NAME(index) NAME(lanes) NAME(mark)          \
    NAME(method) NAME(minimum) NAME(money) NAME(num) NAME(overage) NAME(period) NAME(prefix) NAME(remaining)     \
    NAME(remaining_total) NAME(reserved) NAME(rolled) NAME(rolled_total) NAME(starts_at) NAME(step)              \
    NAME(suspended) NAME(used) NAME(version) NAME(zone)

#define AS_ENUM(name) N_##name,
#define AS_TEXT(name) #name,
enum { NAMES(AS_ENUM) NAME_COUNT };
static const char *const NAME_TEXTS[NAME_COUNT] = {NAMES(AS_TEXT)};
static PyObject *names[NAME_COUNT];

/* One usage type and period: domain/bucket.py. */
typedef struct {
    PyObject *of, *remaining, *consumed, *reserved, *used, *mark, *holders;
    Buffer period;
    int64_t remaining_total, consumed_total;
    int capped, rolled, changed;
} Family;

struct Rate;

/* The rate that a number's beginning was found to have: the beginning with its length, in one number. */
typedef struct {
    uint64_t start;
    struct Rate *rate; /* NULL: none yet */
    int64_t read;
} Found;

/* What charges one usage type in one direction, within a window. */
typedef struct {
    int window;
    PyObject *usage_type, *direction, *deck, *remembered;
    Py_ssize_t longest;
    Family *family;
    Found found[REMEMBERED];
} Lane;

typedef struct {
    PyObject *lanes;
    int64_t starts_at, ends_at;
    int overage;
    Family *money;
} Window;

/* A compiled rate: domain/rating/rate.py. */
typedef struct Rate {
    PyObject *of;
    int64_t read; /* which reading of a rate this is: its place may be another's by now */
    int64_t num, den, fee, increment, minimum, step;
    int included, method;
    Buffer told; /* version, index, prefix and zone, as a charge tells them */
} Rate;

/* Where the user of a record stands, found before its turn. */
typedef struct {
    PyObject *path; /* NULL: that takes more, and is asked in its turn */
    int length;     /* 0: its ordinals were not read */
    int32_t ordinals[AHEAD];
} Guided;

/* What holds for a run of records. */
typedef struct {
    PyObject *plain, *hierarchy, *by_token, *frozen, *suspended;
    int64_t oldest, latest; /* whoever is older, or younger, is left */
    Window windows[WINDOWS];
    Family families[FAMILIES];
    Lane lanes[LANES];
    Rate rates[RATES];
    Guided block[BLOCK];
    Py_ssize_t block_from, block_upto;
    int window_count, family_count, lane_count, window;
    int64_t charged, amount, rates_read;
    PyObject *actor; /* whose envelope begins with `head` */
    Buffer head, told;
} Run;

static PyTypeObject *rate_type, *member_type;
static Field member_stays;
static PyObject *outcome_type, *outcome_charged, *empty, *frame_head, *frame_payer, *frame_tail;
static int64_t schema;

int charging_setup(PyObject *parts) {
    PyObject *rate, *member, *outcome, *status, *head, *payer, *tail;
    long long version;
    if (!PyArg_ParseTuple(parts, "O!O!OUSSSL", &PyType_Type, &rate, &PyType_Type, &member, &outcome, &status,
                          &head, &payer, &tail, &version))
        return FAILED;
    if (field_find(&member_stays, (PyTypeObject *)member, "stays") != DONE)
        return FAILED;
    for (int name = 0; name < NAME_COUNT; name++) {
        Py_XSETREF(names[name], PyUnicode_InternFromString(NAME_TEXTS[name]));
        if (names[name] == NULL)
            return FAILED;
    }
    Py_XSETREF(rate_type, (PyTypeObject *)Py_NewRef(rate));
    Py_XSETREF(member_type, (PyTypeObject *)Py_NewRef(member));
    Py_XSETREF(outcome_type, Py_NewRef(outcome));
    Py_XSETREF(outcome_charged, Py_NewRef(status));
    Py_XSETREF(empty, PyUnicode_FromString(""));
    Py_XSETREF(frame_head, Py_NewRef(head));
    Py_XSETREF(frame_payer, Py_NewRef(payer));
    Py_XSETREF(frame_tail, Py_NewRef(tail));
    schema = version;
    return empty == NULL ? FAILED : DONE;
}

/* --- reading attributes -------------------------------------------------------------------- */

/* DONE, or LEFT with no exception where it is missing or no int of 64 bits. */
static int int_at(PyObject *object, int name, int64_t *value) {
    PyObject *found = PyObject_GetAttr(object, names[name]);
    if (found == NULL) {
        PyErr_Clear();
        return LEFT;
    }
    int is = int_of(found, value);
    Py_DECREF(found);
    return is ? DONE : LEFT;
}

/* A new reference to an attribute of a type, exactly; NULL (no exception) otherwise. */
static PyObject *part_at(PyObject *object, int name, PyTypeObject *type) {
    PyObject *found = PyObject_GetAttr(object, names[name]);
    if (found == NULL)
        PyErr_Clear();
    else if (type != NULL && Py_TYPE(found) != type)
        Py_CLEAR(found);
    return found;
}

static int truth_at(PyObject *object, int name, int *value) {
    PyObject *found = PyObject_GetAttr(object, names[name]);
    *value = found != NULL ? PyObject_IsTrue(found) : -1;
    Py_XDECREF(found);
    if (*value >= 0)
        return DONE;
    PyErr_Clear();
    return LEFT;
}

static int text_at(PyObject *object, int name, Buffer *told) {
    PyObject *found = part_at(object, name, &PyUnicode_Type);
    int done = found != NULL ? put_str(told, found) : LEFT;
    Py_XDECREF(found);
    return done;
}

/* --- families ------------------------------------------------------------------------------ */

static void family_release(Family *family) {
    Py_CLEAR(family->of);
    Py_CLEAR(family->remaining);
    Py_CLEAR(family->consumed);
    Py_CLEAR(family->reserved);
    Py_CLEAR(family->used);
    Py_CLEAR(family->mark);
    Py_CLEAR(family->holders);
    buffer_free(&family->period);
}

/* Whether what it was granted is where it should be; else Python says what is wrong. */
static int adds_up(const Family *family) {
    int64_t granted, expired, rolled;
    return int_at(family->of, N_granted_total, &granted) == DONE &&
           int_at(family->of, N_expired_total, &expired) == DONE &&
           int_at(family->of, N_rolled_total, &rolled) == DONE &&
           (Wide)granted == (Wide)family->remaining_total + family->consumed_total + expired + rolled;
}

static int family_read(Family *family, PyObject *of) {
    PyObject *caps = PyObject_GetAttrString(of, "caps");
    family->capped = caps != Py_None; /* also where there is no such attribute */
    Py_XDECREF(caps);
    PyErr_Clear();
    family->of = Py_NewRef(of);
    family->remaining = part_at(of, N_remaining, &PyList_Type);
    family->consumed = part_at(of, N_consumed, &PyList_Type);
    family->reserved = part_at(of, N_reserved, &PyList_Type);
    family->used = part_at(of, N_used, &PyList_Type);
    family->mark = part_at(of, N_mark, &PyList_Type);
    family->holders = part_at(of, N_holders, &PySet_Type);
    if (!family->remaining || !family->consumed || !family->reserved || !family->used || !family->mark ||
        !family->holders || text_at(of, N_period, &family->period) != DONE ||
        truth_at(of, N_rolled, &family->rolled) != DONE ||
        int_at(of, N_remaining_total, &family->remaining_total) != DONE ||
        int_at(of, N_consumed_total, &family->consumed_total) != DONE)
        return LEFT;
    return adds_up(family) ? DONE : LEFT;
}

static Family *family_for(Run *run, PyObject *of) {
    for (int place = 0; place < run->family_count; place++)
        if (run->families[place].of == of)
            return &run->families[place];
    if (of == NULL || run->family_count == FAMILIES)
        return NULL;
    Family *family = &run->families[run->family_count];
    if (family_read(family, of) == DONE) {
        run->family_count++;
        return family;
    }
    family_release(family);
    return NULL;
}

static int64_t counter_of(PyObject *counters, Py_ssize_t ordinal, int *wrong) {
    int64_t value = 0;
    if (ordinal >= PyList_GET_SIZE(counters) || !int_of(PyList_GET_ITEM(counters, ordinal), &value) ||
        value > LARGE || value <= -LARGE)
        *wrong = 1;
    return value;
}

static int count_up(PyObject *counters, Py_ssize_t ordinal, int64_t more) {
    int wrong = 0;
    int64_t value = counter_of(counters, ordinal, &wrong);
    if (wrong) {
        PyErr_SetString(PyExc_RuntimeError, "a counter changed under our hands");
        return FAILED;
    }
    PyObject *before = PyList_GET_ITEM(counters, ordinal);
    if (int_renew(before, value + more))
        return DONE;
    PyObject *counted = PyLong_FromLongLong(value + more);
    if (counted == NULL)
        return FAILED;
    PyList_SET_ITEM(counters, ordinal, counted);
    Py_DECREF(before); /* an exact int */
    return DONE;
}

/* --- windows, lanes and rates ---------------------------------------------------------------- */

static int window_read(Run *run, Window *window, PyObject *of) {
    PyObject *money = part_at(of, N_money, NULL);
    window->lanes = part_at(of, N_lanes, &PyDict_Type);
    window->money = family_for(run, money);
    Py_XDECREF(money);
    if (window->lanes == NULL || window->money == NULL ||
        int_at(of, N_starts_at, &window->starts_at) != DONE ||
        int_at(of, N_ends_at, &window->ends_at) != DONE || truth_at(of, N_overage, &window->overage) != DONE) {
        Py_CLEAR(window->lanes);
        return LEFT;
    }
    return DONE;
}

/* The window of a moment becomes the run's. */
static int window_at(Run *run, int64_t at) {
    for (int place = 0; place < run->window_count; place++) {
        if (run->windows[place].starts_at <= at && at < run->windows[place].ends_at) {
            run->window = place;
            return DONE;
        }
    }
    if (run->window_count == WINDOWS)
        return LEFT;
    PyObject *found = PyObject_CallMethod(run->plain, "_window_at", "L", (long long)at);
    if (found == NULL || found == Py_None) {
        Py_XDECREF(found);
        return LEFT;
    }
    Window *window = &run->windows[run->window_count];
    int done = window_read(run, window, found);
    Py_DECREF(found);
    if (done != DONE)
        return done;
    if (at < window->starts_at || at >= window->ends_at) {
        Py_CLEAR(window->lanes);
        return LEFT;
    }
    run->window = run->window_count++;
    return DONE;
}

static void lane_release(Lane *lane) {
    Py_CLEAR(lane->usage_type);
    Py_CLEAR(lane->direction);
    Py_CLEAR(lane->deck);
    Py_CLEAR(lane->remembered);
}

static int same_text(PyObject *one, PyObject *other) {
    if (one == other)
        return 1;
    if (!PyUnicode_IS_COMPACT_ASCII(one) || !PyUnicode_IS_COMPACT_ASCII(other))
        return PyUnicode_Compare(one, other) == 0;
    Py_ssize_t size = PyUnicode_GET_LENGTH(one);
    return size == PyUnicode_GET_LENGTH(other) &&
           memcmp(PyUnicode_1BYTE_DATA(one), PyUnicode_1BYTE_DATA(other), (size_t)size) == 0;
}

static int lane_read(Run *run, Lane *lane, PyObject *of, PyObject *usage_type, PyObject *direction) {
    int64_t longest = 0;
    PyObject *family = part_at(of, N_family, NULL);
    lane->window = run->window;
    lane->usage_type = Py_NewRef(usage_type);
    lane->direction = Py_NewRef(direction);
    lane->deck = part_at(of, N_deck, NULL);
    lane->remembered = lane->deck != NULL ? part_at(lane->deck, N__remembered, &PyDict_Type) : NULL;
    lane->family = family_for(run, family);
    Py_XDECREF(family);
    if (lane->remembered == NULL || lane->family == NULL || int_at(lane->deck, N__longest, &longest) != DONE ||
        longest < 0) {
        lane_release(lane);
        return LEFT;
    }
    lane->longest = longest > PY_SSIZE_T_MAX ? PY_SSIZE_T_MAX : (Py_ssize_t)longest;
    memset(lane->found, 0, sizeof lane->found);
    return DONE;
}

static Lane *lane_for(Run *run, PyObject *usage_type, PyObject *direction) {
    for (int place = 0; place < run->lane_count; place++) {
        Lane *lane = &run->lanes[place];
        if (lane->window == run->window && same_text(lane->usage_type, usage_type) &&
            same_text(lane->direction, direction))
            return lane;
    }
    if (run->lane_count == LANES)
        return NULL;
    PyObject *name = PyUnicode_Concat(usage_type, direction);
    PyObject *of = name != NULL ? PyDict_GetItemWithError(run->windows[run->window].lanes, name) : NULL;
    Py_XINCREF(of);
    Py_XDECREF(name);
    int done = of != NULL ? lane_read(run, &run->lanes[run->lane_count], of, usage_type, direction) : LEFT;
    Py_XDECREF(of);
    return done == DONE ? &run->lanes[run->lane_count++] : NULL;
}

static void rate_release(Rate *rate) {
    Py_CLEAR(rate->of);
    rate->read = 0;
    buffer_free(&rate->told);
}

static int method_of(PyObject *of) {
    PyObject *method = part_at(of, N_method, &PyUnicode_Type);
    int found = -1;
    for (int place = 0; method != NULL && place < METHODS; place++)
        if (PyUnicode_CompareWithASCIIString(method, METHOD[place]) == 0)
            found = place;
    Py_XDECREF(method);
    return found;
}

static int rate_read(Rate *rate, PyObject *of) {
    int64_t version, index;
    rate->of = Py_NewRef(of);
    rate->method = method_of(of);
    if (rate->method < 0 || int_at(of, N_num, &rate->num) || int_at(of, N_den, &rate->den) ||
        int_at(of, N_fee, &rate->fee) || int_at(of, N_increment, &rate->increment) ||
        int_at(of, N_minimum, &rate->minimum) || int_at(of, N_step, &rate->step) ||
        truth_at(of, N_included, &rate->included) || int_at(of, N_version, &version) ||
        int_at(of, N_index, &index) || rate->num < 0 || rate->den <= 0 || rate->fee < 0 || rate->increment <= 0 ||
        rate->step <= 0 || rate->step > LARGE / 1000000 || put_int(&rate->told, version) ||
        put_int(&rate->told, index) || text_at(of, N_prefix, &rate->told) || text_at(of, N_zone, &rate->told)) {
        rate_release(rate);
        PyErr_Clear();
        return LEFT;
    }
    return DONE;
}

/* What the rate of a number depends on, in one number that is not 0; 0 where it does not fit. */
static uint64_t start_of(const Lane *lane, PyObject *counterpart) {
    if (lane->longest > LONGEST || !PyUnicode_IS_COMPACT_ASCII(counterpart))
        return 0;
    const Py_UCS1 *characters = PyUnicode_1BYTE_DATA(counterpart);
    Py_ssize_t size = PyUnicode_GET_LENGTH(counterpart);
    uint64_t start = 0;
    if (size > lane->longest)
        size = lane->longest;
    for (Py_ssize_t place = 0; place < size; place++)
        start = start << 8 | characters[place];
    return (uint64_t)(size + 1) << 56 | start;
}

/* The rate of the longest prefix, where it is plain; as it was found for another number that begins alike. */
static Rate *rate_looked_up(Run *run, const Lane *lane, PyObject *counterpart);

static Rate *rate_for(Run *run, Lane *lane, PyObject *counterpart) {
    uint64_t start = start_of(lane, counterpart);
    Found *found = &lane->found[(start * 0x9e3779b97f4a7c15u) >> 58];
    if (start && found->start == start && found->rate->read == found->read)
        return found->rate;
    Rate *rate = rate_looked_up(run, lane, counterpart);
    if (start && rate != NULL)
        *found = (Found){start, rate, rate->read};
    return rate;
}

static Rate *rate_looked_up(Run *run, const Lane *lane, PyObject *counterpart) {
    Py_ssize_t size = PyUnicode_GET_LENGTH(counterpart);
    PyObject *start = size <= lane->longest ? Py_NewRef(counterpart) : PyUnicode_Substring(counterpart, 0, lane->longest);
    PyObject *found = start != NULL ? PyDict_GetItemWithError(lane->remembered, start) : NULL;
    Py_XDECREF(start);
    Py_XINCREF(found);
    if (found == NULL && !PyErr_Occurred())
        found = PyObject_CallMethod(lane->deck, "find", "O", counterpart);
    if (found == NULL || Py_TYPE(found) != rate_type) {
        Py_XDECREF(found);
        return NULL;
    }
    Rate *rate = &run->rates[((uintptr_t)found >> 4) % RATES];
    int done = DONE;
    if (rate->of != found) {
        rate_release(rate);
        done = rate_read(rate, found);
        rate->read = done == DONE ? ++run->rates_read : 0;
    }
    Py_DECREF(found);
    return done == DONE ? rate : NULL;
}

/* --- deciding one --------------------------------------------------------------------------- */

typedef struct {
    Py_ssize_t ordinals[DEPTH], drawn[DEPTH];
    int64_t parts[DEPTH];
    int length, draws;
    int64_t at, quantity, billed, taken, overage, amount, exact, den;
    Family *family, *money;
    Rate *rate;
} Charge;

static int path_read(Charge *charge, const Guided *guided, PyObject *path) {
    if (guided->length) {
        charge->length = guided->length;
        for (int place = 0; place < guided->length; place++)
            charge->ordinals[place] = guided->ordinals[place];
        return DONE;
    }
    if (!PyTuple_CheckExact(path) || PyTuple_GET_SIZE(path) == 0 || PyTuple_GET_SIZE(path) > DEPTH)
        return LEFT;
    charge->length = (int)PyTuple_GET_SIZE(path);
    for (int place = 0; place < charge->length; place++) {
        int64_t ordinal;
        if (!int_of(PyTuple_GET_ITEM(path, place), &ordinal) || ordinal < 0 || ordinal > INT32_MAX)
            return LEFT;
        charge->ordinals[place] = (Py_ssize_t)ordinal;
    }
    return DONE;
}

/* Whether somebody on the path is frozen, or its user suspended; or that cannot be said. */
static int is_stopped(const Run *run, PyObject *path) {
    for (Py_ssize_t place = 0; PyDict_GET_SIZE(run->frozen) && place < PyTuple_GET_SIZE(path); place++)
        if (PyDict_Contains(run->frozen, PyTuple_GET_ITEM(path, place)) != 0)
            return 1;
    return run->suspended != NULL && PySequence_Contains(run->suspended, PyTuple_GET_ITEM(path, 0)) != 0;
}

static int guide(const Run *run, Charge *charge, const Guided *guided, PyObject *token) {
    PyObject *path = Py_XNewRef(guided->path);
    if (path == NULL)
        path = PyObject_CallMethod(run->hierarchy, "guide", "OL", token, (long long)charge->at);
    int done = path != NULL ? path_read(charge, guided, path) : LEFT;
    if (done == DONE && is_stopped(run, path))
        done = LEFT;
    Py_XDECREF(path);
    return done;
}

/* Rounded up to the increment, at least the minimum. */
static int bill(Charge *charge) {
    const Rate *rate = charge->rate;
    int64_t quantity = charge->quantity;
    if (quantity <= 0 || quantity > LARGE / 4 || rate->minimum > LARGE / 4 || rate->increment > LARGE / 4)
        return LEFT;
    if (quantity < rate->minimum)
        quantity = rate->minimum;
    charge->billed = (quantity + rate->increment - 1) / rate->increment * rate->increment;
    return DONE;
}

/* Whose buckets pay, narrowest first. */
static int draw(Charge *charge) {
    const Family *family = charge->family;
    int64_t left = charge->billed;
    for (int place = 0; place < charge->length && left; place++) {
        Py_ssize_t ordinal = charge->ordinals[place];
        int wrong = 0;
        int64_t remaining = counter_of(family->remaining, ordinal, &wrong);
        if (!wrong && remaining == 0)
            continue; /* whoever holds nothing pays nothing */
        int64_t free = remaining - counter_of(family->reserved, ordinal, &wrong);
        PyObject *member = wrong ? NULL : PyLong_FromSsize_t(ordinal);
        int holds = member != NULL ? PySet_Contains(family->holders, member) : -1;
        Py_XDECREF(member);
        if (holds < 0)
            return LEFT;
        if (!holds || free <= 0)
            continue;
        counter_of(family->consumed, ordinal, &wrong);
        if (wrong)
            return LEFT;
        charge->drawn[charge->draws] = ordinal;
        charge->parts[charge->draws] = free < left ? free : left;
        left -= charge->parts[charge->draws++];
    }
    charge->taken = charge->billed - left;
    return family->consumed_total > LARGE || family->remaining_total < -LARGE ? LEFT : DONE;
}

/* The multiple of `step` nearest to a fraction, by the tariff's method. */
static int64_t rounded(int method, int64_t step, int64_t numerator, int64_t denominator) {
    Wide whole_step = (Wide)denominator * step, whole = numerator / whole_step, rest = numerator % whole_step;
    if (rest) {
        Wide over_half = 2 * rest - whole_step;
        whole += method == UP || (method == HALF_UP && over_half >= 0) ||
                 (method == HALF_EVEN && (over_half > 0 || (over_half == 0 && whole % 2 == 1)));
    }
    return (int64_t)(whole * step);
}

static int price(const Run *run, Charge *charge) {
    const Rate *rate = charge->rate;
    charge->overage = charge->billed - charge->taken;
    charge->exact = 0, charge->den = 1, charge->amount = 0;
    if (charge->overage == 0)
        return DONE;
    Wide exact = (Wide)charge->overage * rate->num + rate->fee;
    if ((rate->included && !run->windows[run->window].overage) || exact > LARGE)
        return LEFT;
    charge->exact = (int64_t)exact;
    charge->den = rate->den;
    charge->amount = rounded(rate->method, rate->step, charge->exact, charge->den);
    return DONE;
}

/* Whether anything waits for so much more, anywhere on the path; or a counter is not what it should be. */
static int is_near(const Charge *charge, const Family *family, int64_t quantity) {
    int wrong = 0;
    for (int place = 0; place < charge->length; place++) {
        int64_t used = counter_of(family->used, charge->ordinals[place], &wrong);
        if (wrong || (Wide)used + quantity >= counter_of(family->mark, charge->ordinals[place], &wrong))
            return 1;
    }
    return wrong;
}

/* What went wrong while a record was only looked at is left too: Python says it in its own words. Whoever
 * interrupts is heard. */
static int leave(void) {
    if (PyErr_Occurred() != NULL && !PyErr_ExceptionMatches(PyExc_Exception))
        return FAILED;
    PyErr_Clear();
    return LEFT;
}

/* Everything up to the charge, and nothing has changed. Where it is LEFT an exception may be set. */
static int decide(Run *run, Charge *charge, PyObject *const *of, const Guided *guided, PyObject *token) {
    if (!int_of(of[STARTED_AT], &charge->at) || !int_of(of[QUANTITY], &charge->quantity) ||
        charge->at < run->oldest || charge->at > run->latest || !PyUnicode_CheckExact(of[USAGE_TYPE]) ||
        !PyUnicode_CheckExact(of[DIRECTION]) || !PyUnicode_CheckExact(of[COUNTERPART]) ||
        guide(run, charge, guided, token) != DONE || window_at(run, charge->at) != DONE)
        return LEFT;
    Lane *lane = lane_for(run, of[USAGE_TYPE], of[DIRECTION]);
    charge->rate = lane != NULL ? rate_for(run, lane, of[COUNTERPART]) : NULL;
    if (charge->rate == NULL || bill(charge) != DONE)
        return LEFT;
    charge->family = lane->family;
    charge->money = run->windows[run->window].money;
    if (charge->family->capped || (charge->rate->included && draw(charge) != DONE) || price(run, charge) != DONE ||
        (charge->draws && charge->family->rolled) || is_near(charge, charge->family, charge->billed))
        return LEFT;
    if (charge->amount && (charge->family == charge->money || PySet_GET_SIZE(charge->money->holders) ||
                           is_near(charge, charge->money, charge->amount)))
        return LEFT;
    return DONE;
}

/* --- telling and counting it ----------------------------------------------------------------- */

static int put_parts(Buffer *told, const Charge *charge) {
    int done = put_array(told, (size_t)charge->draws);
    for (int place = 0; done == DONE && place < charge->draws; place++) {
        done = put_array(told, 2);
        done = done == DONE ? put_int(told, charge->drawn[place]) : done;
        done = done == DONE ? put_int(told, charge->parts[place]) : done;
    }
    return done;
}

/* Stops at the first that is not DONE. */
#define PUT(step)                                                                                                  \
    do {                                                                                                           \
        int put = (step);                                                                                          \
        if (put != DONE)                                                                                           \
            return put;                                                                                            \
    } while (0)

/* What every envelope of an actor begins with. */
static int tell_head(Run *run, PyObject *actor) {
    if (run->actor == actor)
        return DONE;
    Py_CLEAR(run->actor);
    run->head.size = 0;
    PUT(put_array(&run->head, 4));
    PUT(put_int(&run->head, schema));
    PUT(put_str(&run->head, actor));
    run->actor = Py_NewRef(actor);
    return DONE;
}

/* The envelope with the charge in it, as `encode` would give it. */
static int tell(Run *run, const Charge *charge, PyObject *const *of, PyObject *actor, const One *one,
                const unsigned char *sealed) {
    Buffer *told = &run->told;
    told->size = 0;
    PUT(tell_head(run, actor));
    PUT(buffer_put(told, run->head.data, run->head.size));
    PUT(put_binary(told, PyBytes_AS_STRING(one->digest), (size_t)PyBytes_GET_SIZE(one->digest)));
    PUT(buffer_put(told, PyBytes_AS_STRING(frame_head), (size_t)PyBytes_GET_SIZE(frame_head)));
    PUT(put_str(told, of[SOURCE]));
    PUT(put_str(told, of[RECORD_ID]));
    PUT(put_array(told, (size_t)charge->length));
    for (int place = 0; place < charge->length; place++)
        PUT(put_int(told, charge->ordinals[place]));
    PUT(put_str(told, of[USAGE_TYPE]));
    PUT(buffer_put(told, charge->family->period.data, charge->family->period.size));
    PUT(put_int(told, charge->at));
    PUT(put_str(told, of[DIRECTION]));
    PUT(put_int(told, charge->quantity));
    PUT(put_int(told, charge->billed));
    PUT(buffer_put(told, charge->rate->told.data, charge->rate->told.size));
    PUT(buffer_put(told, PyBytes_AS_STRING(frame_payer), (size_t)PyBytes_GET_SIZE(frame_payer)));
    PUT(put_parts(told, charge));
    PUT(put_int(told, charge->overage));
    PUT(put_int(told, charge->amount));
    PUT(put_array(told, 2));
    PUT(put_int(told, charge->exact));
    PUT(put_int(told, charge->den));
    PUT(put_binary(told, sealed, one->sealed_size));
    return buffer_put(told, PyBytes_AS_STRING(frame_tail), (size_t)PyBytes_GET_SIZE(frame_tail));
}

/* Counted on the whole path, and taken out of the buckets. */
static int count(Run *run, const Charge *charge) {
    Family *family = charge->family;
    for (int place = 0; place < charge->length; place++)
        PUT(count_up(family->used, charge->ordinals[place], charge->billed));
    for (int place = 0; charge->amount && place < charge->length; place++)
        PUT(count_up(charge->money->used, charge->ordinals[place], charge->amount));
    for (int place = 0; place < charge->draws; place++) {
        PUT(count_up(family->remaining, charge->drawn[place], -charge->parts[place]));
        PUT(count_up(family->consumed, charge->drawn[place], charge->parts[place]));
    }
    if (charge->draws) {
        family->remaining_total -= charge->taken;
        family->consumed_total += charge->taken;
        family->changed = 1;
    }
    run->amount += charge->amount;
    run->charged++;
    return DONE;
}

/* --- a run ----------------------------------------------------------------------------------- */

static int run_start(Run *run, PyObject *plain, int64_t oldest, int64_t latest) {
    run->plain = Py_NewRef(plain);
    run->oldest = oldest;
    run->latest = latest;
    run->window = -1;
    run->hierarchy = part_at(plain, N__hierarchy, NULL);
    run->frozen = part_at(plain, N__frozen, &PyDict_Type);
    run->by_token = run->hierarchy != NULL ? part_at(run->hierarchy, N_by_token, &PyDict_Type) : NULL;
    if (run->frozen == NULL || run->by_token == NULL)
        return LEFT;
    run->suspended = part_at(run->hierarchy, N_suspended, NULL);
    int any = run->suspended != NULL ? PyObject_IsTrue(run->suspended) : -1;
    if (any == 0)
        Py_CLEAR(run->suspended);
    PyErr_Clear();
    return any < 0 ? LEFT : DONE;
}

static int set_int(PyObject *of, const char *name, int64_t value) {
    PyObject *number = PyLong_FromLongLong(value);
    int done = number != NULL ? PyObject_SetAttrString(of, name, number) : FAILED;
    Py_XDECREF(number);
    return done;
}

static PyObject *sum_of(PyObject *number, int64_t more) {
    PyObject *added = number != NULL ? PyLong_FromLongLong(more) : NULL;
    PyObject *sum = added != NULL ? PyNumber_Add(number, added) : NULL;
    Py_XDECREF(added);
    return sum;
}

/* Totals of all usage: as `Charging` counts them. */
static int run_total(Run *run) {
    PyObject *charging = PyObject_GetAttrString(run->plain, "_charging");
    PyObject *counts = charging != NULL ? PyObject_GetAttrString(charging, "counts") : NULL;
    PyObject *before = counts != NULL ? PyMapping_GetItemString(counts, "charged") : NULL;
    PyObject *total = before != NULL ? PyObject_GetAttrString(charging, "amount_total") : NULL;
    PyObject *after = sum_of(before, run->charged), *amount = after != NULL ? sum_of(total, run->amount) : NULL;
    int done = amount == NULL || PyMapping_SetItemString(counts, "charged", after) != 0 ||
                       PyObject_SetAttrString(charging, "amount_total", amount) != 0
                   ? FAILED
                   : DONE;
    run->charged = run->amount = 0;
    Py_XDECREF(charging);
    Py_XDECREF(counts);
    Py_XDECREF(before);
    Py_XDECREF(total);
    Py_XDECREF(after);
    Py_XDECREF(amount);
    return done;
}

/* What was added up is put back; each family that changed is asked whether it is whole. */
static int run_settle(Run *run) {
    int done = run->charged ? run_total(run) : DONE;
    for (int place = 0; place < run->family_count && done == DONE; place++) {
        Family *family = &run->families[place];
        if (!family->changed)
            continue;
        done = set_int(family->of, "remaining_total", family->remaining_total);
        if (done == DONE)
            done = set_int(family->of, "consumed_total", family->consumed_total);
        PyObject *whole = done == DONE ? PyObject_CallMethod(family->of, "check", NULL) : NULL;
        done = whole != NULL ? DONE : FAILED;
        Py_XDECREF(whole);
    }
    return done;
}

static void block_release(Run *run) {
    for (int place = 0; place < BLOCK; place++)
        Py_CLEAR(run->block[place].path);
    run->block_upto = run->block_from;
}

/* The last run's memory is the next one's, with what stays as it is: the rates that were read (a rate never changes
 * once somebody can find it, and is held), the beginning of an actor's envelopes, and room to write. */
static Run *at_rest;

static Run *run_new(void) {
    Run *run = at_rest;
    at_rest = NULL; /* whoever else charges meanwhile has one of his own */
    if (run == NULL && (run = PyMem_Calloc(1, sizeof *run)) == NULL)
        PyErr_NoMemory();
    return run;
}

static void run_free(Run *run) {
    for (int place = 0; place < RATES; place++)
        rate_release(&run->rates[place]);
    Py_CLEAR(run->actor);
    buffer_free(&run->head);
    buffer_free(&run->told);
    PyMem_Free(run);
}

static void run_release(Run *run) {
    for (int place = 0; place < run->window_count; place++)
        Py_CLEAR(run->windows[place].lanes);
    for (int place = 0; place < run->lane_count; place++)
        lane_release(&run->lanes[place]);
    for (int place = 0; place < run->family_count; place++) {
        family_release(&run->families[place]);
        memset(&run->families[place], 0, sizeof run->families[place]);
    }
    Py_CLEAR(run->plain);
    Py_CLEAR(run->hierarchy);
    Py_CLEAR(run->by_token);
    Py_CLEAR(run->frozen);
    Py_CLEAR(run->suspended);
    block_release(run);
    run->block_from = run->block_upto = 0;
    run->window_count = run->lane_count = run->family_count = 0;
    run->charged = run->amount = 0;
    if (at_rest == NULL)
        at_rest = run;
    else
        run_free(run);
}

/* What is given out of each charge, in this order. */
enum { OUTCOMES, STATES, KEYS, DIGESTS, GIVEN };

static PyObject *outcome_of(const Charge *charge, int64_t seq) {
    PyObject *number = PyLong_FromLongLong(seq), *amount = number != NULL ? PyLong_FromLongLong(charge->amount) : NULL;
    PyObject *outcome = NULL;
    if (amount != NULL) {
        PyObject *arguments[] = {NULL, outcome_charged, empty, number, empty, amount};
        outcome = PyObject_Vectorcall(outcome_type, arguments + 1, 5 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
    }
    Py_XDECREF(number);
    Py_XDECREF(amount);
    return outcome;
}

static int charge_record(Run *run, PyObject *const *of, const One *one, const unsigned char *sealed,
                         const Guided *guided, PyObject *actor, int64_t seq, PyObject *const *outputs) {
    Charge charge;
    charge.draws = 0, charge.taken = 0;
    int done = decide(run, &charge, of, guided, one->token);
    if (done == DONE)
        done = tell(run, &charge, of, actor, one, sealed);
    if (done != DONE)
        return done == LEFT ? leave() : done;
    if (run->amount > LARGE - charge.amount)
        PUT(run_total(run));
    PyObject *made[GIVEN] = {outcome_of(&charge, seq), NULL, NULL, one->digest};
    if (made[OUTCOMES] != NULL)
        made[STATES] = PyBytes_FromStringAndSize((char *)run->told.data, (Py_ssize_t)run->told.size);
    if (made[STATES] != NULL)
        made[KEYS] = PyBytes_FromStringAndSize((const char *)one->key, sizeof one->key);
    done = made[KEYS] != NULL ? count(run, &charge) : FAILED;
    for (int output = 0; output < GIVEN && done == DONE; output++)
        done = PyList_Append(outputs[output], made[output]);
    Py_XDECREF(made[OUTCOMES]);
    Py_XDECREF(made[STATES]);
    Py_XDECREF(made[KEYS]);
    return done;
}

static int charge_prepared(Run *run, const Prepared *prepared, Py_ssize_t place, PyObject *actor, int64_t seq,
                           PyObject *const *outputs) {
    PyObject *of[RECORD_FIELDS] = {NULL};
    const One *one = &prepared->ones[place];
    if (one->record == NULL || Py_TYPE(one->record) != record_type)
        return LEFT;
    for (int field = 0; field < RECORD_FIELDS; field++) {
        if (field == LINE || field == ATTRIBUTES)
            continue; /* neither decides anything where all is plain */
        of[field] = field_of(&record_field[field], one->record);
        if (of[field] == NULL)
            return LEFT;
    }
    return charge_record(run, of, one, prepared->sealed.data + one->sealed_at, &run->block[place - run->block_from],
                         actor, seq, outputs);
}

/* --- the records that come next ---------------------------------------------------------------- */

/* Thousands of members' counters do not fit into a cache, and each record asks for others: so who used what is
 * found, and the counters are sent for, for a block of records at a time, one step of the way for all of them
 * before the next. Nothing is decided here, nothing changed, and whatever is not plain is left to its turn. No
 * Python code runs meanwhile (tokens are bytes, and compared with nothing else), so what is found need not be
 * held on the way. What Python is asked while the block is charged only looks things up: paths stay as they are. */

/* One step on the way to the path of a member that has had one place only; borrowed, or NULL. */
static PyObject *step_on(PyObject *from, int step, int64_t at) {
    int64_t since;
    if (from == NULL)
        return NULL;
    if (step == 1 && PyTuple_CheckExact(from) && PyTuple_GET_SIZE(from) == 1)
        return PyTuple_GET_ITEM(from, 0);
    if (step == 2 && Py_TYPE(from) == member_type)
        return field_of(&member_stays, from);
    if (step == 3 && PyList_CheckExact(from) && PyList_GET_SIZE(from) == 1)
        return PyList_GET_ITEM(from, 0);
    if (step == 4 && PyTuple_CheckExact(from) && PyTuple_GET_SIZE(from) == 2 &&
        int_of(PyTuple_GET_ITEM(from, 0), &since) && since <= at)
        return PyTuple_GET_ITEM(from, 1);
    return NULL;
}

static void read_ordinals(Guided *guided) {
    PyObject *path = guided->path;
    guided->length = 0;
    if (path == NULL || !PyTuple_CheckExact(path) || PyTuple_GET_SIZE(path) > AHEAD)
        return;
    for (Py_ssize_t place = 0; place < PyTuple_GET_SIZE(path); place++) {
        int64_t ordinal;
        if (!int_of(PyTuple_GET_ITEM(path, place), &ordinal) || ordinal < 0 || ordinal > INT32_MAX)
            return;
        guided->ordinals[place] = (int32_t)ordinal;
    }
    guided->length = (int)PyTuple_GET_SIZE(path);
}

/* The family that usage of this record's type was last charged to. */
static const Family *family_of(const Run *run, PyObject *record) {
    PyObject *usage_type = field_of(&record_field[USAGE_TYPE], record);
    for (int place = 0; usage_type != NULL && PyUnicode_CheckExact(usage_type) && place < run->lane_count; place++)
        if (same_text(run->lanes[place].usage_type, usage_type))
            return run->lanes[place].family;
    return NULL;
}

/* First the places of counters, then the counters. */
static void send_for_counters(const Family *family, const Guided *guided, int what) {
    for (int level = 0; level < guided->length; level++) {
        Py_ssize_t ordinal = guided->ordinals[level];
        if (ordinal >= PyList_GET_SIZE(family->used) || ordinal >= PyList_GET_SIZE(family->mark) ||
            ordinal >= PyList_GET_SIZE(family->remaining))
            continue;
        send_for(what ? (void *)PyList_GET_ITEM(family->used, ordinal) : &PyList_GET_ITEM(family->used, ordinal));
        send_for(what ? (void *)PyList_GET_ITEM(family->mark, ordinal) : &PyList_GET_ITEM(family->mark, ordinal));
        if (!what)
            send_for(&PyList_GET_ITEM(family->remaining, ordinal));
    }
}

static void block_begin(Run *run, const Prepared *prepared, Py_ssize_t from, int size) {
    PyObject *at[BLOCK] = {NULL};
    const Family *families[BLOCK] = {NULL};
    int64_t started_at[BLOCK] = {0};
    block_release(run);
    run->block_from = from;
    run->block_upto = from + size < prepared->size ? from + size : prepared->size;
    int count = (int)(run->block_upto - from);
    for (int place = 0; place < count; place++)
        send_for(prepared->ones[from + place].token);
    for (int place = 0; place < count; place++) {
        const One *one = &prepared->ones[from + place];
        PyObject *started = NULL;
        if (one->record == NULL || Py_TYPE(one->record) != record_type ||
            (started = field_of(&record_field[STARTED_AT], one->record)) == NULL ||
            !int_of(started, &started_at[place]))
            continue;
        families[place] = family_of(run, one->record);
        at[place] = PyDict_GetItemWithError(run->by_token, one->token);
        send_for(at[place]);
    }
    PyErr_Clear();
    for (int step = 1; step <= 4; step++) {
        for (int place = 0; place < count; place++) {
            at[place] = step_on(at[place], step, started_at[place]);
            send_for(at[place]);
        }
    }
    for (int place = 0; place < count; place++) {
        run->block[place].path = Py_XNewRef(at[place]);
        for (Py_ssize_t level = 0; at[place] && PyTuple_CheckExact(at[place]) && level < PyTuple_GET_SIZE(at[place]);
             level++)
            send_for(PyTuple_GET_ITEM(at[place], level));
    }
    for (int place = 0; place < count; place++)
        read_ordinals(&run->block[place]);
    for (int what = 0; what < 2; what++)
        for (int place = 0; place < count; place++)
            if (families[place] != NULL)
                send_for_counters(families[place], &run->block[place], what);
}

/* charge(plain, prepared, place, actors, oldest, latest, seq, outcomes, states, keys, digests) -> int
 *
 * Charges from a place on, as far as it is plain; the first place that is not. */
PyObject *native_charge(PyObject *self, PyObject *const *given, Py_ssize_t count_of) {
    (void)self;
    int64_t place, oldest, latest, seq;
    if (check_arguments("opiliiillll", given, count_of) != DONE)
        return NULL;
    const Prepared *prepared = (const Prepared *)given[1];
    PyObject *actors = given[3];
    if (record_type == NULL || rate_type == NULL || !int_of(given[2], &place) || !int_of(given[4], &oldest) ||
        !int_of(given[5], &latest) || !int_of(given[6], &seq) || place < 0 || place > prepared->size ||
        seq > LARGE)
        return Py_NewRef(given[2]);
    Run *run = run_new();
    if (run == NULL)
        return NULL;
    int done = run_start(run, given[0], oldest, latest);
    int next = 1; /* the first tells which families are asked for */
    while (done == DONE && place < prepared->size && place < PyList_GET_SIZE(actors)) {
        if (place >= run->block_upto) {
            block_begin(run, prepared, (Py_ssize_t)place, next);
            next = BLOCK;
        }
        PyObject *actor = Py_NewRef(PyList_GET_ITEM(actors, place));
        done = charge_prepared(run, prepared, (Py_ssize_t)place, actor, seq, given + 7);
        Py_DECREF(actor);
        if (done == DONE)
            place++, seq++;
    }
    PyObject *type = NULL, *value = NULL, *trace = NULL;
    PyErr_Fetch(&type, &value, &trace);
    if (run_settle(run) != DONE && type == NULL)
        done = FAILED;
    else if (type != NULL)
        PyErr_Restore(type, value, trace);
    run_release(run);
    return done == FAILED ? NULL : PyLong_FromLongLong(place);
}
