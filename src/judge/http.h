/* http.h: many POST requests to one address, some at a time, with retries. Knows nothing of what they say. */
#ifndef TM_JUDGE_HTTP_H
#define TM_JUDGE_HTTP_H

#include "base/base.h"

typedef struct tm__http tm__http;

typedef struct tm__http_options {
    const char *url; /* as tm__http_address made it */
    const char *key; /* sent as a bearer token; NULL: none. Any text that comes back has it blotted out. */
    const char *ca;  /* file of certificates to trust; NULL: the system's */
    double timeout;  /* seconds for one try */
    double backoff;  /* seconds before the second try, doubled for each after it */
    double longest;  /* seconds waited at most, also where the server asks for more */
    int64_t retries, concurrency;
    size_t max_reply; /* bytes */
} tm__http_options;

typedef enum tm__http_trouble {
    TM__HTTP_NONE,
    TM__HTTP_RESOLVE, /* no such host */
    TM__HTTP_CONNECT, /* nobody answers there */
    TM__HTTP_SECURE,  /* the certificate is not trusted */
    TM__HTTP_TIMEOUT,
    TM__HTTP_BROKEN,  /* the connection ended before the reply did */
    TM__HTTP_TOO_LONG /* more than max_reply */
} tm__http_trouble;

/* Valid until `take` returns. */
typedef struct tm__http_reply {
    tm__http_trouble trouble;
    const char *detail; /* of the trouble, in libcurl's words */
    int code;           /* 200; 0: none came */
    const char *body;   /* ends with a NUL */
    size_t len;
    const char *moved; /* where a redirection points to; NULL: it is none. They are never followed. */
    int tries;         /* so far */
    bool last;         /* no tries are left */
} tm__http_reply;

/* Looks at the reply to request `index`; *again asks for another try. An error ends all requests. */
typedef tm_status (*tm__http_take)(void *user, size_t index, const tm__http_reply *reply, bool *again);

/* The caller keeps `options` and their texts for as long as `http` lives. */
tm_status tm__http_open(const tm__http_options *options, tm__http **http);
void tm__http_close(tm__http *http);
/* Posts every body that is not NULL, as application/json. TM_INTERRUPTED within a fraction of a second where the
 * monitor says stop. Connections are kept for the next call. */
tm_status tm__http_post(tm__http *http, const char *const *bodies, size_t n, tm__http_take take, void *user,
                        const tm_monitor *monitor);

/* Base URL and a path to go behind it ("/chat/completions"), which is not put there twice. TM_INVALID: no http or https
 * URL, or one with a user, a query or a fragment. */
tm_status tm__http_address(const char *base, const char *path, char **url);
bool tm__http_is_private(const char *url); /* encrypted, or on this machine */
/* Puts stars for every `key` in the text; NULL: there is none. */
void tm__http_blot(char *text, size_t len, const char *key);

/* Seconds to wait after try `tries` (1: the first): backoff doubled each time, half of it jittered, at least what the
 * server asked for (below 0: nothing), and `longest` at most. */
double tm__http_wait(const tm__http_options *options, int tries, double asked, tm__rng *rng);

#endif
