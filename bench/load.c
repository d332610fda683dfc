/* Closed-loop load for MCP tools/call over HTTP/1.1 keep-alive (revision 2026-07-28).
 *
 *   load HOST PORT PATH TOOL CONNECTIONS SECONDS [BEARER]
 *
 * Each connection sends a request, waits for the whole answer, checks it, and sends the next. Right is: HTTP 200, the
 * JSON-RPC id of this request, its own token in the text, no "error" member, no isError true. Everything else is
 * counted as wrong, also an answer that never came. Prints one JSON object.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MAX_CONNECTIONS = 4096, BUFFER = 1 << 16, BUCKETS = 2000000, GRACE_SECONDS = 5 };

typedef struct {
    int fd;
    int waiting;
    uint64_t id;
    char token[24];
    double sent;
    size_t used;
    char buffer[BUFFER + 1];
} Connection;

static struct sockaddr_in address;
static const char *path, *tool, *bearer;
static Connection *connections;
static uint32_t latencies[BUCKETS]; /* one bucket for each microsecond, the last takes the rest */
static uint64_t answers, wrong, next_id = 1;
static char first_wrong[400];
static int epoll_fd;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static void die(const char *what) {
    fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
    exit(2);
}

static void open_connection(Connection *c) {
    int on = 1;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&address, sizeof address)) die("connect");
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    fcntl(c->fd, F_SETFL, O_NONBLOCK);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, c->fd, &event)) die("epoll_ctl");
    c->used = 0;
    c->waiting = 0;
}

static void send_request(Connection *c) {
    char body[1024], request[8192];
    c->id = next_id++;
    /* A token that no other request has and that cannot be guessed from its id by an accident. */
    snprintf(c->token, sizeof c->token, "t%016llx", (unsigned long long)(c->id * 0x9E3779B97F4A7C15ull));
    int length = snprintf(body, sizeof body,
        "{\"jsonrpc\":\"2.0\",\"id\":%llu,\"method\":\"tools/call\",\"params\":{\"name\":\"%s\","
        "\"arguments\":{\"text\":\"%s\"},\"_meta\":{\"io.modelcontextprotocol/protocolVersion\":\"2026-07-28\","
        "\"io.modelcontextprotocol/clientInfo\":{\"name\":\"load\",\"version\":\"1\"},"
        "\"io.modelcontextprotocol/clientCapabilities\":{}}}}",
        (unsigned long long)c->id, tool, c->token);
    int size = snprintf(request, sizeof request,
        "POST %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Type: application/json\r\n"
        "Accept: application/json, text/event-stream\r\nMCP-Protocol-Version: 2026-07-28\r\n"
        "Mcp-Method: tools/call\r\nMcp-Name: %s\r\n%s%s%sContent-Length: %d\r\n\r\n%s",
        path, ntohs(address.sin_port), tool, bearer ? "Authorization: Bearer " : "", bearer ? bearer : "",
        bearer ? "\r\n" : "", length, body);
    if (size >= (int)sizeof request) die("request too long");
    c->sent = now();
    c->waiting = 1;
    if (send(c->fd, request, size, MSG_NOSIGNAL) != size) shutdown(c->fd, SHUT_RDWR); /* the read then sees the end */
}

static void note_wrong(const char *why, const char *detail) {
    if (!wrong++) {
        snprintf(first_wrong, sizeof first_wrong, "%s: %.300s", why, detail);
        for (char *p = first_wrong; *p; p++)
            if ((unsigned char)*p < ' ' || *p == '"' || *p == '\\') *p = ' ';
    }
}

/* The value of a member, with spaces skipped; NULL where there is none. */
static const char *member(const char *body, const char *name) {
    const char *at = strstr(body, name);
    if (!at) return NULL;
    at += strlen(name);
    while (*at == ' ' || *at == ':') at++;
    return at;
}

static void check(const Connection *c, const char *body) {
    char *end = NULL, text[32];
    const char *id = member(body, "\"id\""), *is_error = member(body, "\"isError\"");
    if (strncmp(c->buffer, "HTTP/1.1 200", 12)) return note_wrong("status", c->buffer);
    if (strstr(body, "\"error\"")) return note_wrong("error", body);
    if (is_error && *is_error == 't') return note_wrong("isError", body);
    if (!id || strtoull(id, &end, 10) != c->id || (*end != ',' && *end != '}' && *end != ' '))
        return note_wrong("id", body);
    snprintf(text, sizeof text, "\"%s\"", c->token);
    if (!strstr(body, text)) return note_wrong("token", body);
}

/* Whether the buffer holds a whole answer; then `body` points to it, ended by a zero. */
static int complete(Connection *c, const char **body) {
    c->buffer[c->used] = 0;
    char *head_end = strstr(c->buffer, "\r\n\r\n");
    if (!head_end) return 0;
    *head_end = 0;
    char *header = strcasestr(c->buffer, "\r\ncontent-length:");
    *head_end = '\r';
    if (!header) {
        note_wrong("no content-length", c->buffer);
        shutdown(c->fd, SHUT_RDWR);
        return 0;
    }
    *body = head_end + 4;
    return c->used >= (size_t)(*body - c->buffer) + strtoul(header + 17, NULL, 10);
}

/* Reads what has come. Returns 1 when the answer is whole, -1 when the connection has ended, else 0. */
static int receive(Connection *c) {
    const char *body;
    ssize_t got = recv(c->fd, c->buffer + c->used, BUFFER - c->used, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return 0;
    if (got <= 0) return -1;
    c->used += got;
    if (!complete(c, &body)) return c->used == BUFFER ? -1 : 0;
    uint64_t us = (uint64_t)((now() - c->sent) * 1e6);
    latencies[us < BUCKETS ? us : BUCKETS - 1]++;
    answers++;
    check(c, body);
    c->used = 0;
    c->waiting = 0;
    return 1;
}

static unsigned percentile(double share) {
    uint64_t left = (uint64_t)(answers * share), seen = 0;
    for (unsigned us = 0; us < BUCKETS; us++)
        if ((seen += latencies[us]) > left) return us;
    return 0;
}

static double run(int count, double seconds) {
    double start = now(), stop = start + seconds, last = start;
    int outstanding = count;
    struct epoll_event events[256];
    for (int i = 0; i < count; i++) send_request(&connections[i]);
    while (outstanding && now() < stop + GRACE_SECONDS) {
        int ready = epoll_wait(epoll_fd, events, 256, 100);
        for (int i = 0; i < ready; i++) {
            Connection *c = events[i].data.ptr;
            int state = receive(c);
            if (!state) continue;
            if (state < 0) {
                if (c->waiting) note_wrong("closed", "the connection ended before the answer");
                close(c->fd);
                if (now() < stop) open_connection(c);
            }
            last = now();
            if (last < stop) send_request(c);
            else outstanding--;
        }
    }
    for (; outstanding; outstanding--) note_wrong("missing", "no answer came");
    return last - start;
}

int main(int argc, char **argv) {
    if (argc < 7 || argc > 8) {
        fprintf(stderr, "usage: load HOST PORT PATH TOOL CONNECTIONS SECONDS [BEARER]\n");
        return 2;
    }
    int count = atoi(argv[5]);
    address.sin_family = AF_INET;
    address.sin_port = htons(atoi(argv[2]));
    if (!inet_pton(AF_INET, argv[1], &address.sin_addr)) die("host");
    path = argv[3];
    tool = argv[4];
    bearer = argc == 8 ? argv[7] : NULL;
    if (count < 1 || count > MAX_CONNECTIONS) die("connections");
    connections = calloc(count, sizeof *connections);
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (!connections || epoll_fd < 0) die("start");
    for (int i = 0; i < count; i++) open_connection(&connections[i]);
    double elapsed = run(count, atof(argv[6]));
    printf("{\"answers\": %llu, \"wrong\": %llu, \"seconds\": %.4f, \"rps\": %.1f, \"p50_us\": %u, \"p99_us\": %u, "
           "\"first_wrong\": \"%s\"}\n",
           (unsigned long long)answers, (unsigned long long)wrong, elapsed, elapsed > 0 ? answers / elapsed : 0.0,
           percentile(0.5), percentile(0.99), first_wrong);
    return 0;
}
