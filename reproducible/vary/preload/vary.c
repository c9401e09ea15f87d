/* Preloaded into the programs of a second build: other answers to what a build may
 * not depend on. Directories are listed backwards, the clock is KATTEST_VARY_DAYS
 * days ahead, and KATTEST_VARY_CPUS processors are there. Files keep the kernel's
 * times, so that make sees no work to do again. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysinfo.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static long number(const char *name)
{
	const char *value = getenv(name);
	return value ? atol(value) : 0;
}

/* --- Directories ---------------------------------------------------------- */

struct listing {
	struct listing *next;
	DIR *dir;
	struct dirent **entries;
	size_t left; /* entries that were not handed out; the last comes first */
	size_t count;
};

static struct listing *listings;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void forget(DIR *dir)
{
	pthread_mutex_lock(&lock);
	for (struct listing **p = &listings; *p; p = &(*p)->next) {
		struct listing *l = *p;
		if (l->dir != dir)
			continue;
		*p = l->next;
		for (size_t i = 0; i < l->count; i++)
			free(l->entries[i]);
		free(l->entries);
		free(l);
		break;
	}
	pthread_mutex_unlock(&lock);
}

static struct listing *list(DIR *dir)
{
	struct listing *l = calloc(1, sizeof *l);
	struct dirent *e;

	if (!l)
		abort();
	l->dir = dir;
	while ((e = NEXT(readdir)(dir))) {
		struct dirent *copy = malloc(e->d_reclen);

		l->entries = realloc(l->entries, (l->count + 1) * sizeof *l->entries);
		if (!copy || !l->entries)
			abort();
		memcpy(copy, e, e->d_reclen);
		l->entries[l->count++] = copy;
	}
	l->left = l->count;
	l->next = listings;
	listings = l;
	return l;
}

struct dirent *readdir(DIR *dir)
{
	struct listing *l;
	struct dirent *e = NULL;

	pthread_mutex_lock(&lock);
	for (l = listings; l && l->dir != dir; l = l->next)
		;
	if (!l)
		l = list(dir);
	if (l->left)
		e = l->entries[--l->left];
	pthread_mutex_unlock(&lock);
	return e;
}

/* The same structure where off_t has 64 bits. */
struct dirent64 *readdir64(DIR *dir) { return (struct dirent64 *)readdir(dir); }

void rewinddir(DIR *dir)
{
	forget(dir);
	NEXT(rewinddir)(dir);
}

int closedir(DIR *dir)
{
	forget(dir);
	return NEXT(closedir)(dir);
}

/* --- Date ----------------------------------------------------------------- */

static time_t ahead(void) { return number("KATTEST_VARY_DAYS") * 24 * 60 * 60; }

int clock_gettime(clockid_t clock, struct timespec *t)
{
	int r = NEXT(clock_gettime)(clock, t);

	if (r == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
		t->tv_sec += ahead();
	return r;
}

int gettimeofday(struct timeval *t, void *zone)
{
	int r = NEXT(gettimeofday)(t, zone);

	if (r == 0)
		t->tv_sec += ahead();
	return r;
}

time_t time(time_t *out)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	if (out)
		*out = t.tv_sec;
	return t.tv_sec;
}

/* --- Processors ------------------------------------------------------------ */

int get_nprocs(void) { return number("KATTEST_VARY_CPUS"); }
int get_nprocs_conf(void) { return number("KATTEST_VARY_CPUS"); }

long sysconf(int name)
{
	if (name == _SC_NPROCESSORS_ONLN || name == _SC_NPROCESSORS_CONF)
		return number("KATTEST_VARY_CPUS");
	return NEXT(sysconf)(name);
}

int sched_getaffinity(pid_t pid, size_t size, cpu_set_t *set)
{
	(void)pid;
	memset(set, 0, size);
	for (long i = 0; i < number("KATTEST_VARY_CPUS"); i++)
		CPU_SET_S(i, size, set);
	return 0;
}
