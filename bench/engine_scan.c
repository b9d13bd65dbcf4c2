/* The scanner and what it competes with, with no Python in between: each function goes
 * once over a buffer and gives the number of sentinels in it. */
#define _GNU_SOURCE
#define FASTCORE_DEBUG 0
#include "_scanner.h"

static scanner ready;

void use_sentinel(const uint8_t *sentinel, size_t size)
{
    scanner_init(&ready, sentinel, (ptrdiff_t)size);
}

size_t with_scanner(const uint8_t *data, size_t size)
{
    size_t count = 0;
    for (size_t head = 0;; count++) {
        scan_state search;
        scan_start(&ready, &search);
        const ptrdiff_t found = scan(&ready, data + head, (ptrdiff_t)(size - head), &search);
        if (found < 0)
            return count;
        head += (size_t)(found + ready.size);
    }
}

size_t with_memmem(const uint8_t *data, size_t size)
{
    const uint8_t *end = data + size;
    size_t count = 0;
    for (; (data = memmem(data, (size_t)(end - data), ready.sentinel, (size_t)ready.size)); count++)
        data += ready.size;
    return count;
}

/* Goes over the buffer for a byte that isn't in it. */
size_t with_memchr(const uint8_t *data, size_t size)
{
    return memchr(data, 0xff, size) != NULL;
}

size_t with_memcpy(const uint8_t *data, size_t size, uint8_t *target)
{
    memcpy(target, data, size);
    return target[size - 1];
}
