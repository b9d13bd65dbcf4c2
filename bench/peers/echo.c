/* The floor for large messages: a length, the bytes, buffers that are kept. No Python in the loop. */
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/types.h>

static int send_all(int fd, const char *data, size_t size)
{
    while (size > 0) {
        ssize_t sent = send(fd, data, size, 0);
        if (sent <= 0)
            return -1;
        data += sent;
        size -= (size_t)sent;
    }
    return 0;
}

static int receive_all(int fd, char *data, size_t size)
{
    while (size > 0) {
        ssize_t got = recv(fd, data, size, 0);
        if (got <= 0)
            return -1;
        data += got;
        size -= (size_t)got;
    }
    return 0;
}

/* Sends back each message of one connection, once it is complete, until the client has gone. */
int serve(int fd)
{
    char *buffer = NULL;
    uint64_t size = 0, room = 0;
    while (receive_all(fd, (char *)&size, sizeof size) == 0) {
        if (size > room) {
            free(buffer);
            if (posix_memalign((void **)&buffer, 2 << 20, size))
                return -1;
#ifdef MADV_HUGEPAGE
            madvise(buffer, size, MADV_HUGEPAGE);
#endif
            room = size;
        }
        if (receive_all(fd, buffer, size) || send_all(fd, (char *)&size, sizeof size) ||
            send_all(fd, buffer, size))
            break;
    }
    free(buffer);
    return 0;
}

/* One round trip. */
int echo(int fd, const char *data, uint64_t size, char *answer)
{
    uint64_t length;
    if (send_all(fd, (const char *)&size, sizeof size) || send_all(fd, data, size) ||
        receive_all(fd, (char *)&length, sizeof length) || length != size)
        return -1;
    return receive_all(fd, answer, size);
}
