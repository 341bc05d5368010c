/* http_server.c: a thread accepts, a thread per connection reads requests and sends what the test wants sent. */
#include "http_server.h"

#include <arpa/inet.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MAX_CONNECTIONS = 512, MAX_REQUEST = 8 << 20 };

typedef struct connection {
    http_server *server;
    pthread_t thread;
    int fd, number;
} connection;

struct http_server {
    int fd, port;
    http_serve *serve;
    void *user;
    pthread_t thread;
    pthread_mutex_t lock; /* of all below, and held while `serve` runs */
    connection list[MAX_CONNECTIONS];
    int connections, requests;
    bool stopping;
};

static double seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static bool stopping(http_server *server) {
    pthread_mutex_lock(&server->lock);
    bool stop = server->stopping;
    pthread_mutex_unlock(&server->lock);
    return stop;
}

/* Waits, but not for a client that has gone or a server that is told to stop. */
static bool wait_for(connection *c, double wait) {
    for (double end = seconds() + wait; wait > 0 && seconds() < end;) {
        char byte;
        struct pollfd fd = {.fd = c->fd, .events = POLLIN};
        double left = end - seconds();
        if (poll(&fd, 1, left < 0.05 ? (int)(left * 1000) + 1 : 50) > 0 &&
            recv(c->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) <= 0)
            return false;
        if (stopping(c->server)) return false;
    }
    return true;
}

static bool send_all(int fd, const char *bytes, size_t len) {
    while (len) {
        ssize_t n = send(fd, bytes, len, MSG_NOSIGNAL);
        if (n <= 0) return false;
        bytes += n;
        len -= (size_t)n;
    }
    return true;
}

/* Head and body into `buffer`, which keeps what came behind them. Where the body begins, or 0: no more requests. */
static size_t read_request(connection *c, char *buffer, size_t *have, size_t *whole) {
    for (;;) {
        buffer[*have] = 0;
        char *end = strstr(buffer, "\r\n\r\n");
        if (end) {
            const char *length = strcasestr(buffer, "\r\ncontent-length:");
            size_t head = (size_t)(end - buffer) + 4;
            *whole = head + (length && length < end ? strtoul(length + 17, NULL, 10) : 0);
            if (*whole > MAX_REQUEST) return 0;
            if (*have >= *whole) return head;
        }
        ssize_t n = *have < MAX_REQUEST ? recv(c->fd, buffer + *have, MAX_REQUEST - *have, 0) : 0;
        if (n <= 0) return 0;
        *have += (size_t)n;
    }
}

static bool send_answer(connection *c, const http_answer *answer) {
    char head[1024];
    size_t len = answer->body ? strlen(answer->body) : 0;
    if (!wait_for(c, answer->delay) || answer->status == 0) return false;
    int n = snprintf(
        head, sizeof head, "HTTP/1.1 %d Status\r\nContent-Type: application/json\r\nContent-Length: %ld\r\n%s\r\n",
        answer->status, answer->promised < 0 ? (long)len : answer->promised, answer->headers ? answer->headers : "");
    if (!send_all(c->fd, head, (size_t)n)) return false;
    if (answer->drip <= 0) return !len || send_all(c->fd, answer->body, len);
    for (size_t i = 0; i < len; i++)
        if (!send_all(c->fd, answer->body + i, 1) || !wait_for(c, answer->drip)) return false;
    return true;
}

static bool serve_one(connection *c, char *buffer, size_t *have) {
    size_t whole = 0, head = read_request(c, buffer, have, &whole);
    if (!head) return false;
    char kept = buffer[whole];
    http_answer answer = {.status = 200, .promised = -1};
    buffer[head - 1] = 0;
    buffer[whole] = 0;
    pthread_mutex_lock(&c->server->lock);
    http_request request = {.head = buffer,
                            .body = buffer + head,
                            .number = c->server->requests++,
                            .connection = c->number,
                            .at = seconds()};
    c->server->serve(c->server->user, &request, &answer);
    pthread_mutex_unlock(&c->server->lock);
    buffer[whole] = kept;
    bool good = send_answer(c, &answer) && !answer.hang_up;
    free(answer.body);
    memmove(buffer, buffer + whole, *have - whole);
    *have -= whole;
    return good;
}

static void *serve_connection(void *user) {
    connection *c = user;
    char *buffer = malloc(MAX_REQUEST + 1);
    size_t have = 0;
    while (buffer && serve_one(c, buffer, &have)) continue;
    free(buffer);
    shutdown(c->fd, SHUT_RDWR); /* closed by http_server_stop, so that the number is not used again */
    return NULL;
}

static void *accept_all(void *user) {
    http_server *server = user;
    for (;;) {
        int fd = accept(server->fd, NULL, NULL);
        if (fd < 0) return NULL;
        pthread_mutex_lock(&server->lock);
        int n = server->connections;
        bool room = n < MAX_CONNECTIONS && !server->stopping;
        if (room) {
            connection *c = &server->list[n];
            *c = (connection){.server = server, .fd = fd, .number = n};
            room = pthread_create(&c->thread, NULL, serve_connection, c) == 0;
            server->connections += room;
        }
        pthread_mutex_unlock(&server->lock);
        if (!room) close(fd);
    }
}

http_server *http_server_start(int port, http_serve *serve, void *user) {
    http_server *server = calloc(1, sizeof *server);
    struct sockaddr_in where = {
        .sin_family = AF_INET, .sin_port = htons((unsigned short)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof where;
    if (!server) return NULL;
    server->serve = serve;
    server->user = user;
    pthread_mutex_init(&server->lock, NULL);
    server->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (server->fd < 0 || bind(server->fd, (struct sockaddr *)&where, sizeof where) != 0 ||
        listen(server->fd, 64) != 0 || getsockname(server->fd, (struct sockaddr *)&where, &len) != 0 ||
        pthread_create(&server->thread, NULL, accept_all, server) != 0) {
        if (server->fd >= 0) close(server->fd);
        free(server);
        return NULL;
    }
    server->port = ntohs(where.sin_port);
    return server;
}

int http_server_port(const http_server *server) {
    return server->port;
}

int http_server_requests(http_server *server) {
    pthread_mutex_lock(&server->lock);
    int n = server->requests;
    pthread_mutex_unlock(&server->lock);
    return n;
}

int http_server_connections(http_server *server) {
    pthread_mutex_lock(&server->lock);
    int n = server->connections;
    pthread_mutex_unlock(&server->lock);
    return n;
}

void http_server_stop(http_server *server) {
    pthread_mutex_lock(&server->lock);
    server->stopping = true;
    for (int i = 0; i < server->connections; i++) shutdown(server->list[i].fd, SHUT_RDWR);
    pthread_mutex_unlock(&server->lock);
    shutdown(server->fd, SHUT_RDWR);
    pthread_join(server->thread, NULL);
    for (int i = 0; i < server->connections; i++) {
        pthread_join(server->list[i].thread, NULL);
        close(server->list[i].fd);
    }
    close(server->fd);
    pthread_mutex_destroy(&server->lock);
    free(server);
}

char *http_chat_body(const char *text, const char *finish) {
    size_t size = 6 * strlen(text) + 300, at = 0;
    char *body = malloc(size);
    if (!body) return NULL;
    at = (size_t)snprintf(body, size,
                          "{\"id\": \"x\", \"choices\": [{\"index\": 0, \"message\": {\"role\": \"assistant\", "
                          "\"content\": \"");
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;
        if (c < 0x20 || c == '"' || c == '\\')
            at += (size_t)snprintf(body + at, size - at, "\\u%04x", c);
        else
            body[at++] = *text;
    }
    snprintf(body + at, size - at,
             "\"}, \"finish_reason\": \"%s\"}], \"usage\": {\"prompt_tokens\": 100, "
             "\"completion_tokens\": 7}}",
             finish ? finish : "stop");
    return body;
}
