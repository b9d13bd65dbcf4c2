/* Fresh memory costs a page fault for every 4 KiB of it, ten times what receiving
 * into it costs. Where the kernel offers huge pages on demand, large blocks ask for them. */
#ifndef FASTCORE_MEMORY_H
#define FASTCORE_MEMORY_H

#include <stddef.h>
#include <stdint.h>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#define HUGE_PAGE ((uintptr_t)2 << 20)

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

#endif
