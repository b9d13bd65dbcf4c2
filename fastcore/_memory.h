/* Large blocks of memory.
 *
 * Fresh memory costs a page fault for every 4 KiB of it, ten times what receiving into it
 * costs; and a block that grows costs its own size again when it is copied. Linux has an
 * answer to both: huge pages on demand, and moving pages instead of bytes. Elsewhere these
 * functions are the C library's.
 */
#ifndef FASTCORE_MEMORY_H
#define FASTCORE_MEMORY_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#define HUGE_PAGE ((uintptr_t)2 << 20)

#if defined(__linux__)
#include <sys/mman.h>
#endif

/* Advises the whole huge pages inside a block; a smaller block is left as it is. */
static inline void advise_huge_pages(void *start, size_t size)
{
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    uintptr_t first = ((uintptr_t)start + HUGE_PAGE - 1) & ~(HUGE_PAGE - 1);
    uintptr_t end = ((uintptr_t)start + size) & ~(HUGE_PAGE - 1);
    if (first < end)
        (void)madvise((void *)first, end - first, MADV_HUGEPAGE);
#else
    (void)start;
    (void)size;
#endif
}

/* A giant block has a multiple of HUGE_PAGE bytes. None of its memory is real until it is
 * written to. NULL when there is none. A debug build takes them from the C library, where
 * sanitizers and valgrind look at each byte. */

#if defined(__linux__) && defined(MREMAP_FIXED) && !FASTCORE_DEBUG

static inline void giant_free(void *giant, size_t size)
{
    (void)munmap(giant, size);
}

static inline void *giant_new(size_t size)
{
    /* Room for aligning it, which is given back at both ends. */
    const size_t room = size + HUGE_PAGE;
    char *start = mmap(NULL, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (start == MAP_FAILED)
        return NULL;
    char *giant = (char *)(((uintptr_t)start + HUGE_PAGE - 1) & ~(HUGE_PAGE - 1));
    if (giant > start)
        (void)munmap(start, (size_t)(giant - start));
    if (giant + size < start + room)
        (void)munmap(giant + size, (size_t)(start + room - (giant + size)));
    advise_huge_pages(giant, size);
    return giant;
}

/* The same bytes with more room behind them; NULL when there is none, and nothing has changed. */
static inline void *giant_grow(void *giant, size_t old_size, size_t size)
{
    /* Both ends of the move are aligned, so huge pages move whole. */
    void *target = giant_new(size);
    if (target == NULL)
        return NULL;
    if (mremap(giant, old_size, size, MREMAP_MAYMOVE | MREMAP_FIXED, target) == MAP_FAILED) {
        giant_free(target, size);
        return NULL;
    }
    return target;
}

#else

static inline void giant_free(void *giant, size_t size)
{
    (void)size;
    free(giant);
}

static inline void *giant_new(size_t size)
{
    return malloc(size);
}

static inline void *giant_grow(void *giant, size_t old_size, size_t size)
{
    (void)old_size;
    return realloc(giant, size);
}

#endif

#endif
