/* Reading msgpack where it lies: the forms of more than one byte; those of one byte are in native.h. */
#include "native.h"

int take_wide_int(Reader *reader, int64_t *value) {
    uint64_t number;
    if (!has(reader, 1))
        return 0;
    unsigned char marker = *reader->at++;
    if (marker < 0xcc || marker > 0xd3 || !take_number(reader, 1 << ((marker - 0xcc) & 3), &number))
        return 0;
    switch (marker) {
    case 0xd0:
        *value = (int8_t)number;
        return 1;
    case 0xd1:
        *value = (int16_t)number;
        return 1;
    case 0xd2:
        *value = (int32_t)number;
        return 1;
    default:
        *value = (int64_t)number;
        return marker == 0xd3 || number <= INT64_MAX;
    }
}

/* A length behind its marker, which is the first of those given for one, two and four bytes. */
static int take_length(Reader *reader, int first, int widths, uint64_t *size) {
    if (!has(reader, 1))
        return 0;
    int power = *reader->at++ - first;
    return power >= 0 && power < 3 && widths >> power & 1 && take_number(reader, 1 << power, size);
}

int take_wide_text(Reader *reader, Text *text) {
    uint64_t size;
    return take_length(reader, 0xd9, 7, &size) && take_bytes(reader, size, text);
}

int take_binary(Reader *reader, Text *text) {
    uint64_t size;
    return take_length(reader, 0xc4, 7, &size) && take_bytes(reader, size, text);
}

/* There is no length of one byte: 0xdb in its place is a text's. */
int take_wide_array(Reader *reader, uint64_t *size) { return take_length(reader, 0xdb, 6, size); }

/* The bytes that follow a marker, and how many more values it opens; 0 for a marker that msgpack has not. */
static int shape_of(Reader *reader, unsigned char marker, uint64_t *bytes, uint64_t *more) {
    static const unsigned char plain[] = {0, 0, 0, 0}; /* nil, never used, false, true */
    *bytes = *more = 0;
    if (marker < 0x80 || marker >= 0xe0)
        return 1;
    if (marker < 0x90) {
        *more = 2 * (uint64_t)(marker & 0x0f);
        return 1;
    }
    if (marker < 0xa0) {
        *more = marker & 0x0f;
        return 1;
    }
    if (marker < 0xc0) {
        *bytes = marker & 0x1f;
        return 1;
    }
    if (marker < 0xc4) {
        *bytes = plain[marker & 3];
        return marker != 0xc1;
    }
    if (marker < 0xc7) /* binary */
        return take_number(reader, 1 << (marker - 0xc4), bytes);
    if (marker < 0xca) { /* extension: its type follows the length */
        int told = take_number(reader, 1 << (marker - 0xc7), bytes);
        *bytes += 1;
        return told;
    }
    if (marker < 0xcc)
        *bytes = marker == 0xca ? 4 : 8;
    else if (marker < 0xd4)
        *bytes = (uint64_t)1 << ((marker - 0xcc) & 3);
    else if (marker < 0xd9)
        *bytes = 1 + ((uint64_t)1 << (marker - 0xd4));
    else if (marker < 0xdc)
        return take_number(reader, 1 << (marker - 0xd9), bytes);
    else {
        int told = take_number(reader, marker & 1 ? 4 : 2, more);
        *more *= marker >= 0xde ? 2 : 1;
        return told;
    }
    return 1;
}

/* Each value takes a byte at least, so this ends. */
int skip_value(Reader *reader) {
    for (uint64_t left = 1; left; left--) {
        uint64_t bytes, more;
        if (!has(reader, 1))
            return 0;
        unsigned char marker = *reader->at++;
        if (!shape_of(reader, marker, &bytes, &more) || !has(reader, bytes) || more > (uint64_t)(reader->end - reader->at))
            return 0;
        reader->at += bytes;
        left += more;
    }
    return 1;
}
