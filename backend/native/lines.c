/* Plain lines of our own shape, from the bytes of a body to records.
 *
 * Twins: `record_of` of backend/intake/own_shape.py, `_is_settled` of backend/intake/numbers.py. A line is
 * read here where it is JSON without escapes, printable ASCII without spaces in its texts, with whole numbers
 * and an ISO 8601 time that says its offset; every other line is left, and may be as good.
 */
#include "native.h"
#include <string.h>

enum { FROM, ID, WHOSE, TYPE, START, DIRECTION_OF, OTHER, TEXTS, HOW_MUCH = TEXTS };
enum { LINE_BYTES_MAX = 4096, DIGITS_MAX = 18, NUMBER_MIN = 4, NUMBER_MAX = 21, CODES = 1000 };
static const unsigned NEEDED = 1u << FROM | 1u << ID | 1u << WHOSE | 1u << TYPE | 1u << START | 1u << HOW_MUCH;
static const int64_t SECOND = 1000000, DAY = 86400;

/* A text that may stand there, and the one string that all records have of it. */
typedef struct {
    const char *text;
    PyObject *kept;
} Name;

static Name types[] = {{"data", NULL}, {"voice", NULL}, {"messaging", NULL}, {"video", NULL}, {NULL, NULL}};
static Name directions[] = {{"outbound", NULL}, {"inbound", NULL}, {NULL, NULL}};

typedef struct {
    const char *at;
    Py_ssize_t size;
} Quoted;

typedef struct {
    Quoted text[TEXTS];
    int64_t quantity;
    unsigned given;
} Line;

typedef struct {
    int64_t amount_max, days_end, text_max;
    PyObject *known, *beginning, *normal; /* see `NUMBERS` in own_shape.py */
    PyObject *source;                     /* that of the line before: most have the same */
} Reading;

/* --- JSON --------------------------------------------------------------------------------------- */

static const char *skip(const char *at, const char *end) {
    while (at < end && (*at == ' ' || *at == '\t' || *at == '\r'))
        at++;
    return at;
}

/* Behind the closing quote; NULL where it is anything but plain text. */
static const char *read_text(const char *at, const char *end, Quoted *text) {
    if (at == end || *at++ != '"')
        return NULL;
    text->at = at;
    while (at < end && *at > 0x20 && *at < 0x7f && *at != '"' && *at != '\\')
        at++;
    text->size = at - text->at;
    return at < end && *at == '"' ? at + 1 : NULL;
}

static const char *read_whole(const char *at, const char *end, int64_t *value) {
    const char *first = at;
    int64_t sum = 0;
    while (at < end && *at >= '0' && *at <= '9' && at - first < DIGITS_MAX)
        sum = 10 * sum + (*at++ - '0');
    if (at == first || (*first == '0' && at - first > 1))
        return NULL;
    *value = sum;
    return at; /* what follows must be a comma, or the end */
}

static int is_called(const Quoted *name, const char *called, size_t size) {
    return (size_t)name->size == size && memcmp(name->at, called, size) == 0;
}

/* Which member it is; -1 for none that is plain. */
static int member_of(const Quoted *name) {
    switch (name->size) {
    case 2:
        return is_called(name, "id", 2) ? ID : -1;
    case 4:
        return is_called(name, "line", 4) ? WHOSE : is_called(name, "type", 4) ? TYPE : -1;
    case 5:
        return is_called(name, "start", 5) ? START : -1;
    case 6:
        return is_called(name, "source", 6) ? FROM : -1;
    case 8:
        return is_called(name, "quantity", 8) ? HOW_MUCH : -1;
    case 9:
        return is_called(name, "direction", 9) ? DIRECTION_OF : -1;
    case 11:
        return is_called(name, "counterpart", 11) ? OTHER : -1;
    default:
        return -1;
    }
}

/* One member and its value; each may stand there once. */
static const char *read_member(const char *at, const char *end, Line *line) {
    Quoted name;
    at = read_text(at, end, &name);
    int member = at != NULL ? member_of(&name) : -1;
    if (member < 0 || line->given & 1u << member)
        return NULL;
    line->given |= 1u << member;
    at = skip(at, end);
    if (at == end || *at != ':')
        return NULL;
    at = skip(at + 1, end);
    return member == HOW_MUCH ? read_whole(at, end, &line->quantity) : read_text(at, end, &line->text[member]);
}

/* Whether it is one object with all that is needed, and nothing else. */
static int read_line(const char *at, const char *end, Line *line) {
    memset(line, 0, sizeof *line);
    at = skip(at, end);
    if (at == end || *at != '{')
        return 0;
    do {
        at = read_member(skip(at + 1, end), end, line);
        if (at == NULL)
            return 0;
        at = skip(at, end);
    } while (at < end && *at == ',');
    return at < end && *at == '}' && skip(at + 1, end) == end && (line->given & NEEDED) == NEEDED;
}

/* --- times -------------------------------------------------------------------------------------- */

/* A number of so many digits; -1 where they are none. */
static int digits(const char *at, int count) {
    int value = 0;
    for (int place = 0; place < count; place++) {
        if (at[place] < '0' || at[place] > '9')
            return -1;
        value = 10 * value + (at[place] - '0');
    }
    return value;
}

/* Days since the epoch; -1 where there is no such day, or it was before. */
static int64_t day_of(int year, int month, int day) {
    static const int lengths[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    static const int before[] = {0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334};
    int leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    if (year < 1970 || month < 1 || month > 12 || day < 1 || day > lengths[month - 1] + (leap && month == 2))
        return -1;
    int64_t past = year - 1; /* years that are over, each with its leap day */
    int64_t days = 365 * past + past / 4 - past / 100 + past / 400 - 719162;
    return days + before[month - 1] + (leap && month > 2) + day - 1;
}

/* Seconds east of UTC in "Z", "+01:00"; 0 where it is written otherwise. */
static int read_offset(const char *at, Py_ssize_t size, int64_t *offset) {
    if (size == 1 && *at == 'Z') {
        *offset = 0;
        return 1;
    }
    if (size != 6 || (*at != '+' && *at != '-') || at[3] != ':')
        return 0;
    int hours = digits(at + 1, 2), minutes = digits(at + 4, 2);
    *offset = (hours * 60 + minutes) * (*at == '-' ? -60 : 60);
    return hours >= 0 && hours < 24 && minutes >= 0 && minutes < 60;
}

/* Microseconds since the epoch of "2026-11-15T10:00:00.123456+01:00"; 0 where it is written otherwise. */
static int read_start(const Quoted *text, int64_t *micros) {
    const char *at = text->at;
    Py_ssize_t size = text->size, fraction = 0;
    if (size < 20 || at[4] != '-' || at[7] != '-' || at[10] != 'T' || at[13] != ':' || at[16] != ':')
        return 0;
    int hour = digits(at + 11, 2), minute = digits(at + 14, 2), second = digits(at + 17, 2), part = 0;
    int year = digits(at, 4), month = digits(at + 5, 2), day = digits(at + 8, 2);
    int64_t offset, days = year < 0 || month < 0 || day < 0 ? -1 : day_of(year, month, day);
    if (at[19] == '.') {
        while (20 + fraction < size && at[20 + fraction] >= '0' && at[20 + fraction] <= '9')
            fraction++;
        if (fraction != 3 && fraction != 6)
            return 0;
        part = digits(at + 20, (int)fraction) * (fraction == 3 ? 1000 : 1);
        fraction++;
    }
    if (days < 0 || hour < 0 || hour > 23 || minute < 0 || minute > 59 || second < 0 || second > 59 ||
        !read_offset(at + 19 + fraction, size - 19 - fraction, &offset))
        return 0;
    *micros = (days * DAY + hour * 3600 + minute * 60 + second - offset) * SECOND + part;
    return 1;
}

/* --- numbers ------------------------------------------------------------------------------------ */

/* How an international number of this beginning is told to stay what it is; borrowed. */
static PyObject *beginning_of(const Reading *reading, const char *three) {
    int code = digits(three, 3);
    if (code < 0 || PyList_GET_SIZE(reading->known) != CODES)
        return Py_None;
    PyObject *known = PyList_GET_ITEM(reading->known, code);
    if (known == Py_None) {
        known = PyObject_CallFunction(reading->beginning, "s#", three, (Py_ssize_t)3);
        if (known != NULL && PyList_SetItem(reading->known, code, known) != 0)
            known = NULL;
    }
    return known;
}

/* Whether it is an international number that stays what it is: 1, 0, or -1 with an exception. */
static int is_settled(const Reading *reading, const Quoted *number) {
    if (number->size < NUMBER_MIN || number->size > NUMBER_MAX || *number->at != '+')
        return 0;
    for (Py_ssize_t place = 1; place < number->size; place++)
        if (number->at[place] < '0' || number->at[place] > '9')
            return 0;
    PyObject *known = beginning_of(reading, number->at + 1);
    if (known == NULL)
        return FAILED;
    if (!PyBytes_CheckExact(known) || PyBytes_GET_SIZE(known) < 2)
        return 0;
    const char *told = PyBytes_AS_STRING(known), *end = told + PyBytes_GET_SIZE(known);
    Py_ssize_t code = 1 + (*told++ - '0');
    while (told < end) {
        Py_ssize_t size = *told++ - '0'; /* of what would be taken off */
        if (size < 1 || size > end - told)
            return 0;
        if (code + size <= number->size && memcmp(number->at + code, told, (size_t)size) == 0)
            return 0;
        told += size;
    }
    return 1;
}

static PyObject *text_of(const Quoted *text) {
    PyObject *made = PyUnicode_New(text->size, 127);
    if (made != NULL && text->size) /* what was not given is nowhere */
        memcpy(PyUnicode_1BYTE_DATA(made), text->at, (size_t)text->size);
    return made;
}

/* In the one form that everything compares; NULL with an exception. */
static PyObject *number_of(const Reading *reading, const Quoted *text) {
    int settled = text->size == 0 ? 1 : is_settled(reading, text);
    PyObject *told = settled < 0 ? NULL : text_of(text);
    if (told == NULL || settled)
        return told;
    PyObject *normal = PyObject_CallOneArg(reading->normal, told);
    Py_DECREF(told);
    return normal;
}

/* --- records ------------------------------------------------------------------------------------ */

/* NULL where it is none of them. */
static PyObject *one_of(Name *names, const Quoted *text) {
    for (; names->text != NULL; names++) {
        if (is_called(text, names->text, strlen(names->text))) {
            if (names->kept == NULL)
                names->kept = PyUnicode_InternFromString(names->text);
            return Py_XNewRef(names->kept);
        }
    }
    return NULL;
}

/* The source, kept for the lines that follow. Borrowed. */
static PyObject *source_of(Reading *reading, const Quoted *text) {
    PyObject *last = reading->source;
    if (last == NULL || !is_called(text, PyUnicode_DATA(last), (size_t)PyUnicode_GET_LENGTH(last)))
        Py_XSETREF(reading->source, text_of(text));
    return reading->source;
}

static int is_text(const Reading *reading, const Quoted *text, Py_ssize_t least) {
    return text->size >= least && text->size <= reading->text_max;
}

static int is_short(const Reading *reading, PyObject *number) {
    return PyUnicode_CheckExact(number) && PyUnicode_GET_LENGTH(number) <= reading->text_max;
}

/* Whether all of it is within its bounds. */
static int is_plain(const Reading *reading, const Line *line, int64_t *start) {
    return is_text(reading, &line->text[FROM], 1) && is_text(reading, &line->text[ID], 1) &&
           is_text(reading, &line->text[WHOSE], 1) && is_text(reading, &line->text[OTHER], 0) &&
           line->quantity <= reading->amount_max && read_start(&line->text[START], start) && *start >= 0 &&
           *start < reading->days_end * DAY * SECOND;
}

static int make_record(Reading *reading, const Line *line, PyObject **made) {
    static const Quoted outward = {"outbound", 8};
    int64_t start;
    if (!is_plain(reading, line, &start))
        return LEFT;
    const Quoted *way = line->given & 1u << DIRECTION_OF ? &line->text[DIRECTION_OF] : &outward;
    PyObject *of[ATTRIBUTES] = {0}; /* `attributes` are none by themselves */
    int done = LEFT;
    if ((of[USAGE_TYPE] = one_of(types, &line->text[TYPE])) != NULL && (of[DIRECTION] = one_of(directions, way)) != NULL) {
        done = FAILED;
        if ((of[SOURCE] = source_of(reading, &line->text[FROM])) != NULL) {
            Py_INCREF(of[SOURCE]);
            of[RECORD_ID] = text_of(&line->text[ID]);
            of[LINE] = of[RECORD_ID] ? number_of(reading, &line->text[WHOSE]) : NULL;
            of[COUNTERPART] = of[LINE] ? number_of(reading, &line->text[OTHER]) : NULL;
            of[QUANTITY] = of[COUNTERPART] ? PyLong_FromLongLong(line->quantity) : NULL;
            of[STARTED_AT] = of[QUANTITY] ? PyLong_FromLongLong(start) : NULL;
        }
        if (of[STARTED_AT] != NULL && (!is_short(reading, of[LINE]) || !is_short(reading, of[COUNTERPART])))
            done = LEFT;
        else if (of[STARTED_AT] != NULL)
            *made = PyObject_Vectorcall((PyObject *)record_type, of, ATTRIBUTES, NULL);
    } else if (PyErr_Occurred()) {
        done = FAILED;
    }
    for (int field = 0; field < ATTRIBUTES; field++)
        Py_XDECREF(of[field]);
    return *made != NULL ? DONE : done;
}

static int add_line(Reading *reading, const char *at, const char *end, PyObject *records) {
    Line line;
    PyObject *made = NULL;
    if (end - at > LINE_BYTES_MAX || !read_line(at, end, &line))
        return LEFT;
    int done = make_record(reading, &line, &made);
    if (done == DONE)
        done = PyList_Append(records, made) == 0 ? DONE : FAILED;
    Py_XDECREF(made);
    return done;
}

/* read_lines(body, at, most, records, limits, numbers) -> int: reads lines from a place on, as far as they are
 * plain and at most so many; where the first begins that was not read. */
PyObject *native_read_lines(PyObject *self, PyObject *const *given, Py_ssize_t count) {
    (void)self;
    Reading reading = {0};
    long long at, most, amount_max, days_end, text_max;
    if (check_arguments("biiltt", given, count) != DONE || record_type == NULL ||
        !PyArg_ParseTuple(given[4], "LLL", &amount_max, &days_end, &text_max) ||
        !PyArg_ParseTuple(given[5], "O!OO", &PyList_Type, &reading.known, &reading.beginning, &reading.normal))
        return PyErr_Occurred() ? NULL : Py_NewRef(given[1]);
    reading.amount_max = amount_max, reading.days_end = days_end, reading.text_max = text_max;
    at = PyLong_AsLongLong(given[1]), most = PyLong_AsLongLong(given[2]);
    const char *body = PyBytes_AS_STRING(given[0]), *end = body + PyBytes_GET_SIZE(given[0]);
    if (PyErr_Occurred() || at < 0 || at > end - body)
        return PyErr_Occurred() ? NULL : Py_NewRef(given[1]);
    const char *next = body + at;
    int done = DONE;
    for (; done == DONE && most > 0 && next < end; most--) {
        const char *stop = memchr(next, '\n', (size_t)(end - next));
        done = add_line(&reading, next, stop != NULL ? stop : end, given[3]);
        if (done == DONE)
            next = stop != NULL ? stop + 1 : end;
    }
    Py_XDECREF(reading.source);
    return done == FAILED ? NULL : PyLong_FromSsize_t(next - body);
}
