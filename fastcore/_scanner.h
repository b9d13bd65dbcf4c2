/* Finds a sentinel in a stream of bytes that arrives in pieces.
 *
 * Four ways, chosen once for each sentinel:
 *
 *   PROBE   The first grams of the sentinel (4 bytes each, at the offsets 0, 1 ... stride-1)
 *           are all different, as in the protocol's own. Wherever a sentinel lies,
 *           exactly one of the positions stride-1, 2*stride-1, 3*stride-1 ... falls on one
 *           of those grams, so only there are bytes looked at: one gram in 29 bytes for a
 *           sentinel of 32. A gram that is in the table tells its offset, hence the only
 *           place where the sentinel could start, and those bytes are compared.
 *           At worst a byte is compared size/stride times: once or twice, for the longest
 *           sentinels four times.
 *   BYTE    A sentinel of one byte: memchr.
 *   SHORT   Up to 7 bytes: 64 places are compared at once, in loops that compilers turn
 *           into vector instructions on every processor. What the bytes are makes no
 *           difference; each is looked at once for each byte of the sentinel.
 *   WALK    All others (a gram is repeated): Knuth-Morris-Pratt, with memchr from one
 *           first byte to the next. Each byte is looked at twice at most, whatever the
 *           sentinel overlaps with.
 *
 * A search stops where the bytes end and goes on there when more have come; it never
 * starts again. Pure C, no Python: may run without the GIL.
 */
#ifndef FASTCORE_SCANNER_H
#define FASTCORE_SCANNER_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define GRAM 4
#define TABLE_BITS 12
#define LONGEST_STRIDE 64 /* a cache line; farther apart the probes gain nothing */
#define LONGEST_SENTINEL 255
#define BATCH 64

/* By all searches, counted in a debug build only: the tests hold it against the input's size. */
#if FASTCORE_DEBUG
static size_t bytes_examined = 0;
#define EXAMINED(n) (bytes_examined += (n))
#else
enum { bytes_examined = 0 };
#define EXAMINED(n) ((void)0)
#endif

enum scan_way { PROBE, BYTE, SHORT, WALK };

typedef struct {
    enum scan_way way;
    ptrdiff_t size;
    uint8_t sentinel[LONGEST_SENTINEL];
    /* PROBE: for the hash of a gram its offset in the sentinel + 1; 0 for those it hasn't. */
    ptrdiff_t stride;
    uint32_t multiplier;
    uint8_t grams[1 << TABLE_BITS];
    /* WALK: the longest proper prefix of the sentinel that ends at each of its places. */
    uint8_t border[LONGEST_SENTINEL];
} scanner;

/* Where a search goes on. Positions count from the start of the frame. */
typedef struct {
    ptrdiff_t at;      /* the next byte (PROBE: the next gram) to look at */
    ptrdiff_t enough;  /* with fewer bytes than that there is nothing new to see */
    ptrdiff_t matched; /* WALK: that many bytes of the sentinel end right before `at` */
} scan_state;

static inline uint32_t gram_slot(const scanner *s, const uint8_t *gram)
{
    uint32_t value;
    memcpy(&value, gram, GRAM);
    return (value * s->multiplier) >> (32 - TABLE_BITS);
}

/* Fills the table; 0 when two grams share a slot. */
static inline int place_grams(scanner *s, uint32_t multiplier)
{
    s->multiplier = multiplier;
    memset(s->grams, 0, sizeof s->grams);
    for (ptrdiff_t offset = 0; offset < s->stride; offset++) {
        uint8_t *slot = &s->grams[gram_slot(s, s->sentinel + offset)];
        if (*slot)
            return 0;
        *slot = (uint8_t)(offset + 1);
    }
    return 1;
}

static inline void measure_borders(scanner *s)
{
    ptrdiff_t border = 0;
    s->border[0] = 0;
    for (ptrdiff_t i = 1; i < s->size; i++) {
        while (border && s->sentinel[i] != s->sentinel[border])
            border = s->border[border - 1];
        border += s->sentinel[i] == s->sentinel[border];
        s->border[i] = (uint8_t)border;
    }
}

/* `size` from 1 to LONGEST_SENTINEL. */
static inline void scanner_init(scanner *s, const uint8_t *sentinel, ptrdiff_t size)
{
    s->size = size;
    memcpy(s->sentinel, sentinel, (size_t)size);
    if (size == 1) {
        s->way = BYTE;
        return;
    }
    if (size < 2 * GRAM) {
        s->way = SHORT;
        return;
    }
    s->way = PROBE;
    s->stride = size - GRAM + 1 < LONGEST_STRIDE ? size - GRAM + 1 : LONGEST_STRIDE;
    uint32_t multiplier = 0x9E3779B1u;
    for (int attempt = 0; attempt < 64; attempt++) {
        if (place_grams(s, multiplier))
            return;
        multiplier = multiplier * 0x2C9277B5u + 2u;
    }
    s->way = WALK;
    measure_borders(s);
}

static inline void scan_start(const scanner *s, scan_state *search)
{
    search->at = s->way == PROBE ? s->stride - 1 : 0;
    search->enough = s->size;
    search->matched = 0;
}

/* After `size` bytes at the front have been dropped. */
static inline void scan_shift(scan_state *search, ptrdiff_t size)
{
    search->at -= size;
    search->enough -= size;
}

/* With the usual size as a constant, the compiler compares in registers: what matters
 * when the bytes are full of what is nearly a sentinel. */
static inline int same(const uint8_t *a, const uint8_t *b, ptrdiff_t size)
{
    return size == 32 ? memcmp(a, b, 32) == 0 : memcmp(a, b, (size_t)size) == 0;
}

static inline ptrdiff_t scan_probe(const scanner *s, const uint8_t *data, ptrdiff_t end, scan_state *search)
{
    const ptrdiff_t stride = s->stride;
    ptrdiff_t at = search->at;
    for (; at <= end - GRAM; at += stride) {
        EXAMINED(GRAM);
        const uint8_t found = s->grams[gram_slot(s, data + at)];
        if (!found)
            continue;
        const ptrdiff_t start = at - (found - 1);
        if (start + s->size > end) {
            search->at = at;
            search->enough = start + s->size;
            return -1;
        }
        EXAMINED((size_t)s->size);
        if (same(data + start, s->sentinel, s->size)) {
            search->at = at;
            return start;
        }
    }
    search->at = at;
    search->enough = at + GRAM;
    return -1;
}

static inline ptrdiff_t scan_byte(const scanner *s, const uint8_t *data, ptrdiff_t end, scan_state *search)
{
    const uint8_t *found = memchr(data + search->at, s->sentinel[0], (size_t)(end - search->at));
    const ptrdiff_t stop = found ? found - data : end;
    EXAMINED((size_t)(stop - search->at));
    search->at = stop;
    search->enough = stop + 1;
    return found ? stop : -1;
}

/* The first of the places from `at` to `stop` (not included) where a sentinel stands, or `stop`. */
static inline ptrdiff_t scan_few(const scanner *s, const uint8_t *data, ptrdiff_t at, ptrdiff_t stop)
{
    for (; at < stop; at++) {
        const uint8_t *first = memchr(data + at, s->sentinel[0], (size_t)(stop - at));
        EXAMINED((size_t)((first ? first - data : stop) - at));
        if (!first)
            return stop;
        at = first - data;
        EXAMINED((size_t)s->size);
        if (memcmp(first, s->sentinel, (size_t)s->size) == 0)
            return at;
    }
    return stop;
}

/* The same for BATCH places at once. */
static inline ptrdiff_t scan_batch(const scanner *s, const uint8_t *data, ptrdiff_t at)
{
    uint8_t differs[BATCH] = {0};
    EXAMINED((size_t)(BATCH * s->size));
    for (ptrdiff_t i = 0; i < s->size; i++)
        for (ptrdiff_t place = 0; place < BATCH; place++)
            differs[place] |= data[at + place + i] ^ s->sentinel[i];
    const uint8_t *same = memchr(differs, 0, BATCH);
    return same ? at + (same - differs) : at + BATCH;
}

static inline ptrdiff_t scan_short(const scanner *s, const uint8_t *data, ptrdiff_t end, scan_state *search)
{
    const ptrdiff_t stop = end - s->size + 1;
    for (ptrdiff_t at = search->at; at < stop; at = search->at) {
        ptrdiff_t next = at + BATCH, found;
        /* No batch where a frame begins: it may be shorter than that. */
        if (at >= BATCH && next <= stop) {
            found = scan_batch(s, data, at);
        } else {
            next = next < stop ? next : stop;
            found = scan_few(s, data, at, next);
        }
        if (found < next)
            return found;
        search->at = next;
    }
    search->enough = search->at + s->size;
    return -1;
}

static inline ptrdiff_t scan_walk(const scanner *s, const uint8_t *data, ptrdiff_t end, scan_state *search)
{
    ptrdiff_t at = search->at, matched = search->matched;
    while (at < end) {
        if (matched == 0) {
            const uint8_t *first = memchr(data + at, s->sentinel[0], (size_t)(end - at));
            EXAMINED((size_t)(first ? first - (data + at) : end - at));
            if (!first) {
                at = end;
                break;
            }
            at = first - data;
        }
        EXAMINED(1);
        while (matched && data[at] != s->sentinel[matched])
            matched = s->border[matched - 1];
        matched += data[at] == s->sentinel[matched];
        at++;
        if (matched == s->size) {
            /* As before the last byte, so that the same call finds it again. */
            search->at = at - 1;
            search->matched = s->size - 1;
            return at - s->size;
        }
    }
    search->at = at;
    search->matched = matched;
    search->enough = at + 1;
    return -1;
}

/* Where the first sentinel starts in data[0:end]; -1 when it isn't there whole yet. */
static inline ptrdiff_t scan(const scanner *s, const uint8_t *data, ptrdiff_t end, scan_state *search)
{
    if (end < search->enough)
        return -1;
    switch (s->way) {
    case PROBE:
        return scan_probe(s, data, end, search);
    case BYTE:
        return scan_byte(s, data, end, search);
    case SHORT:
        return scan_short(s, data, end, search);
    default:
        return scan_walk(s, data, end, search);
    }
}

#endif
