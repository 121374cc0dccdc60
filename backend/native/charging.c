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

typedef __int128 Wide;
static const int64_t LARGE = (int64_t)1 << 62;
static const char *const METHOD[METHODS] = {"up", "down", "half_up", "half_even"};
enum { UP, DOWN, HALF_UP, HALF_EVEN };

/* One usage type and period: domain/bucket.py. */
typedef struct {
    PyObject *of, *remaining, *consumed, *reserved, *used, *mark, *holders;
    Buffer period;
    int64_t remaining_total, consumed_total;
    int capped, rolled, changed;
} Family;

/* What charges one usage type in one direction, within a window. */
typedef struct {
    int window;
    PyObject *usage_type, *direction, *deck, *remembered;
    Py_ssize_t longest;
    Family *family;
} Lane;

typedef struct {
    PyObject *lanes;
    int64_t starts_at, ends_at;
    int overage;
    Family *money;
} Window;

/* A compiled rate: domain/rating/rate.py. */
typedef struct {
    PyObject *of;
    int64_t num, den, fee, increment, minimum, step;
    int included, method;
    Buffer told; /* version, index, prefix and zone, as a charge tells them */
} Rate;

/* What holds for a run of records. */
typedef struct {
    PyObject *plain, *hierarchy, *by_token, *frozen, *suspended;
    int64_t oldest, latest; /* whoever is older, or younger, is left */
    Window windows[WINDOWS];
    Family families[FAMILIES];
    Lane lanes[LANES];
    Rate rates[RATES];
    int window_count, family_count, lane_count, window;
    int64_t charged;
    int64_t amount;
    Buffer told;
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
static int int_at(PyObject *object, const char *name, int64_t *value) {
    PyObject *found = PyObject_GetAttrString(object, name);
    if (found == NULL) {
        PyErr_Clear();
        return LEFT;
    }
    int is = int_of(found, value);
    Py_DECREF(found);
    return is ? DONE : LEFT;
}

/* A new reference to an attribute of a type, exactly; NULL (no exception) otherwise. */
static PyObject *part_at(PyObject *object, const char *name, PyTypeObject *type) {
    PyObject *found = PyObject_GetAttrString(object, name);
    if (found == NULL)
        PyErr_Clear();
    else if (type != NULL && Py_TYPE(found) != type)
        Py_CLEAR(found);
    return found;
}

static int truth_at(PyObject *object, const char *name, int *value) {
    PyObject *found = PyObject_GetAttrString(object, name);
    *value = found != NULL ? PyObject_IsTrue(found) : -1;
    Py_XDECREF(found);
    if (*value >= 0)
        return DONE;
    PyErr_Clear();
    return LEFT;
}

static int text_at(PyObject *object, const char *name, Buffer *told) {
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
    return int_at(family->of, "granted_total", &granted) == DONE &&
           int_at(family->of, "expired_total", &expired) == DONE &&
           int_at(family->of, "rolled_total", &rolled) == DONE &&
           (Wide)granted == (Wide)family->remaining_total + family->consumed_total + expired + rolled;
}

static int family_read(Family *family, PyObject *of) {
    PyObject *caps = PyObject_GetAttrString(of, "caps");
    family->capped = caps != Py_None; /* also where there is no such attribute */
    Py_XDECREF(caps);
    PyErr_Clear();
    family->of = Py_NewRef(of);
    family->remaining = part_at(of, "remaining", &PyList_Type);
    family->consumed = part_at(of, "consumed", &PyList_Type);
    family->reserved = part_at(of, "reserved", &PyList_Type);
    family->used = part_at(of, "used", &PyList_Type);
    family->mark = part_at(of, "mark", &PyList_Type);
    family->holders = part_at(of, "holders", &PySet_Type);
    if (!family->remaining || !family->consumed || !family->reserved || !family->used || !family->mark ||
        !family->holders || text_at(of, "period", &family->period) != DONE ||
        truth_at(of, "rolled", &family->rolled) != DONE ||
        int_at(of, "remaining_total", &family->remaining_total) != DONE ||
        int_at(of, "consumed_total", &family->consumed_total) != DONE)
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
    PyObject *counted = wrong ? NULL : PyLong_FromLongLong(value + more);
    if (wrong)
        PyErr_SetString(PyExc_RuntimeError, "a counter changed under our hands");
    return counted == NULL ? FAILED : PyList_SetItem(counters, ordinal, counted);
}

/* --- windows, lanes and rates ---------------------------------------------------------------- */

static int window_read(Run *run, Window *window, PyObject *of) {
    PyObject *money = part_at(of, "money", NULL);
    window->lanes = part_at(of, "lanes", &PyDict_Type);
    window->money = family_for(run, money);
    Py_XDECREF(money);
    if (window->lanes == NULL || window->money == NULL ||
        int_at(of, "starts_at", &window->starts_at) != DONE ||
        int_at(of, "ends_at", &window->ends_at) != DONE || truth_at(of, "overage", &window->overage) != DONE) {
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
    return one == other || PyUnicode_Compare(one, other) == 0;
}

static int lane_read(Run *run, Lane *lane, PyObject *of, PyObject *usage_type, PyObject *direction) {
    int64_t longest = 0;
    PyObject *family = part_at(of, "family", NULL);
    lane->window = run->window;
    lane->usage_type = Py_NewRef(usage_type);
    lane->direction = Py_NewRef(direction);
    lane->deck = part_at(of, "deck", NULL);
    lane->remembered = lane->deck != NULL ? part_at(lane->deck, "_remembered", &PyDict_Type) : NULL;
    lane->family = family_for(run, family);
    Py_XDECREF(family);
    if (lane->remembered == NULL || lane->family == NULL || int_at(lane->deck, "_longest", &longest) != DONE ||
        longest < 0) {
        lane_release(lane);
        return LEFT;
    }
    lane->longest = longest > PY_SSIZE_T_MAX ? PY_SSIZE_T_MAX : (Py_ssize_t)longest;
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
    buffer_free(&rate->told);
}

static int method_of(PyObject *of) {
    PyObject *method = part_at(of, "method", &PyUnicode_Type);
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
    if (rate->method < 0 || int_at(of, "num", &rate->num) || int_at(of, "den", &rate->den) ||
        int_at(of, "fee", &rate->fee) || int_at(of, "increment", &rate->increment) ||
        int_at(of, "minimum", &rate->minimum) || int_at(of, "step", &rate->step) ||
        truth_at(of, "included", &rate->included) || int_at(of, "version", &version) ||
        int_at(of, "index", &index) || rate->num < 0 || rate->den <= 0 || rate->fee < 0 || rate->increment <= 0 ||
        rate->step <= 0 || rate->step > LARGE / 1000000 || put_int(&rate->told, version) ||
        put_int(&rate->told, index) || text_at(of, "prefix", &rate->told) || text_at(of, "zone", &rate->told)) {
        rate_release(rate);
        PyErr_Clear();
        return LEFT;
    }
    return DONE;
}

/* The rate of the longest prefix, where it is plain. */
static Rate *rate_for(Run *run, const Lane *lane, PyObject *counterpart) {
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

/* A new reference to the path of whoever used an identity; NULL where nobody plainly did. */
static PyObject *guided(Run *run, PyObject *token, int64_t at) {
    PyObject *holders = PyDict_GetItemWithError(run->by_token, token), *path = NULL;
    if (holders != NULL && PyTuple_CheckExact(holders) && PyTuple_GET_SIZE(holders) == 1 &&
        Py_TYPE(PyTuple_GET_ITEM(holders, 0)) == member_type) {
        int64_t since;
        PyObject *stays = field_of(&member_stays, PyTuple_GET_ITEM(holders, 0));
        if (stays != NULL && PyList_CheckExact(stays) && PyList_GET_SIZE(stays) == 1) {
            PyObject *stay = PyList_GET_ITEM(stays, 0);
            if (PyTuple_CheckExact(stay) && PyTuple_GET_SIZE(stay) == 2 &&
                int_of(PyTuple_GET_ITEM(stay, 0), &since)) {
                path = at >= since ? Py_NewRef(PyTuple_GET_ITEM(stay, 1)) : NULL;
                Py_DECREF(stays);
                return path;
            }
        }
        Py_XDECREF(stays);
    }
    if (holders != NULL && !PyErr_Occurred())
        path = PyObject_CallMethod(run->hierarchy, "guide", "OL", token, (long long)at);
    return path;
}

static int path_read(Run *run, Charge *charge, PyObject *path) {
    if (!PyTuple_CheckExact(path) || PyTuple_GET_SIZE(path) == 0 || PyTuple_GET_SIZE(path) > DEPTH)
        return LEFT;
    charge->length = (int)PyTuple_GET_SIZE(path);
    for (int place = 0; place < charge->length; place++) {
        int64_t ordinal;
        PyObject *member = PyTuple_GET_ITEM(path, place);
        if (!int_of(member, &ordinal) || ordinal < 0 || ordinal > INT32_MAX)
            return LEFT;
        charge->ordinals[place] = (Py_ssize_t)ordinal;
        if (PyDict_GET_SIZE(run->frozen) && PyDict_Contains(run->frozen, member) != 0)
            return LEFT;
    }
    if (run->suspended != NULL && PySequence_Contains(run->suspended, PyTuple_GET_ITEM(path, 0)) != 0)
        return LEFT;
    return DONE;
}

static int guide(Run *run, Charge *charge, PyObject *token) {
    PyObject *path = guided(run, token, charge->at);
    if (path == NULL)
        return LEFT;
    int done = path_read(run, charge, path);
    Py_DECREF(path);
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
static int decide(Run *run, Charge *charge, PyObject *const *of, PyObject *token) {
    if (!int_of(of[STARTED_AT], &charge->at) || !int_of(of[QUANTITY], &charge->quantity) ||
        charge->at < run->oldest || charge->at > run->latest || !PyUnicode_CheckExact(of[USAGE_TYPE]) ||
        !PyUnicode_CheckExact(of[DIRECTION]) || !PyUnicode_CheckExact(of[COUNTERPART]) ||
        guide(run, charge, token) != DONE || window_at(run, charge->at) != DONE)
        return LEFT;
    const Lane *lane = lane_for(run, of[USAGE_TYPE], of[DIRECTION]);
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

/* The envelope with the charge in it, as `encode` would give it. */
static int tell(Buffer *told, const Charge *charge, PyObject *const *of, PyObject *actor, PyObject *digest,
                PyObject *sealed) {
    if (!PyBytes_CheckExact(digest) || !PyBytes_CheckExact(sealed))
        return LEFT;
    told->size = 0;
    PUT(put_array(told, 4));
    PUT(put_int(told, schema));
    PUT(put_str(told, actor));
    PUT(put_binary(told, PyBytes_AS_STRING(digest), (size_t)PyBytes_GET_SIZE(digest)));
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
    PUT(put_binary(told, PyBytes_AS_STRING(sealed), (size_t)PyBytes_GET_SIZE(sealed)));
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
    run->hierarchy = part_at(plain, "_hierarchy", NULL);
    run->frozen = part_at(plain, "_frozen", &PyDict_Type);
    run->by_token = run->hierarchy != NULL ? part_at(run->hierarchy, "by_token", &PyDict_Type) : NULL;
    if (run->frozen == NULL || run->by_token == NULL)
        return LEFT;
    run->suspended = part_at(run->hierarchy, "suspended", NULL);
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

static void run_release(Run *run) {
    for (int place = 0; place < run->window_count; place++)
        Py_CLEAR(run->windows[place].lanes);
    for (int place = 0; place < run->lane_count; place++)
        lane_release(&run->lanes[place]);
    for (int place = 0; place < RATES; place++)
        rate_release(&run->rates[place]);
    for (int place = 0; place < run->family_count; place++)
        family_release(&run->families[place]);
    Py_XDECREF(run->plain);
    Py_XDECREF(run->hierarchy);
    Py_XDECREF(run->by_token);
    Py_XDECREF(run->frozen);
    Py_XDECREF(run->suspended);
    buffer_free(&run->told);
    PyMem_Free(run);
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

static int charge_record(Run *run, PyObject *const *of, PyObject *prepared, PyObject *actor, int64_t seq,
                         PyObject *const *outputs) {
    Charge charge;
    charge.draws = 0, charge.taken = 0;
    PyObject *digest = PyTuple_GET_ITEM(prepared, 2), *sealed = PyTuple_GET_ITEM(prepared, 4);
    int done = decide(run, &charge, of, PyTuple_GET_ITEM(prepared, 3));
    if (done == DONE)
        done = tell(&run->told, &charge, of, actor, digest, sealed);
    if (done != DONE)
        return done == LEFT ? leave() : done;
    if (run->amount > LARGE - charge.amount)
        PUT(run_total(run));
    PyObject *made[GIVEN] = {outcome_of(&charge, seq), NULL, PyTuple_GET_ITEM(prepared, 1), digest};
    if (made[OUTCOMES] != NULL)
        made[STATES] = PyBytes_FromStringAndSize((char *)run->told.data, (Py_ssize_t)run->told.size);
    done = made[STATES] != NULL ? count(run, &charge) : FAILED;
    for (int output = 0; output < GIVEN && done == DONE; output++)
        done = PyList_Append(outputs[output], made[output]);
    Py_XDECREF(made[OUTCOMES]);
    Py_XDECREF(made[STATES]);
    return done;
}

static int charge_prepared(Run *run, PyObject *prepared, PyObject *actor, int64_t seq, PyObject *const *outputs) {
    PyObject *of[RECORD_FIELDS] = {NULL};
    if (!PyTuple_CheckExact(prepared) || PyTuple_GET_SIZE(prepared) != 5)
        return LEFT;
    PyObject *record = PyTuple_GET_ITEM(prepared, 0);
    int done = Py_TYPE(record) == record_type ? DONE : LEFT;
    for (int field = 0; field < RECORD_FIELDS && done == DONE; field++) {
        if (field == LINE || field == ATTRIBUTES)
            continue; /* neither decides anything where all is plain */
        of[field] = field_of(&record_field[field], record);
        done = of[field] != NULL ? DONE : FAILED;
    }
    if (done == DONE)
        done = charge_record(run, of, prepared, actor, seq, outputs);
    for (int field = 0; field < RECORD_FIELDS; field++)
        Py_XDECREF(of[field]);
    return done;
}

/* --- what will be needed soon ------------------------------------------------------------------ */

/* Thousands of members' counters do not fit into a cache, and each record asks for others: so they are sent
 * for while something else is done, a block of records at a time, one step of the way for all of them before
 * the next. Nothing is decided here, nothing changed, and what is missing is just not sent for. No Python code
 * runs meanwhile (tokens are bytes, and compared with nothing else), so what is found need not be held. */
static inline void send_for(const void *what) {
#if defined(__GNUC__)
    __builtin_prefetch(what);
#else
    (void)what;
#endif
}

/* The path of a member that has had one place only; borrowed, or NULL. */
static PyObject *step_on(PyObject *from, int step) {
    PyObject *next = NULL;
    if (from == NULL)
        return NULL;
    if (step == 1 && PyTuple_CheckExact(from) && PyTuple_GET_SIZE(from) == 1)
        next = PyTuple_GET_ITEM(from, 0);
    else if (step == 2 && Py_TYPE(from) == member_type) {
        next = field_of(&member_stays, from);
        PyErr_Clear();
        Py_XDECREF(next); /* the member holds it, and nobody else acts meanwhile */
    } else if (step == 3 && PyList_CheckExact(from) && PyList_GET_SIZE(from) == 1)
        next = PyList_GET_ITEM(from, 0);
    else if (step == 4 && PyTuple_CheckExact(from) && PyTuple_GET_SIZE(from) == 2) {
        send_for(PyTuple_GET_ITEM(from, 0));
        next = PyTuple_GET_ITEM(from, 1);
    }
    return next;
}

static void send_for_slot(PyObject *counters, PyObject *path, Py_ssize_t place, int what) {
    int64_t ordinal;
    if (!int_of(PyTuple_GET_ITEM(path, place), &ordinal) || ordinal < 0 || ordinal >= PyList_GET_SIZE(counters))
        return;
    if (what)
        send_for(PyList_GET_ITEM(counters, ordinal));
    else
        send_for(&PyList_GET_ITEM(counters, ordinal));
}

/* The family that usage of this record's type was last charged to. */
static const Family *family_of(const Run *run, PyObject *record) {
    const Family *found = NULL;
    PyObject *usage_type = Py_TYPE(record) == record_type ? field_of(&record_field[USAGE_TYPE], record) : NULL;
    for (int place = 0; usage_type != NULL && PyUnicode_CheckExact(usage_type) && place < run->lane_count; place++)
        if (same_text(run->lanes[place].usage_type, usage_type))
            found = run->lanes[place].family;
    Py_XDECREF(usage_type);
    PyErr_Clear();
    return found;
}

static void send_for_block(const Run *run, PyObject *prepared, Py_ssize_t from) {
    PyObject *at[BLOCK];
    const Family *families[BLOCK];
    int count = 0;
    for (Py_ssize_t place = from; place < PyList_GET_SIZE(prepared) && count < BLOCK; place++) {
        PyObject *one = PyList_GET_ITEM(prepared, place);
        if (!PyTuple_CheckExact(one) || PyTuple_GET_SIZE(one) != 5 || !PyBytes_CheckExact(PyTuple_GET_ITEM(one, 3)))
            continue;
        families[count] = family_of(run, PyTuple_GET_ITEM(one, 0));
        at[count] = PyDict_GetItemWithError(run->by_token, PyTuple_GET_ITEM(one, 3));
        send_for(at[count++]);
    }
    PyErr_Clear();
    for (int step = 1; step <= 4; step++) {
        for (int place = 0; place < count; place++) {
            at[place] = step_on(at[place], step);
            send_for(at[place]);
        }
    }
    for (int step = 0; step < 3; step++) {
        for (int place = 0; place < count; place++) {
            if (at[place] == NULL || families[place] == NULL || !PyTuple_CheckExact(at[place]))
                continue;
            for (Py_ssize_t level = 0; level < PyTuple_GET_SIZE(at[place]) && level < DEPTH; level++) {
                if (step == 0) {
                    send_for(PyTuple_GET_ITEM(at[place], level));
                    continue;
                }
                send_for_slot(families[place]->used, at[place], level, step - 1);
                send_for_slot(families[place]->mark, at[place], level, step - 1);
                if (step == 1)
                    send_for_slot(families[place]->remaining, at[place], level, 0);
            }
        }
    }
}

/* charge(plain, prepared, place, actors, oldest, latest, seq, outcomes, states, keys, digests) -> int
 *
 * Charges from a place on, as far as it is plain; the first place that is not. */
PyObject *native_charge(PyObject *self, PyObject *const *given, Py_ssize_t count_of) {
    (void)self;
    int64_t place, oldest, latest, seq;
    if (check_arguments("oliliiillll", given, count_of) != DONE)
        return NULL;
    PyObject *prepared = given[1], *actors = given[3];
    if (record_type == NULL || rate_type == NULL || !int_of(given[2], &place) || !int_of(given[4], &oldest) ||
        !int_of(given[5], &latest) || !int_of(given[6], &seq) || place < 0 || place > PyList_GET_SIZE(prepared) ||
        seq > LARGE)
        return Py_NewRef(given[2]);
    Run *run = PyMem_Calloc(1, sizeof *run);
    if (run == NULL)
        return PyErr_NoMemory();
    int done = run_start(run, given[0], oldest, latest);
    Py_ssize_t sent = (Py_ssize_t)place + 1;
    while (done == DONE && place < PyList_GET_SIZE(prepared) && place < PyList_GET_SIZE(actors)) {
        if (place >= sent) {
            send_for_block(run, prepared, (Py_ssize_t)place);
            sent = (Py_ssize_t)place + BLOCK;
        }
        PyObject *one = Py_NewRef(PyList_GET_ITEM(prepared, place));
        PyObject *actor = Py_NewRef(PyList_GET_ITEM(actors, place));
        done = charge_prepared(run, one, actor, seq, given + 7);
        Py_DECREF(one);
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
