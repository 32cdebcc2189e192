/* What `cargo xtask bench sensor` restarts and counts: a process that writes down when it runs and when it ends.
 *
 *   fixture run SLOTS NUMBER                       stamps its start, waits for SIGUSR1, stamps its end, ends
 *   fixture fork COUNT SLOTS NUMBER [PROCS]        enters the cgroup of PROCS, makes COUNT processes that end at once
 *
 * Stamps are CLOCK_MONOTONIC in ns. A slot is WORDS numbers of 64 bits (fixture.rs reads them): pid, count of starts,
 * count of ends, unused, then two rings of stamps. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { WORDS = 32, RING = 14, STARTS = 4, ENDS = STARTS + RING, PAGE = 4096 };

static uint64_t now_ns(void)
{
	struct timespec time;
	clock_gettime(CLOCK_MONOTONIC, &time);
	return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static void fail(const char *what)
{
	perror(what);
	_exit(1);
}

static volatile uint64_t *slot_of(const char *path, const char *number)
{
	off_t at = (off_t)atoi(number) * WORDS * sizeof(uint64_t);
	int file = open(path, O_RDWR | O_CLOEXEC);
	if (file < 0)
		fail(path);
	char *page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, file, at / PAGE * PAGE);
	if (page == MAP_FAILED)
		fail("mmap");
	close(file);
	return (volatile uint64_t *)(page + at % PAGE);
}

/* The count rises last: who sees it sees the stamp. */
static void stamp(volatile uint64_t *slot, int count, int ring, uint64_t at_ns)
{
	uint64_t before = slot[count];
	slot[ring + before % RING] = at_ns;
	__atomic_store_n((uint64_t *)&slot[count], before + 1, __ATOMIC_RELEASE);
}

static void enter(const char *procs)
{
	int file = open(procs, O_WRONLY | O_CLOEXEC);
	if (file < 0 || write(file, "0", 1) != 1)
		fail(procs);
	close(file);
}

/* vfork, as it is the fastest way to a process that ends. */
static void make(long count)
{
	for (long made = 0; made < count; made++) {
		pid_t pid = vfork();
		if (pid == 0)
			_exit(0);
		if (pid < 0 || waitpid(pid, NULL, 0) != pid)
			fail("vfork");
	}
}

int main(int argc, char **argv)
{
	uint64_t started_ns = now_ns();
	if (argc == 4 && strcmp(argv[1], "run") == 0) {
		sigset_t wanted;
		int signal;
		sigemptyset(&wanted);
		sigaddset(&wanted, SIGUSR1);
		sigprocmask(SIG_BLOCK, &wanted, NULL);
		volatile uint64_t *slot = slot_of(argv[2], argv[3]);
		slot[0] = (uint64_t)getpid();
		stamp(slot, 1, STARTS, started_ns);
		if (sigwait(&wanted, &signal) != 0)
			fail("sigwait");
		stamp(slot, 2, ENDS, now_ns());
		_exit(0);
	}
	if (argc >= 5 && strcmp(argv[1], "fork") == 0) {
		volatile uint64_t *slot = slot_of(argv[3], argv[4]);
		if (argc > 5)
			enter(argv[5]);
		slot[0] = (uint64_t)getpid();
		stamp(slot, 1, STARTS, now_ns());
		make(atol(argv[2]));
		stamp(slot, 2, ENDS, now_ns());
		_exit(0);
	}
	fprintf(stderr, "usage: run SLOTS NUMBER | fork COUNT SLOTS NUMBER [PROCS]\n");
	return 2;
}
