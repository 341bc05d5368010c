/* http_server.h: a small HTTP server on 127.0.0.1 whose replies a test writes, faults included. */
#ifndef TM_TEST_HTTP_SERVER_H
#define TM_TEST_HTTP_SERVER_H

#include <stdbool.h>
#include <stddef.h>

typedef struct http_server http_server;

typedef struct http_request {
    const char *head, *body; /* each ends with a NUL */
    int number;              /* from 0, over all connections */
    int connection;          /* from 0 */
    double at;               /* monotonic seconds */
} http_request;

/* Filled before `serve` is called with 200, no headers, no body. */
typedef struct http_answer {
    int status;
    const char *headers; /* further lines, each with its "\r\n"; NULL: none */
    char *body;          /* malloc'd; the server frees it */
    long promised;       /* Content-Length; below 0: as long as the body is */
    double delay;        /* seconds before anything is sent */
    double drip;         /* seconds after each byte of the body */
    bool hang_up;        /* the connection is closed after this, or at once where status is 0 */
} http_answer;

/* Called for one request at a time. */
typedef void http_serve(void *user, const http_request *request, http_answer *answer);

http_server *http_server_start(int port, http_serve *serve, void *user); /* port 0: any that is free; NULL: failed */
int http_server_port(const http_server *server);
int http_server_requests(http_server *server);    /* whole requests so far */
int http_server_connections(http_server *server); /* so far */
void http_server_stop(http_server *server);       /* ends all connections and frees the server */

/* A chat completion that says `text` (JSON's escapes are made here), as http_answer.body; NULL finish: "stop". */
char *http_chat_body(const char *text, const char *finish);

#endif
