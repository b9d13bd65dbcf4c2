"""Huge pages for large blocks; nothing where the system has none."""

cdef extern from "_memory.h":
    void advise_huge_pages(void* start, size_t size) nogil
