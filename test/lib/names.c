/*
 * names.c
 *		Names of hosts as a test wants them: preloaded into a server.
 *
 * The file named by INGEST_NAMES has lines "name ms address ...": the addresses
 * are answered after so many ms, of several lines with the same name each one
 * time, the last one ever after.  Without an address the name is unknown.  Other
 * names are looked up as always.
 *
 * The file with ".log" behind its name gets a line for each look-up ("name NAME
 * blocked", or which signal the looking thread would take), and one for each
 * address that is connected to ("connect ADDRESS:PORT").
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MAX_NAMES 256

static struct
{
	char		name[256];
	int			times;
} asked[MAX_NAMES];

static void __attribute__((format(printf, 1, 2)))
note(const char *fmt,...)
{
	char		name[4096];
	char		line[512];
	va_list		args;
	int			len;
	int			fd;
	int			save_errno = errno;

	if (getenv("INGEST_NAMES") == NULL)
		return;
	snprintf(name, sizeof(name), "%s.log", getenv("INGEST_NAMES"));
	va_start(args, fmt);
	len = vsnprintf(line, sizeof(line), fmt, args);
	va_end(args);
	fd = open(name, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
	if (fd >= 0)
	{
		if (write(fd, line, len) != len)
			abort();
		close(fd);
	}
	errno = save_errno;
}

/* The first signal that this thread would take, or 0. */
static int
find_unblocked(void)
{
	sigset_t	mask;

	pthread_sigmask(SIG_SETMASK, NULL, &mask);
	for (int i = 1; i <= SIGRTMAX; i++)
		if (i != SIGKILL && i != SIGSTOP && (i < 32 || i >= SIGRTMIN) && !sigismember(&mask, i))
			return i;
	return 0;
}

static int
count_asked(const char *name)
{
	for (int i = 0; i < MAX_NAMES; i++)
	{
		if (asked[i].name[0] == '\0')
			snprintf(asked[i].name, sizeof(asked[i].name), "%s", name);
		if (strcmp(asked[i].name, name) == 0)
			return asked[i].times++;
	}
	return 0;
}

/* The line for the n-th question, without the name; 0: there is none. */
static int
find_line(const char *name, int n, char *found, size_t size)
{
	char		line[512];
	FILE	   *file = getenv("INGEST_NAMES") ? fopen(getenv("INGEST_NAMES"), "re") : NULL;
	size_t		len = strlen(name);
	int			any = 0;

	while (file && n >= 0 && fgets(line, sizeof(line), file))
		if (strncmp(line, name, len) == 0 && line[len] == ' ')
		{
			snprintf(found, size, "%s", line + len + 1);
			any = 1;
			n--;
		}
	if (file)
		fclose(file);
	return any;
}

static int
answer(char *line, const char *service, const struct addrinfo *hints, struct addrinfo **result)
{
	int			(*real) (const char *, const char *, const struct addrinfo *, struct addrinfo **) = dlsym(RTLD_NEXT, "getaddrinfo");
	struct addrinfo numeric = {0};
	struct addrinfo **end = result;
	char	   *state;
	char	   *word = strtok_r(line, " \n", &state);
	long		ms = word ? atol(word) : 0;
	struct timespec delay = {ms / 1000, ms % 1000 * 1000000};

	nanosleep(&delay, NULL);
	*result = NULL;
	if (hints)
		numeric = *hints;
	numeric.ai_flags |= AI_NUMERICHOST;
	while ((word = strtok_r(NULL, " \n", &state)) != NULL)
		if (real(word, service, &numeric, end) == 0)
			while (*end)
				end = &(*end)->ai_next;
	return *result ? 0 : EAI_NONAME;
}

int
getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **result)
{
	int			(*real) (const char *, const char *, const struct addrinfo *, struct addrinfo **) = dlsym(RTLD_NEXT, "getaddrinfo");
	char		line[512];
	int			unblocked;

	if (node == NULL || (hints && hints->ai_flags & AI_PASSIVE))
		return real(node, service, hints, result);
	if (!find_line(node, 0, line, sizeof(line)))
		return real(node, service, hints, result);
	unblocked = find_unblocked();
	note("name %s %s\n", node, unblocked ? strsignal(unblocked) : "blocked");
	find_line(node, count_asked(node), line, sizeof(line));
	return answer(line, service, hints, result);
}

int
connect(int fd, const struct sockaddr *address, socklen_t len)
{
	int			(*real) (int, const struct sockaddr *, socklen_t) = dlsym(RTLD_NEXT, "connect");
	char		text[INET6_ADDRSTRLEN];

	if (address->sa_family == AF_INET)
		note("connect %s:%d\n", inet_ntop(AF_INET, &((const struct sockaddr_in *) address)->sin_addr, text, sizeof(text)),
			 ntohs(((const struct sockaddr_in *) address)->sin_port));
	else if (address->sa_family == AF_INET6)
		note("connect [%s]:%d\n", inet_ntop(AF_INET6, &((const struct sockaddr_in6 *) address)->sin6_addr, text, sizeof(text)),
			 ntohs(((const struct sockaddr_in6 *) address)->sin6_port));
	return real(fd, address, len);
}
