/*
 * failio.c
 *		A disk that is full or broken, for tests: preloaded into a server, it lets
 *		writes and syncs of certain files fail.
 *
 * The file named by INGEST_FAILIO says which: "write PART" (no space left) or
 * "sync PART" (input/output error), where PART is a part of the file's path.  Without
 * that file nothing fails.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

/* By system calls throughout, since we stand in for the functions. */
static bool
fails(int fd, const char *what)
{
	const char *name = getenv("INGEST_FAILIO");
	char		rule[1024];
	char		link[64];
	char		path[4096];
	char	   *part;
	long		rule_fd;
	long		n;
	int			saved = errno;

	if (name == NULL || (rule_fd = syscall(SYS_openat, AT_FDCWD, name, O_RDONLY | O_CLOEXEC)) < 0)
	{
		errno = saved;
		return false;
	}
	n = syscall(SYS_read, rule_fd, rule, sizeof(rule) - 1);
	syscall(SYS_close, rule_fd);
	rule[n > 0 ? n : 0] = '\0';
	rule[strcspn(rule, "\n")] = '\0';
	part = strchr(rule, ' ');
	if (part)
		*part++ = '\0';
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, path, sizeof(path) - 1);
	path[n > 0 ? n : 0] = '\0';
	errno = saved;
	return part && strcmp(rule, what) == 0 && strstr(path, part) != NULL;
}

#define STAND_IN(type, name, params, args, what, error, result) \
type name params; \
type \
name params \
{ \
	static type (*real) params; \
	\
	if (fails(fd, what)) \
	{ \
		errno = error; \
		return result; \
	} \
	if (real == NULL) \
		real = (type (*) params) dlsym(RTLD_NEXT, #name); \
	return real args; \
}

STAND_IN(ssize_t, write, (int fd, const void *buf, size_t len), (fd, buf, len), "write", ENOSPC, -1)
STAND_IN(ssize_t, pwrite, (int fd, const void *buf, size_t len, off_t offset), (fd, buf, len, offset), "write", ENOSPC, -1)
STAND_IN(ssize_t, pwrite64, (int fd, const void *buf, size_t len, off64_t offset), (fd, buf, len, offset), "write", ENOSPC, -1)
STAND_IN(ssize_t, pwritev, (int fd, const struct iovec *iov, int n, off_t offset), (fd, iov, n, offset), "write", ENOSPC, -1)
STAND_IN(ssize_t, pwritev64, (int fd, const struct iovec *iov, int n, off64_t offset), (fd, iov, n, offset), "write", ENOSPC, -1)
STAND_IN(int, fsync, (int fd), (fd), "sync", EIO, -1)
STAND_IN(int, fdatasync, (int fd), (fd), "sync", EIO, -1)
STAND_IN(int, posix_fallocate, (int fd, off_t offset, off_t len), (fd, offset, len), "write", ENOSPC, ENOSPC)
STAND_IN(int, posix_fallocate64, (int fd, off64_t offset, off64_t len), (fd, offset, len), "write", ENOSPC, ENOSPC)
