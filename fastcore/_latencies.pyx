"""How many calls took how long: counted in fewer nanoseconds than it takes to ask a clock.

There is a bucket for each eighth of an octave, so a time is told to within 13 %, whatever it is, and
what two processes have counted is added bucket by bucket.
"""

cimport cython
from cpython.time cimport perf_counter

cdef enum:
    STEPS = 3
    # Of 48 octaves; the last ones hold three days and more.
    SIZE = 384


@cython.no_gc
cdef class Latencies:
    """Counts times by their size.

    Examples
    --------
    >>> latencies = Latencies()
    >>> latencies.record(18)
    >>> latencies.counts()
    {17: 1}
    >>> bucket_start(17), bucket_start(18)
    (18, 20)
    """

    cdef unsigned long long in_bucket[SIZE]

    cdef void put(self, long long nanoseconds) noexcept:
        cdef long long place = nanoseconds if nanoseconds > 0 else 0
        cdef int octave = 0
        while place >> octave >= 2 << STEPS:
            octave += 1
        place = (octave << STEPS) + (place >> octave)
        self.in_bucket[place if place < SIZE else SIZE - 1] += 1

    def record(self, long long nanoseconds):
        """Count one time."""
        self.put(nanoseconds)

    def record_since(self, long long begun):
        """Count the time from ``begun`` until now, by `time.perf_counter_ns`; and give it."""
        cdef long long took = <long long> (perf_counter() * 1e9) - begun
        self.put(took)
        return took

    def record_many(self, int bucket, unsigned long long count):
        """Count so many more times in a bucket.

        Raises
        ------
        IndexError
            If there is no such bucket.
        """
        if not 0 <= bucket < SIZE:
            raise IndexError(f"there are buckets 0 to {SIZE - 1}, and no {bucket}")
        self.in_bucket[bucket] += count

    def counts(self):
        """Give how many are in each bucket that holds any."""
        return {bucket: self.in_bucket[bucket] for bucket in range(SIZE) if self.in_bucket[bucket]}


def bucket_start(int bucket):
    """Give the nanoseconds from which on a time is counted in a bucket.

    Examples
    --------
    >>> bucket_start(7), bucket_start(8), bucket_start(16), bucket_start(17)
    (7, 8, 16, 18)
    """
    cdef int octave = max(0, (bucket >> STEPS) - 1)
    return (<long long> bucket - (octave << STEPS)) << octave
