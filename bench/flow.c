/* flow: a load generator for TCP relays on loopback, fast enough that the relay is what is measured.
 *
 *   flow sink PORT                   the far end of every relay; port 0 takes a free one
 *   flow bulk PORT up|down SECONDS   one connection, as fast as it goes, one way
 *   flow ping PORT COUNT             round trips of 64 bytes on one connection
 *   flow conn PORT COUNT THREADS     new connections, each with one echoed byte
 *   flow hold PORT COUNT             idle connections, until a line or the end of standard input
 *   flow fan PORT COUNT SECONDS      one client of a channel server sends to COUNT others, as fast as it goes
 *
 * Each prints one JSON object per line; what failed is {"error": ...} and exit code 1, wrong usage is 2.
 * With JUMP_TARGET=HOST:PORT and JUMP_SECRET in the environment, each connection first does the jump host's handshake.
 *
 * What the sink does with a connection is said by its first byte:
 *   'E'  echoes all that follows
 *   'P'  echoes likewise, on another core than ping's
 *   'U'  counts to the end of input, then answers with the count (8 bytes, big-endian)
 *   'D'  reads milliseconds (4 bytes, big-endian), sends for that long, and ends with the count (8 bytes, big-endian)
 *   'G'  answers HTTP requests, for wrk: GET /large with 1 MB, all others with 3 bytes
 *
 * Build: cc -O2 -pthread -o flow flow.c
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum {
    BLOCK = 256 * 1024,    /* bytes in one read or write of bulk: large enough that system calls are not the limit */
    PATIENCE = 30,         /* seconds a read or write may block before it counts as failed: nothing hangs */
    BACKLOG = 4096,        /* connections waiting to be accepted, beyond what the threads of conn can have on the way */
    STACK = 64 * 1024,     /* bytes of stack for each of the sink's threads: there are thousands */
    MAX_THREADS = 64,      /* of conn */
    MAX_COUNT = 10000000,  /* of round trips and connections: bounds the memory for the results */
    PING = 64,             /* bytes of one round trip */
    MAX_FAN = 64,          /* receivers of fan: more than any goal names */
    MAX_LINE = 4096,       /* bytes of a line of the channel server's handshake: MAX_FAN chids fit */
    LARGE = 1000000,       /* bytes of the sink's large answer */
};

static const char *jump_target, *jump_secret;

/* ---- SHA-1 (RFC 3174), for the jump handshake; the message is short and at hand in one piece ---- */

static uint32_t rotate(uint32_t x, int n) { return x << n | x >> (32 - n); }

static void sha1_block(uint32_t h[5], const uint8_t *p) {
    uint32_t w[80], a = h[0], b = h[1], c = h[2], d = h[3], e = h[4];
    for (int i = 0; i < 16; i++, p += 4) w[i] = (uint32_t)p[0] << 24 | p[1] << 16 | p[2] << 8 | p[3];
    for (int i = 16; i < 80; i++) w[i] = rotate(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
    for (int i = 0; i < 80; i++) {
        uint32_t f = i < 20   ? ((b & c) | (~b & d)) + 0x5A827999
                     : i < 40 ? (b ^ c ^ d) + 0x6ED9EBA1
                     : i < 60 ? ((b & c) | (b & d) | (c & d)) + 0x8F1BBCDC
                              : (b ^ c ^ d) + 0xCA62C1D6;
        uint32_t next = rotate(a, 5) + f + e + w[i];
        e = d, d = c, c = rotate(b, 30), b = a, a = next;
    }
    h[0] += a, h[1] += b, h[2] += c, h[3] += d, h[4] += e;
}

static void sha1(const uint8_t *data, size_t n, uint8_t digest[20]) {
    uint32_t h[5] = {0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0};
    uint8_t last[128] = {0};
    size_t whole = n / 64 * 64, rest = n - whole, padded = rest < 56 ? 64 : 128;
    for (size_t i = 0; i < whole; i += 64) sha1_block(h, data + i);
    memcpy(last, data + whole, rest);
    last[rest] = 0x80;
    for (size_t i = 0; i < 8; i++) last[padded - 1 - i] = (uint8_t)((uint64_t)n * 8 >> 8 * i);
    for (size_t i = 0; i < padded; i += 64) sha1_block(h, last + i);
    for (int i = 0; i < 20; i++) digest[i] = (uint8_t)(h[i / 4] >> (24 - 8 * (i % 4)));
}

/* ---- the near end ---- */

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int fail(const char *what) {
    printf("{\"error\": \"%s\"}\n", what);
    return 1;
}

static int read_full(int fd, void *into, size_t n) {
    for (size_t done = 0; done < n;) {
        ssize_t got = read(fd, (char *)into + done, n - done);
        if (got <= 0) return -1;
        done += (size_t)got;
    }
    return 0;
}

static int write_full(int fd, const void *from, size_t n) {
    for (size_t done = 0; done < n;) {
        ssize_t put = write(fd, (const char *)from + done, n - done);
        if (put <= 0) return -1;
        done += (size_t)put;
    }
    return 0;
}

static void put_number(uint8_t *into, uint64_t value, int bytes) {
    for (int i = 0; i < bytes; i++) into[i] = (uint8_t)(value >> 8 * (bytes - 1 - i));
}

static uint64_t get_number(const uint8_t *from, int bytes) {
    uint64_t value = 0;
    for (int i = 0; i < bytes; i++) value = value << 8 | from[i];
    return value;
}

static void set_up(int fd) {
    int one = 1;
    struct timeval patience = {PATIENCE, 0};
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
}

/* A frame is one length byte and that many bytes: challenge, digest, verdict 0, target, verdict 0. */
static int jump_handshake(int fd) {
    uint8_t length, verdict, text[512], frame[256];
    size_t secret = strlen(jump_secret), target = strlen(jump_target);
    if (secret > 255 || target > 255) return -1;
    if (read_full(fd, &length, 1) || read_full(fd, text, length)) return -1;
    memcpy(text + length, jump_secret, secret);
    frame[0] = 20;
    sha1(text, length + secret, frame + 1);
    if (write_full(fd, frame, 21) || read_full(fd, &verdict, 1) || verdict) return -1;
    frame[0] = (uint8_t)target;
    memcpy(frame + 1, jump_target, target);
    return write_full(fd, frame, 1 + target) || read_full(fd, &verdict, 1) || verdict ? -1 : 0;
}

static struct sockaddr_in loopback(int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

static int dial(int port) {
    struct sockaddr_in address = loopback(port);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0) return -1;
    set_up(fd);
    if (connect(fd, (void *)&address, sizeof address) || (jump_target && jump_handshake(fd))) {
        close(fd);
        return -1;
    }
    return fd;
}

static int bulk_up(int fd, double seconds, uint64_t *arrived, uint64_t *lost) {
    static char block[BLOCK];
    uint8_t count[8];
    uint64_t sent = 0;
    double start = now();
    if (write_full(fd, "U", 1)) return -1;
    while (now() - start < seconds) {
        ssize_t put = write(fd, block, sizeof block);
        if (put <= 0) return -1;
        sent += (uint64_t)put;
    }
    shutdown(fd, SHUT_WR);
    if (read_full(fd, count, sizeof count)) return -1;
    *arrived = get_number(count, 8);
    *lost = sent - *arrived;
    return 0;
}

static int bulk_down(int fd, double seconds, uint64_t *arrived, uint64_t *lost) {
    static uint8_t block[8 + BLOCK]; /* the last 8 bytes of what came before stand ahead of what comes */
    uint8_t request[5] = {'D'};
    uint64_t got = 0;
    ssize_t n;
    put_number(request + 1, (uint64_t)(seconds * 1000), 4);
    if (write_full(fd, request, sizeof request)) return -1;
    while ((n = read(fd, block + 8, BLOCK)) > 0) {
        got += (uint64_t)n;
        memmove(block, block + n, 8);
    }
    if (n < 0 || got < 8) return -1;
    *arrived = got - 8;
    *lost = get_number(block, 8) - *arrived;
    return 0;
}

static int bulk(int port, int up, double seconds) {
    uint64_t arrived = 0, lost = 0;
    int fd = dial(port);
    if (fd < 0) return fail("no connection");
    double start = now();
    if (up ? bulk_up(fd, seconds, &arrived, &lost) : bulk_down(fd, seconds, &arrived, &lost))
        return fail("the connection broke during bulk");
    double took = now() - start;
    printf("{\"bytes\": %llu, \"seconds\": %.6f, \"gbit_per_second\": %.4f, \"lost\": %lld}\n",
           (unsigned long long)arrived, took, (double)arrived * 8 / took / 1e9, (long long)lost);
    close(fd);
    return 0;
}

/* Ping keeps to the first core and its echo to the last, as two hosts would. Left to the scheduler, both ends of a
 * direct connection sometimes share a core, and its round trip is then a tenth of what it is otherwise. */
static void keep_to_core(int last) {
#ifdef __linux__
    cpu_set_t allowed, one;
    if (sched_getaffinity(0, sizeof allowed, &allowed)) return;
    size_t chosen = CPU_SETSIZE;
    for (size_t core = 0; core < CPU_SETSIZE; core++)
        if (CPU_ISSET(core, &allowed) && (last || chosen == CPU_SETSIZE)) chosen = core;
    CPU_ZERO(&one);
    CPU_SET(chosen, &one);
    sched_setaffinity(0, sizeof one, &one);
#else
    (void)last;
#endif
}

static int by_value(const void *left, const void *right) {
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

static int ping(int port, long count) {
    char out[PING], in[PING];
    double *took = calloc((size_t)count, sizeof *took);
    int fd = dial(port);
    if (!took) return fail("no memory for that many round trips");
    if (fd < 0 || write_full(fd, "P", 1)) return fail("no connection");
    keep_to_core(0);
    for (long i = 0; i < count; i++) {
        memset(out, (int)(i & 0xFF), sizeof out);
        double start = now();
        if (write_full(fd, out, sizeof out) || read_full(fd, in, sizeof in))
            return fail("the connection broke during ping");
        took[i] = now() - start;
        if (memcmp(in, out, sizeof out)) return fail("the echo differs from what was sent");
    }
    qsort(took, (size_t)count, sizeof *took, by_value);
    printf("{\"count\": %ld, \"p50_us\": %.1f, \"p99_us\": %.1f}\n",
           count, took[count / 2] * 1e6, took[count * 99 / 100] * 1e6);
    close(fd);
    free(took);
    return 0;
}

static int conn_port;
static atomic_long conn_left, conn_failed;

static void *conn_thread(void *unused) {
    (void)unused;
    struct linger reset = {1, 0}; /* no TIME_WAIT: it would use up the ports before the count is reached */
    while (atomic_fetch_sub(&conn_left, 1) > 0) {
        char echoed;
        int fd = dial(conn_port);
        if (fd < 0 || write_full(fd, "Ex", 2) || read_full(fd, &echoed, 1) || echoed != 'x')
            atomic_fetch_add(&conn_failed, 1);
        if (fd < 0) continue;
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
        close(fd);
    }
    return NULL;
}

static int conn(int port, long count, int threads) {
    pthread_t thread[MAX_THREADS];
    conn_port = port;
    atomic_store(&conn_left, count);
    double start = now();
    for (int i = 0; i < threads; i++)
        if (pthread_create(&thread[i], NULL, conn_thread, NULL)) return fail("no thread to be had");
    for (int i = 0; i < threads; i++) pthread_join(thread[i], NULL);
    double took = now() - start;
    long failed = atomic_load(&conn_failed);
    printf("{\"opened\": %ld, \"failed\": %ld, \"seconds\": %.6f, \"per_second\": %.1f}\n",
           count - failed, failed, took, (double)(count - failed) / took);
    return 0;
}

static int hold(int port, long count) {
    int *fd = calloc((size_t)count, sizeof *fd);
    char echoed, line[64];
    long failed = 0, lost = 0;
    if (!fd) return fail("no memory for that many connections");
    for (long i = 0; i < count; i++) {
        fd[i] = dial(port);
        if (fd[i] >= 0 && !write_full(fd[i], "Ex", 2) && !read_full(fd[i], &echoed, 1) && echoed == 'x') continue;
        failed++;
        if (fd[i] >= 0) close(fd[i]);
        fd[i] = -1;
    }
    printf("{\"held\": %ld, \"failed\": %ld}\n", count - failed, failed);
    fflush(stdout);
    if (read(STDIN_FILENO, line, sizeof line) < 0) return fail("standard input cannot be read");
    for (long i = 0; i < count; i++)
        if (fd[i] >= 0 && (write_full(fd[i], "y", 1) || read_full(fd[i], &echoed, 1) || echoed != 'y')) lost++;
    printf("{\"held\": %ld, \"lost\": %ld}\n", count - failed - lost, lost);
    free(fd);
    return 0;
}

/* ---- one to many, through a channel server, whose handshake is lines of JSON ---- */

static atomic_ullong fan_arrived; /* bytes, at all receivers together */

/* Says a line, and reads the answer's. */
static int say_line(int fd, const char *line) {
    char answer[MAX_LINE];
    size_t n = 0;
    if (write_full(fd, line, strlen(line))) return -1;
    do
        if (n == sizeof answer - 1 || read(fd, answer + n, 1) != 1) return -1;
    while (answer[n++] != '\n');
    answer[n] = 0;
    return strstr(answer, "FAIL") ? -1 : 0;
}

/* Joins as the given number, and sends to the numbers from 1 to count; with a count of 0 to nobody who is there. */
static int join(int port, int number, int count) {
    char line[MAX_LINE];
    int fd = dial(port), at;
    if (fd < 0) return -1;
    snprintf(line, sizeof line, "{\"req\":\"hs1\",\"chid\":\"flow%d-%d\"}\n", getpid(), number);
    at = say_line(fd, line) ? -1 : snprintf(line, sizeof line, "{\"req\":\"hs3\",\"recvers\":[%s", count ? "" : "\"nobody\"");
    for (int i = 1; at > 0 && i <= count; i++)
        at += snprintf(line + at, sizeof line - (size_t)at, "%s\"flow%d-%d\"", i > 1 ? "," : "", getpid(), i);
    if (at > 0) snprintf(line + at, sizeof line - (size_t)at, "]}\n");
    if (at > 0 && !say_line(fd, line)) return fd;
    close(fd);
    return -1;
}

static void *fan_receiver(void *arg) {
    char *block = malloc(BLOCK);
    int fd = (int)(intptr_t)arg;
    for (ssize_t n; block && (n = read(fd, block, BLOCK)) > 0;) atomic_fetch_add(&fan_arrived, (uint64_t)n);
    free(block);
    return NULL;
}

static int fan(int port, int count, double seconds) {
    static char block[BLOCK];
    pthread_t thread[MAX_FAN];
    int receiver[MAX_FAN];
    for (int i = 0; i < count; i++)
        if ((receiver[i] = join(port, i + 1, 0)) < 0) return fail("a receiver was not let in");
    int sender = join(port, 0, count);
    if (sender < 0) return fail("the sender was not let in");
    for (int i = 0; i < count; i++)
        if (pthread_create(&thread[i], NULL, fan_receiver, (void *)(intptr_t)receiver[i]))
            return fail("no thread to be had");
    uint64_t sent = 0;
    double start = now();
    while (now() - start < seconds) {
        ssize_t put = write(sender, block, sizeof block);
        if (put <= 0) return fail("the connection broke during fan");
        sent += (uint64_t)put;
    }
    uint64_t due = sent * (uint64_t)count;
    while (atomic_load(&fan_arrived) < due && now() - start < seconds + PATIENCE)
        nanosleep(&(struct timespec){0, 1000000}, NULL); /* a channel has no end to wait for, only the bytes */
    double took = now() - start;
    uint64_t arrived = atomic_load(&fan_arrived);
    for (int i = 0; i < count; i++) shutdown(receiver[i], SHUT_RDWR);
    for (int i = 0; i < count; i++) pthread_join(thread[i], NULL);
    printf("{\"bytes\": %llu, \"seconds\": %.6f, \"gbit_per_second\": %.4f, \"lost\": %lld}\n",
           (unsigned long long)arrived, took, (double)arrived * 8 / took / 1e9, (long long)(due - arrived));
    close(sender);
    for (int i = 0; i < count; i++) close(receiver[i]);
    return 0;
}

/* ---- the far end ---- */

static void echo(int fd, char *block) {
    for (ssize_t n; (n = read(fd, block, BLOCK)) > 0;)
        if (write_full(fd, block, (size_t)n)) return;
}

static void count_input(int fd, char *block) {
    uint64_t total = 0;
    uint8_t answer[8];
    for (ssize_t n; (n = read(fd, block, BLOCK)) > 0;) total += (uint64_t)n;
    put_number(answer, total, 8);
    if (!write_full(fd, answer, sizeof answer)) shutdown(fd, SHUT_WR);
}

static void send_for(int fd, char *block) {
    uint8_t number[8];
    uint64_t sent = 0;
    if (read_full(fd, number, 4)) return;
    double end = now() + (double)get_number(number, 4) / 1000;
    memset(block, 'D', BLOCK);
    while (now() < end) {
        ssize_t put = write(fd, block, BLOCK);
        if (put <= 0) return;
        sent += (uint64_t)put;
    }
    put_number(number, sent, 8);
    if (!write_full(fd, number, sizeof number)) shutdown(fd, SHUT_WR);
}

/* One answer for each blank line: wrk sends no body and waits for each answer before its next request. The sink has read
 * the G of the first request already. */
static void answer_requests(int fd, char *block) {
    static const char small[] = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n", blank[] = "\r\n\r\n";
    static const char head[] = "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n";
    static char large[LARGE + sizeof head];
    int matched = 0, wants_large = 0;
    memcpy(large, head, sizeof head - 1);
    for (ssize_t n; (n = read(fd, block, BLOCK)) > 0;) {
        if (memmem(block, (size_t)n, "ET /large ", 10)) wants_large = 1;
        for (ssize_t i = 0; i < n; i++) {
            matched = block[i] == blank[matched] ? matched + 1 : block[i] == '\r';
            if (matched < 4) continue;
            matched = 0;
            if (wants_large ? write_full(fd, large, sizeof head - 1 + LARGE) : write_full(fd, small, sizeof small - 1))
                return;
            wants_large = 0;
        }
    }
}

static void *serve(void *arg) {
    int fd = (int)(intptr_t)arg;
    char *block = malloc(BLOCK), what;
    set_up(fd);
    /* An idle connection is one that is held, not one that hangs: it may wait for ever. */
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &(struct timeval){0, 0}, sizeof(struct timeval));
    if (block && read(fd, &what, 1) == 1) {
        if (what == 'P') keep_to_core(1);
        if (what == 'E' || what == 'P') echo(fd, block);
        if (what == 'U') count_input(fd, block);
        if (what == 'D') send_for(fd, block);
        if (what == 'G') answer_requests(fd, block);
    }
    close(fd);
    free(block);
    return NULL;
}

static int sink(int port) {
    struct sockaddr_in address = loopback(port);
    socklen_t size = sizeof address;
    int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
    pthread_attr_t attributes;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (void *)&address, size) || listen(fd, BACKLOG) || getsockname(fd, (void *)&address, &size))
        return fail("the port cannot be listened on");
    printf("{\"port\": %d}\n", ntohs(address.sin_port));
    fflush(stdout);
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    for (;;) {
        pthread_t thread;
        int peer = accept(fd, NULL, NULL);
        if (peer < 0 && errno != ECONNABORTED && errno != EINTR) return fail("no more connections can be accepted");
        if (peer >= 0 && pthread_create(&thread, &attributes, serve, (void *)(intptr_t)peer)) close(peer);
    }
}

/* ---- the command line ---- */

static int usage(void) {
    fputs("usage: flow sink PORT | bulk PORT up|down SECONDS | ping PORT COUNT | conn PORT COUNT THREADS\n"
          "            | hold PORT COUNT | fan PORT COUNT SECONDS       (the head of flow.c says what each does)\n", stderr);
    return 2;
}

/* A whole number from low to high; anything else ends the program as wrong usage. */
static long number(const char *text, long low, long high) {
    char *end;
    errno = 0;
    long value = strtol(text, &end, 10);
    if (errno || end == text || *end || value < low || value > high) exit(usage());
    return value;
}

static double duration(const char *text) {
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end || !(value > 0 && value <= 3600)) exit(usage());
    return value;
}

int main(int argc, char **argv) {
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    signal(SIGPIPE, SIG_IGN);
    jump_target = getenv("JUMP_TARGET");
    jump_secret = getenv("JUMP_SECRET");
    if (jump_target && !jump_secret) return fail("JUMP_TARGET is set, JUMP_SECRET is not");
    if (argc < 3) return usage();
    const char *what = argv[1];
    int port = (int)number(argv[2], 0, 65535);
    if (!strcmp(what, "sink") && argc == 3) return sink(port);
    if (!strcmp(what, "bulk") && argc == 5 && !strcmp(argv[3], "up")) return bulk(port, 1, duration(argv[4]));
    if (!strcmp(what, "bulk") && argc == 5 && !strcmp(argv[3], "down")) return bulk(port, 0, duration(argv[4]));
    if (!strcmp(what, "ping") && argc == 4) return ping(port, number(argv[3], 1, MAX_COUNT));
    if (!strcmp(what, "conn") && argc == 5) {
        long threads = number(argv[4], 1, MAX_THREADS);
        return conn(port, number(argv[3], 1, MAX_COUNT), (int)threads);
    }
    if (!strcmp(what, "fan") && argc == 5) return fan(port, (int)number(argv[3], 1, MAX_FAN), duration(argv[4]));
    if (!strcmp(what, "hold") && argc == 4) return hold(port, number(argv[3], 1, 60000));
    return usage();
}
