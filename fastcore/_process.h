/* Which process this is, without asking the system for it: how many forks lie between it and
 * the one that loaded this.
 */
#ifndef FASTCORE_PROCESS_H
#define FASTCORE_PROCESS_H

static int forks_so_far = 0;

#if defined(_WIN32)

static inline void count_forks(void) {}

#else

#include <pthread.h>

static void forked(void)
{
    forks_so_far++;
}

static inline void count_forks(void)
{
    pthread_atfork(0, 0, forked);
}

#endif

#endif
