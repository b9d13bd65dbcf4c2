/* The system calls of a message, without the steps of Python's socket objects: those
 * cost about as much as the call itself. For non-blocking sockets. The GIL stays held for
 * small messages, which takes less time than letting it go.
 *
 * Only where a socket is a file descriptor. Elsewhere the socket objects do it.
 */
#ifndef FASTCORE_SOCKET_H
#define FASTCORE_SOCKET_H

#include <errno.h>
#include <stddef.h>

#define WOULD_BLOCK (-2)

#if defined(_MSC_VER)
#define PER_THREAD __declspec(thread)
#else
#define PER_THREAD __thread
#endif

/* How many sockets of this thread are in the middle of what they do by functions in Python. */
static PER_THREAD int is_inside = 0;

static inline void enter(void)
{
    is_inside++;
}

static inline void leave(void)
{
    is_inside--;
}

#if defined(_WIN32)

#define SOCKETS_ARE_FILES 0
#define socket_recv(fd, data, size) (errno = ENOSYS, (void)(fd), (void)(data), (void)(size), -1)
#define socket_send(fd, data, size) (errno = ENOSYS, (void)(fd), (void)(data), (void)(size), -1)

#define socket_send_pieces(fd, pieces, count) (errno = ENOSYS, (void)(fd), (void)(pieces), (void)(count), -1)

struct iovec {
    void *iov_base;
    size_t iov_len;
};

#define socket_peek(fd) ((void)(fd), WOULD_BLOCK)

#else

#include <sys/socket.h>
#include <sys/uio.h>

#define SOCKETS_ARE_FILES 1

static inline ptrdiff_t socket_result(ptrdiff_t size)
{
    if (size < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
        return WOULD_BLOCK;
    return size;
}

static inline ptrdiff_t socket_recv(int fd, void *data, size_t size)
{
    return socket_result(recv(fd, data, size, 0));
}

static inline ptrdiff_t socket_send(int fd, const void *data, size_t size)
{
    return socket_result(send(fd, data, size, 0));
}

static inline ptrdiff_t socket_send_pieces(int fd, struct iovec *pieces, int count)
{
    struct msghdr message = {.msg_iov = pieces, .msg_iovlen = count};
    return socket_result(sendmsg(fd, &message, 0));
}

/* What a receive would give: 1 where there are bytes, 0 at the end, WOULD_BLOCK, or -1. */
static inline ptrdiff_t socket_peek(int fd)
{
    char byte;
    return socket_result(recv(fd, &byte, 1, MSG_PEEK));
}

#endif

#endif
