"""Large blocks of memory; see the header."""

cdef extern from "_memory.h" nogil:
    const size_t HUGE_PAGE
    void advise_huge_pages(void* start, size_t size)
    void* giant_new(size_t size)
    void* giant_grow(void* giant, size_t old_size, size_t size)
    void giant_free(void* giant, size_t size)
